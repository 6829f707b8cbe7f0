"""`./dev peers`, without its binaries."""

import pytest

from bench.peers.__main__ import table
from bench.peers.measuring import Sample
from bench.peers.services import program


@pytest.mark.parametrize(("name", "build"), [("ratelimit", "go install "), ("limitador", "cargo build ")])
def test_a_missing_binary_is_named_with_the_way_to_build_it(
    capsys: pytest.CaptureFixture[str], name: str, build: str
) -> None:
    assert program(name, "/nowhere/binary") is None
    error = capsys.readouterr().err
    assert error.startswith(f"--{name} /nowhere/binary: no such program, so it is not measured.")
    assert build in error


def test_the_table_compares_service_and_store_with_extauth() -> None:
    samples = {"extauth": Sample(8, 2, 1000, 1000, 2000), "other": Sample(20, 5, 500, 2000, 4000)}
    lines = table({("direct", 8): samples}, {"extauth": 1000, "other": 1024}, {"other": "1.2"}, 3).splitlines()
    assert "| direct | 8 | extauth | 8.0 | 2.0 | 1.0× | 1,000 | 1.00 | 2.00 |" in lines
    assert "| direct | 8 | other | 20.0 | 5.0 | 2.5× | 500 | 2.00 | 4.00 |" in lines
    assert lines[-1].endswith("admitted: extauth 1,000; other 1,024.")
