"""The pages people look at, in a real browser, without the internet."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.system.conftest import Installation

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Chromium. Skipped with a clear message where there is none, required on a build server."""
    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("No Chromium here: install it to see the pages tested (Debian: apt-get install chromium)")
    assert CHROMIUM, "a build server needs Chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


def opened(browser: Browser, url: str, outside: list[str]) -> Page:
    """The page, loaded; what it asked of other hosts is noted and refused."""
    page = browser.new_page()
    page.set_default_timeout(100_000)

    def guard(route: object, request: object) -> None:
        if request.url.startswith(("http://127.0.0.1", "data:", "blob:")):  # type: ignore[attr-defined]
            route.continue_()  # type: ignore[attr-defined]
        else:
            outside.append(request.url)  # type: ignore[attr-defined]
            route.abort()  # type: ignore[attr-defined]

    page.route("**/*", guard)
    page.goto(url, wait_until="networkidle")
    return page


def test_the_docs_show_every_route_and_ask_nothing_of_the_internet(
    installation: Installation, browser: Browser
) -> None:
    installation.start_web()
    outside: list[str] = []
    page = opened(browser, f"http://127.0.0.1:{installation.port}/docs", outside)
    page.get_by_text("File a claim").first.wait_for()
    assert page.get_by_text("Show a claim").count() > 0
    assert outside == []


def test_the_sandbox_page_shows_what_arrived(installation: Installation, browser: Browser) -> None:
    installation.start_web()
    installation.start_worker()
    assert installation.post(1, headers={"Prefer": "wait=20"}).json()["state"] == "submitted"
    outside: list[str] = []
    page = opened(browser, installation.sandbox.url("control") + "/", outside)
    assert "submit-claim" in page.content()
    assert outside == []
