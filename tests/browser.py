"""A page as a person has it: a real browser on it, and the text that shows."""

import asyncio
import os
import re
import shutil
from pathlib import Path

import pytest


def chromium() -> str:
    """The browser; without one the test is skipped, or failed where CI=true: there nothing may be skipped."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("no chromium on PATH", pytrace=False)
    if found is None:
        pytest.skip("no chromium on PATH: apt-get install chromium")
    return found


async def seen_in_browser(url: str, profile: Path) -> str:
    """The document as the browser has it after five seconds of its own time, once all answers are in."""
    quiet = "--disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
    process = await asyncio.create_subprocess_exec(
        chromium(),
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *quiet.split()),
        f"--user-data-dir={profile}",
        "--virtual-time-budget=5000",
        "--dump-dom",
        url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 50)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return output.decode()


def cells(page: str) -> str:
    """What a reader sees, tags as blanks."""
    return " ".join(re.sub(r"<[^>]+>", " ", page[page.index("<body>") : page.index("<script>")]).split())
