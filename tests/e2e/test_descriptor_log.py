"""What a real Envoy's access log holds of the descriptors."""

import re

from tests.e2e.access_log import until_lines
from tests.e2e.conftest import Launch
from tests.e2e.edge import FREE


async def test_the_access_log_has_the_descriptors_of_allowed_and_denied_requests(launch: Launch) -> None:
    edge = launch(env={"EXTAUTH_LOG_DESCRIPTORS": "on", "EXTAUTH_KEY_SECRET": "pepper"})
    assert await edge.statuses(11, key=FREE) == [200] * 10 + [429]
    assert (await edge.get("/orders/7", source="127.0.0.9")).status == 200
    *free, anonymous = await until_lines(edge, 12)
    assert {line["status"] for line in free} == {200, 429}
    address = {"entries": [["masked_remote_address", "127.0.0.1/32"]]}
    key = free[0]["ratelimit"]["descriptors"][0]
    digest = key["entries"][0][2]
    assert key == {"entries": [["api_key", None, digest]]}
    assert re.fullmatch("[0-9a-f]{16}", digest)
    path = {"entries": [["path", "/"]]}
    assert all(line["ratelimit"] == {"domain": "api", "descriptors": [key, address, path]} for line in free)
    assert anonymous["ratelimit"]["descriptors"] == [
        {"entries": [["masked_remote_address", "127.0.0.9/32"]]},
        {"entries": [["path", "/orders"]]},
    ]
    assert FREE not in edge.stack.logs()["envoy"].read_text()


async def test_without_the_setting_it_has_none(launch: Launch) -> None:
    edge = launch()
    await edge.statuses(1)
    (line,) = await until_lines(edge, 1)
    assert line["ratelimit"] is None
