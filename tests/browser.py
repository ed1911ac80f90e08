"""A real browser: Debian's Chromium, which is installed where it is missing and the user may install it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

ARTEFACTS = Path(__file__).parents[1] / "test-artefacts"
"""Where pictures of the pages are kept, to be looked at."""


def chromium() -> str:
    """Its path; the tests are skipped where there is none and none can be had."""
    for name in ("chromium", "chromium-browser"):
        if found := shutil.which(name):
            return found
    if os.geteuid() == 0 and shutil.which("apt-get"):
        with suppress(subprocess.SubprocessError, OSError):
            subprocess.run(["apt-get", "install", "-y", "-q", "chromium"], capture_output=True, timeout=600)
    found = shutil.which("chromium")
    if not found:
        pytest.skip("no chromium, and it cannot be installed here: apt-get install chromium")
    return found


@contextmanager
def launched() -> Iterator[Browser]:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class OpenedPage:
    """A page that was opened, and everything it did that it should not."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, browser: Browser, file: Path, width: int = 1280, scheme: str = "light") -> "OpenedPage":
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        seen = cls(page)
        page.on("console", lambda said: seen.complaints.append(f"console: {said.text}"))
        page.on("pageerror", lambda error: seen.complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (seen.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("popup", lambda other: seen.complaints.append(f"popup: {other.url}"))
        own = file.resolve().as_uri()

        def guard(route: Route) -> None:
            if route.request.url.partition("#")[0] == own:
                route.continue_()
            else:
                seen.complaints.append(f"request: {route.request.url[:200]}")
                route.abort()

        page.route("**/*", guard)
        page.goto(own)
        page.wait_for_load_state("load")
        return seen

    def shot(self, name: str) -> None:
        """Keep a picture."""
        ARTEFACTS.mkdir(exist_ok=True)
        self.page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)


CONTRAST = Path(__file__).with_name("contrast.js").read_text("utf-8")
"""Counts texts, and names those that stand out too little."""

SPLIT = Path(__file__).with_name("split.js").read_text("utf-8")
"""Counts words, and names those that a line break splits."""
