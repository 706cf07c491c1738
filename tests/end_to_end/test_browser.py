"""The report in a real browser, opened from disk."""

import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from justenough.report.html import render

EVIL = '"><img src=x onerror="document.title=1"></script><script>document.title="owned"</script>'
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
pytestmark = pytest.mark.slow


def programs() -> tuple[str, str]:
    """Paths of the browser and its driver; skips without them, and fails in CI."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        missing = "chromium" if browser is None else "chromedriver"
        if os.environ.get("CI"):
            pytest.fail(f"{missing} is missing, and CI has to look at the report in a browser")
        pytest.skip(f"skipped because {missing} is missing")
    return browser, driver


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Headless Chromium with an empty profile that records its requests and its console."""
    binary, driver = programs()
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    got = webdriver.Chrome(options=options, service=Service(driver))
    yield got
    got.quit()


@pytest.fixture
def summary() -> dict[str, Any]:
    """The summary of a real run: a cascade for lung nodules that held."""
    text = (Path(__file__).parent / "summary_held.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def logged(browser: webdriver.Chrome, kind: str) -> list[dict[str, Any]]:
    """What the browser has logged since it was last asked: its console, or its requests."""
    found: list[dict[str, Any]] = browser.get_log(kind)  # type: ignore[no-untyped-call]
    return found


def look(browser: webdriver.Chrome, summary: dict[str, Any], folder: Path, width: int) -> None:
    """Open the report of `summary` from disk in a window `width` pixels wide."""
    page = folder / "report.html"
    page.write_text(render(summary), encoding="utf-8")
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen"})
    logged(browser, "performance")
    logged(browser, "browser")
    browser.get(page.as_uri())


def one(browser: webdriver.Chrome, css: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, css)


def requested(browser: webdriver.Chrome) -> list[str]:
    """Addresses that pages asked for."""
    messages = (json.loads(e["message"])["message"] for e in logged(browser, "performance"))
    return [
        m["params"]["request"]["url"]
        for m in messages
        if m["method"] == "Network.requestWillBeSent"
    ]


def overflow(browser: webdriver.Chrome) -> int:
    """Pixels by which the page is wider than its window."""
    code = "const e = document.documentElement; return e.scrollWidth - e.clientWidth"
    return int(browser.execute_script(code))


def test_buttons_change_the_picture(
    browser: webdriver.Chrome, summary: dict[str, Any], tmp_path: Path
) -> None:
    look(browser, summary, tmp_path, 1280)
    first = one(browser, '.view[data-x="speed"][data-y="measured"]')
    other = one(browser, '.view[data-x="speed"][data-y="predicted"]')
    assert first.is_displayed() and not other.is_displayed()
    before = one(browser, "#pareto").screenshot_as_base64
    button = one(browser, 'button[data-value="predicted"]')
    button.click()
    assert other.is_displayed() and not first.is_displayed()
    assert button.get_attribute("aria-pressed") == "true"
    assert one(browser, "#pareto").screenshot_as_base64 != before
    one(browser, 'button[data-value="size"]').click()
    assert one(browser, '.view[data-x="size"][data-y="predicted"]').is_displayed()
    assert logged(browser, "browser") == []


def test_folded_table_opens(
    browser: webdriver.Chrome, summary: dict[str, Any], tmp_path: Path
) -> None:
    look(browser, summary, tmp_path, 1280)
    table = one(browser, "#pareto details table")
    assert not table.is_displayed()
    one(browser, "#pareto summary").click()
    assert table.is_displayed()
    assert "HELD" in table.text
    assert "to the exact model" in table.text


def test_pointing_at_a_candidate_explains_it(
    browser: webdriver.Chrome, summary: dict[str, Any], tmp_path: Path
) -> None:
    look(browser, summary, tmp_path, 1280)
    tip = one(browser, "#tip")
    assert not tip.is_displayed()
    one(browser, ".view:not([hidden]) .wide .point:has(.ring) .touch").click()
    assert tip.is_displayed()
    assert "What was certified" in tip.text
    assert "OpenVINO" in tip.text
    e = summary["certificate"]["clauses"][0]
    assert f"{e['changed']} of 624 groups changed" in tip.text


@pytest.mark.parametrize("width", [360, 1280])
def test_page_fits_and_asks_for_nothing(
    browser: webdriver.Chrome, summary: dict[str, Any], tmp_path: Path, width: int
) -> None:
    look(browser, summary, tmp_path, width)
    assert overflow(browser) <= 0
    for folded in browser.find_elements(By.CSS_SELECTOR, "summary"):
        folded.click()
    assert overflow(browser) <= 0
    assert logged(browser, "browser") == []
    asked = requested(browser)
    assert asked
    assert all(u.startswith(("file://", "data:")) for u in asked)


def test_phone_gets_its_own_drawings(
    browser: webdriver.Chrome, summary: dict[str, Any], tmp_path: Path
) -> None:
    look(browser, summary, tmp_path, 360)
    assert one(browser, ".view .phone svg").is_displayed()
    assert not one(browser, ".view .wide").is_displayed()


def test_variants_become_blocks_on_a_phone(
    browser: webdriver.Chrome, summary: dict[str, Any], tmp_path: Path
) -> None:
    look(browser, summary, tmp_path, 390)
    browser.execute_script(
        "document.querySelectorAll('details').forEach((d) => { d.open = true })"
    )
    row = one(browser, "#search table.pairs tbody tr")
    cells = row.find_elements(By.TAG_NAME, "td")
    assert row.value_of_css_property("display") == "grid"
    assert cells[0].rect["width"] > 1.5 * cells[1].rect["width"]
    assert cells[1].rect["y"] == cells[2].rect["y"] > cells[0].rect["y"]
    assert overflow(browser) <= 0
    assert one(browser, "#stages table.pairs").is_displayed()


def test_runtimes_have_colours_of_their_own(
    browser: webdriver.Chrome, summary: dict[str, Any], tmp_path: Path
) -> None:
    look(browser, summary, tmp_path, 1400)
    seen = {
        kind: one(browser, f"#pareto .legend .dot.{kind}").value_of_css_property("fill")
        for kind in ("rt-0", "rt-1")
    }
    assert len(set(seen.values())) == 2
    shapes = [one(browser, f"#pareto .legend .dot.{kind}").tag_name for kind in ("rt-0", "rt-1")]
    assert shapes == ["circle", "polygon"]


def test_dark_is_dark(browser: webdriver.Chrome, summary: dict[str, Any], tmp_path: Path) -> None:
    look(browser, summary, tmp_path, 1280)
    seen = []
    for scheme in ("light", "dark"):
        feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
        seen.append(one(browser, "body").value_of_css_property("background-color"))
    assert seen == ["rgba(244, 245, 247, 1)", "rgba(16, 21, 27, 1)"]


def test_paper_shows_what_is_folded_and_no_buttons(
    browser: webdriver.Chrome, summary: dict[str, Any], tmp_path: Path
) -> None:
    look(browser, summary, tmp_path, 1280)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 690, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert not one(browser, ".toggles").is_displayed()
    assert one(browser, "#pareto details table").is_displayed()
    assert one(browser, ".view .wide svg").is_displayed()
    assert overflow(browser) <= 0
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert one(browser, "#pareto details").get_attribute("open") is None
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF")
    assert 3 <= pdf.count(b"/Type /Page\n") <= 16


def test_hostile_names_do_not_run(
    browser: webdriver.Chrome, summary: dict[str, Any], tmp_path: Path
) -> None:
    summary["model"]["file"] = summary["contract"]["population"] = EVIL
    summary["certificate"]["note"] = [EVIL]
    summary["search"]["notes"] = [f"{EVIL} was skipped: {EVIL}"]
    name = next(iter(summary["search"]["sites"]))
    search = summary["search"]
    tables = (search["sites"], search["sensitivity"]["noise"], summary["result"]["sites"])
    for table in tables:
        table[EVIL] = table.pop(name)
    look(browser, summary, tmp_path, 360)
    assert browser.title == f"HELD: {EVIL}"
    assert browser.find_elements(By.TAG_NAME, "img") == []
    assert EVIL in one(browser, ".notes").text
    assert EVIL in one(browser, ".left-out").text
    assert overflow(browser) <= 0
    assert logged(browser, "browser") == []


def test_policy_stops_a_script_that_was_slipped_in(
    browser: webdriver.Chrome, summary: dict[str, Any], tmp_path: Path
) -> None:
    look(browser, summary, tmp_path, 1280)
    page = tmp_path / "report.html"
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("</main>", "<script>document.title='owned'</script></main>"))
    browser.get(page.as_uri())
    assert browser.title == "HELD: model.onnx"
    assert any("Content Security Policy" in e["message"] for e in logged(browser, "browser"))
