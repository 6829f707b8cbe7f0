"""Counters' names in the store."""

from extauth.counters.keys import KeyNamer


def test_a_name_shows_prefix_domain_and_keys_but_no_value() -> None:
    name = KeyNamer("extauth")("api", [("api_key", "free-tier-key"), ("path", "")])
    assert name.startswith(b"extauth:{3:api,7:api_key=")
    assert b",4:path=" in name
    assert name.endswith(b"}")
    assert b"free" not in name


def test_a_secret_keys_the_hash() -> None:
    plain, keyed, other = (KeyNamer("x", secret).fingerprint("free-tier-key") for secret in ("", "s", "t"))
    assert len({plain, keyed, other}) == 3
    assert {len(plain), len(keyed)} == {22}
    assert KeyNamer("y", "s").fingerprint("free-tier-key") == keyed, "the same in every replica"
    assert KeyNamer("y", "s" * 1000).fingerprint("v"), "of any length"


def test_names_never_meet() -> None:
    namer = KeyNamer("x")
    descriptors = [
        ("d", [("a", "b"), ("c", "d")]),
        ("d", [("a", "b,1:c=d")]),
        ("d", [("a_b", "")]),
        ("d", [("a", "_b")]),
        ("d", [("a", "b")]),
        ("d,1:a", [("b", "")]),
        ("d", [("a", "")]),
        ("d", []),
        ("", [("d", "")]),
        ("d", [("a", "\udcff")]),
    ]
    assert len({namer(domain, entries) for domain, entries in descriptors}) == len(descriptors)
