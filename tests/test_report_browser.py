"""The page as a browser has it: all rows, sorting, filters, buttons, no overflow, no network."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_run import config, make_run, small

from analysis import report
from trainables.store import RunStore

selenium = pytest.importorskip("selenium", reason="the extra 'test' brings selenium")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # selenium's own sockets
    pytest.mark.skipif(
        not (BROWSER and DRIVER), reason="needs chromium and chromedriver (Debian: chromium-driver)"
    ),
]
WAITING = 100  # trials proposed and not begun: rows beyond the first hundred


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    run = make_run(tmp_path_factory.mktemp("browser") / "run", 12, small())
    rng = np.random.default_rng(1)
    for number in range(100, 100 + WAITING):
        run.create_trial(config(number, rng), number)
    report.write_report(run)
    return run


@pytest.fixture(scope="module")
def page(run: RunStore) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    try:
        driver.set_window_size(1400, 1000)
        driver.get((run.root / "report" / "index.html").as_uri())
        yield driver
    finally:
        driver.quit()


@pytest.fixture(autouse=True)
def _afresh(page: Any) -> None:
    filtered(page, "")
    page.execute_script(
        "const by = document.getElementById('by'); by.value = '';"
        "by.dispatchEvent(new Event('change'))"
    )


def filtered(page: Any, text: str) -> None:
    page.execute_script(
        "const box = document.getElementById('filter'); box.value = arguments[0];"
        "box.dispatchEvent(new Event('input'))",
        text,
    )


def rows(page: Any) -> list[list[str]]:
    found: list[list[str]] = page.execute_script(
        "return [...document.querySelectorAll('#trials tbody tr')].map("
        "row => [...row.cells].map(cell => cell.textContent.replace(/\\s+/g, ' ').trim()))"
    )
    return found


def column(page: Any, heading: str) -> list[str]:
    place = page.execute_script(
        "return [...document.querySelectorAll('#trials thead th')].findIndex("
        "head => head.textContent.trim() === arguments[0])",
        heading,
    )
    return [row[place] for row in rows(page)]


def click(page: Any, heading: str) -> str:
    script = (
        "const head = [...document.querySelectorAll('#trials thead th')].find("
        "head => head.textContent.trim() === arguments[0]);"
        "head.querySelector('button').click(); return head.getAttribute('aria-sort')"
    )
    return str(page.execute_script(script, heading))


def shown(page: Any) -> str:
    return str(page.execute_script("return document.getElementById('shown').textContent"))


def test_the_script_shows_what_the_page_has_without_it(page: Any, run: RunStore) -> None:
    from page import Page

    plain = Page((run.root / "report" / "index.html").read_text()).rows["board"][1:]
    wanted = [[" ".join(cell.split()) for cell in row] for row in plain]
    assert len(wanted) == 100
    assert rows(page) == wanted


def test_more_rows_come_on_request(page: Any) -> None:
    assert "112 rows, the first 100 shown" in shown(page)
    page.execute_script("document.getElementById('more').click()")
    assert len(rows(page)) == 112
    assert page.execute_script("return document.getElementById('more').hidden")


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("completed", lambda row: row["status"] == "completed"),
        ("-completed -running -unfinished", lambda row: row["status"] in ("stopped", "failed")),
        ("score>0.6", lambda row: row["score"] != "–" and float(row["score"][:5]) > 0.6),
        ("epochs<=9 status=stopped", lambda row: row["status"] == "stopped"),
        ("no such thing", lambda row: False),
    ],
)
def test_a_filter_keeps_what_holds(page: Any, text: str, holds: Any) -> None:
    page.execute_script("document.getElementById('more').click()")
    facts = {name: column(page, name) for name in ("trial", "status", "score", "epochs")}
    every = [dict(zip(facts, values, strict=True)) for values in zip(*facts.values(), strict=True)]
    filtered(page, text)
    assert column(page, "trial") == [row["trial"] for row in every if holds(row)]


def test_a_heading_sorts_both_ways_and_what_is_missing_comes_last(page: Any) -> None:
    filtered(page, "-unfinished")
    assert click(page, "score") == "descending"
    falling = [cell for cell in column(page, "score") if cell != "–"]
    assert falling == sorted(falling, reverse=True)
    assert click(page, "score") == "ascending"
    cells = column(page, "score")
    rising = [cell for cell in cells if cell != "–"]
    assert cells == [*sorted(rising), *["–"] * cells.count("–")]
    assert len(rising) > 5


def test_rows_sort_by_a_setting_as_by_a_number(page: Any) -> None:
    page.execute_script(
        "const by = document.getElementById('by'); by.value = 'setting lr';"
        "by.dispatchEvent(new Event('change'))"
    )
    found = [cell.split("lr ")[1].split()[0] for cell in column(page, "settings that vary")]
    assert [float(value) for value in found] == sorted(float(value) for value in found)


def test_a_confusion_matrix_shows_counts_or_rates(page: Any) -> None:
    text = (
        "const plot = [...document.querySelectorAll('.js-plotly-plot')].find("
        "p => p.data.some(t => t.type === 'heatmap' && t.customdata)); return plot.data[0].text"
    )
    counts = page.execute_script(text)
    page.execute_script(
        text.replace("return plot.data[0].text", "")
        + "Plotly.restyle(plot, ...plot.layout.updatemenus[0].buttons[1].args)"
    )
    rates = page.execute_script(text)
    for own, share in zip(counts, rates, strict=True):
        total = sum(int(cell or 0) for cell in own)
        assert [round(100 * int(cell or 0) / total) for cell in own] == [int(s or 0) for s in share]


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_window(page: Any, width: int) -> None:
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    assert page.execute_script("return innerWidth") == width
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_every_figure_is_drawn_and_nothing_is_asked_of_the_network(page: Any) -> None:
    import json

    figures = page.execute_script(
        "return [...document.querySelectorAll('.plotly-graph-div')].map(p => !!p._fullLayout)"
    )
    assert len(figures) > 12
    assert all(figures)
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [
        m["params"]["request"]["url"]
        for m in messages
        if m["method"] == "Network.requestWillBeSent"
    ]
    assert asked  # the page itself
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
    assert [e for e in page.get_log("browser") if e["level"] == "SEVERE"] == []


def test_it_prints(page: Any, tmp_path: Path) -> None:
    import base64

    made = page.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    data = base64.b64decode(made["data"])
    assert data.startswith(b"%PDF")
    assert 3 < data.count(b"/Type /Page\n") + data.count(b"/Type /Page/") < 60
