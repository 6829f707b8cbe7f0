"""Whatever a log holds, it is replayed to its end."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from extauth.replay.page import page
from tests.replay.logs import Logger, log_line
from tests.replay.replays import replayed_files

CONFIG = """domain: d
labels: [path]
descriptors:
- {key: api_key, value: a, rate_limit: {unit: second, requests_per_unit: 2, algorithm: gcra}}
- {key: api_key, value_regex: "x.*", rate_limit: {unit: second, requests_per_unit: 2}}
- {key: user, value_to_metric: true, rate_limit: {unit: second, requests_per_unit: 1}}
"""
GOOD = Logger(CONFIG).line(1, "api_key=a", "path=/", hits=3)
texts = st.text(max_size=5) | st.sampled_from(["\ud800", "\udcff", "\0", "api_key", "user"])
entries = st.lists(texts, min_size=1, max_size=2) | st.tuples(texts, st.none() | texts, st.just("0123456789abcdef"))
numbers = st.integers(-1, 2**65) | st.floats()
odd_requests = st.fixed_dictionaries(
    {
        "domain": texts | st.just("d"),
        "descriptors": st.lists(
            st.fixed_dictionaries(
                {"entries": st.lists(entries, max_size=3)},
                optional={"hits": numbers, "limit": st.tuples(numbers, st.sampled_from(["day", "x"]))},
            ),
            max_size=3,
        ),
    },
    optional={"hits": numbers},
)


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A good line, of which a piece is cut out and replaced."""
    line = GOOD.encode()
    begin, end = sorted(draw(st.tuples(st.integers(0, len(line)), st.integers(0, len(line)))))
    return line[:begin] + draw(st.binary(max_size=5)) + line[end:]


GZIP = b"\x1f\x8b"  # what begins with that is read as gzip, and a break in it has tests of its own
odd_lines = st.one_of(
    st.binary(max_size=50), spoilt(), st.builds(log_line, st.floats(0, 10), odd_requests).map(str.encode)
).filter(lambda line: b"\n" not in line and not line.startswith(GZIP))


@settings(max_examples=300, deadline=None)
@given(st.lists(odd_lines, max_size=5))
def test_no_line_stops_a_replay(odd: list[bytes]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.write_bytes(b"".join(line + b"\n" for line in [*odd, GOOD.encode()]))
        view = replayed_files(CONFIG, path)
    lines = view["lines"]
    blank = sum(not line.strip() for line in odd)
    assert lines["read"] == len(odd) + 1
    assert lines["replayed"] + lines["malformed"] + lines["without_descriptors"] + blank == len(odd) + 1
    assert lines["replayed"] >= 1
    json.dumps(view)
    page(view).encode()
