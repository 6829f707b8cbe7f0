"""Values of variables, as Go reads them."""

import pytest

from extauth.compat.go_values import read_bool, read_duration_s, read_float, read_int, read_map

TRUE = ["1", "t", "T", "true", "True", "TRUE"]
FALSE = ["0", "f", "F", "false", "False", "FALSE"]


@pytest.mark.parametrize(("text", "value"), [*((each, True) for each in TRUE), *((each, False) for each in FALSE)])
def test_a_bool(text: str, value: bool) -> None:
    assert read_bool(text) is value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8081", 8081),
        ("+8081", 8081),
        ("-1", -1),
        ("0", 0),
        ("010", 8),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b101", 5),
        ("0x_ff", 255),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
    ],
)
def test_an_int(text: str, value: int) -> None:
    assert read_int(text) == value


@pytest.mark.parametrize(("text", "value"), [("0.8", 0.8), ("1", 1.0), (".5", 0.5), ("1e-3", 0.001), ("+2.", 2.0)])
def test_a_float(text: str, value: float) -> None:
    assert read_float(text) == value


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("150us", 0.00015),
        ("150µs", 0.00015),
        ("150μs", 0.00015),
        ("10s", 10),
        ("1h30m", 5400),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("1.s", 1),
        ("250ms", 0.25),
        ("7ns", 7e-9),
        ("0", 0),
        ("-1m", -60),
        ("+2m3.5s", 123.5),
        ("24h", 86_400),
    ],
)
def test_a_duration(text: str, seconds: float) -> None:
    assert read_duration_s(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "value"),
    [("", {}), (" ", {}), ("a:b", {"a": "b"}), ("a:b,c:d", {"a": "b", "c": "d"}), ("a:1,a:2", {"a": "2"})],
)
def test_a_map(text: str, value: dict[str, str]) -> None:
    assert read_map(text) == value


@pytest.mark.parametrize(
    ("read", "texts"),
    [
        (read_bool, ["yes", "on", "tRUE", " true", "2", "true\n", "\uff54"]),
        (
            read_int,
            ["1.0", "1e3", " 1", "1 ", "1_000", "0x", "0o8", "089", "٣", "9223372036854775808", "9" * 5000, "--1"],
        ),
        (read_float, ["nan", "inf", "1e999", "0,8", "", ".", "1_0", "9" * 5000]),
        (read_duration_s, ["10", "s", "10 s", "1d", "1h 30m", "5S", "-", "3000000h", "9" * 5000 + "s", "1s\n", "٣s"]),
        (read_map, ["a", "a:b:c", "a:b,", "a=b"]),
    ],
    ids=["bool", "int", "float", "duration", "map"],
)
def test_what_go_refuses_is_refused(read: object, texts: list[str]) -> None:
    assert callable(read)
    for text in texts:
        with pytest.raises(ValueError, match=r"such as|written|64 bits|290 years|as in"):
            read(text)
