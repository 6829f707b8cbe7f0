"""Writes the table of variables into docs/migrating.md: `python -m scripts.variables_table`."""

from pathlib import Path

from extauth.compat.variables import VARIABLES, Variable

PAGE = Path(__file__).parents[1] / "docs/migrating.md"

_BEGIN = "extauth/compat/variables.py. -->\n"
_END = "\n<!-- end of the table -->"
_HEAD = "| envoyproxy/ratelimit | type, default | extauth |\n|---|---|---|\n"


def with_table(text: str) -> str:
    """The text of docs/migrating.md with the table as it should be."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError("docs/migrating.md has no place for the table")
    return f"{before}{begin}\n{_HEAD}{''.join(map(_row, VARIABLES))}{end}{after}"


def _row(variable: Variable) -> str:
    default = f", `{variable.default}`" if variable.default else ""
    ours = f"`{variable.ours}`" if variable.ours else "none"
    note = f": {variable.note}" if variable.note else ""
    return f"| `{variable.name}` | {variable.kind.value}{default} | {ours}{note} |\n"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
