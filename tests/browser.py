"""Opens pages in Debian's chromium, driven by Playwright, and keeps whatever the browser complains about."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no chromium to open pages in: apt-get install chromium"
)
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@contextlib.contextmanager
def browser() -> Iterator:
    """A running browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@contextlib.contextmanager
def opened(running, path: Path, hash: str = "", **options) -> Iterator:
    """A page opened from a file; fails at the end on errors of the console, of scripts, and on failed requests."""
    context = running.new_context(**{"viewport": WIDE, **options})
    page, complaints = context.new_page(), []
    page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url[:200]}"))
    page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}") or dialog.dismiss())
    page.on("request", lambda request: _is_remote(request.url) and complaints.append(f"asked for {request.url[:200]}"))
    page.goto(f"file://{path.resolve()}{hash}")
    yield page
    context.close()
    assert not complaints, complaints


def _is_remote(url: str) -> bool:
    return not url.startswith(("file:", "data:", "blob:"))
