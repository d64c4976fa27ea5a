"""A headless browser."""

import os
import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1280,1800"),
)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have chromium and chromedriver")
        pytest.skip("needs chromium and chromedriver (Debian: apt install chromium chromium-driver)")
    options = Options()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=Service(driver))
    yield running
    running.quit()


@pytest.fixture
def opened(browser):
    """Opens a page and returns the browser; whatever its console says fails the test."""

    def open_page(path):
        browser.get(path.as_uri())
        # A busy machine may answer before the scripts have run.
        ready = "document.readyState === 'complete' && (!document.getElementById('what-if') || Boolean(window.whatIf))"
        WebDriverWait(browser, 30).until(lambda page: page.execute_script(f"return {ready}"))
        return browser

    browser.get("about:blank")
    browser.get_log("browser")
    yield open_page
    assert browser.get_log("browser") == []
