"""The live page, put together once from its parts: one answer that needs no other request to be drawn."""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

from extauth.admin.routes import Answer

HTML: Final = "text/html; charset=utf-8"
# In this order: each may use what those before it define.
_SCRIPTS: Final = ("dom.js", "chart.js", "rules.js", "callers.js", "state.js", "explain.js", "live.js")


@cache
def page() -> Answer:
    """The page. Its policy lets the browser run and load nothing but what is in it and this server's own streams."""
    folder = files(__name__)
    style = folder.joinpath("page.css").read_text("utf-8")
    script = "\n".join(folder.joinpath(name).read_text("utf-8") for name in _SCRIPTS)
    html = folder.joinpath("page.html").read_text("utf-8")
    html = html.replace("<style></style>", f"<style>{style}</style>").replace(
        "<script></script>", f"<script>{script}</script>"
    )
    policy = (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Answer(
        html.encode(),
        HTML,
        headers=[
            ("Content-Security-Policy", policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-cache"),
        ],
    )


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
