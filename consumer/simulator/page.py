"""Answers for the page for people: what `/simulator/...` tells, in a browser. Reads its file, touches nothing else.

Whatever a client stored is written as text, never as markup; and the page may run its own script and style alone, and
ask this server alone.
"""

import base64
import hashlib
import re
from pathlib import Path

from aiohttp import web

_FILE = Path(__file__).with_name("page.html")


def _allowed(page: str, tag: str) -> str:
    (block,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()}'"


def add_page(router: web.UrlDispatcher) -> None:
    """Serve the page at `/` and `/simulator`."""
    page = _FILE.read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src {_allowed(page, 'script')}; style-src {_allowed(page, 'style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

    async def show(_: web.Request) -> web.StreamResponse:
        return web.Response(text=page, content_type="text/html", headers=headers)

    router.add_get("/", show)
    router.add_get("/simulator", show)
