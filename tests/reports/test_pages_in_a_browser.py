"""Every other page in a real browser: nothing cut at any width or on paper, what axe looks for, no errors."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import run_command
from logged_runs import make_lines, write_run

from lm_eval_calibration.reports.drift.history import Entry
from lm_eval_calibration.reports.drift.picture import write_picture

pytest.importorskip("playwright.sync_api", reason="needs playwright (extra `test`)")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe (extra `test`)")

pytestmark = pytest.mark.slow

TASKS = ("mmlu_high_school_government_and_politics_calibration", "medqa_4options_calibration")
PAGES = ("compare", "report", "evidence", "history")

CUT = """() => [...document.querySelectorAll("svg text")].filter(text => {
  const box = text.getBoundingClientRect(), picture = text.ownerSVGElement.getBoundingClientRect();
  return box.width && (box.left < picture.left - 1 || box.right > picture.right + 1 || box.bottom > picture.bottom + 1);
}).map(text => text.textContent)"""
HIDDEN = """() => [...document.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth + 1)
  .map(e => e.getAttribute("aria-label"))"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pages")
    runs = [
        write_run(
            made / str(i), {t: make_lines(t, n=60) for t in TASKS}, model=f"org/a-model-of-a-long-name-{i}-instruct"
        )
        for i in range(3)
    ]
    run_command("compare", *runs, "--output", made / "compare.html")
    run_command("report", *runs, "--output", made / "report.html")
    run_command("evidence", runs[0], "--output", made / "evidence")
    values = {scope: {name: [0.5, 0.45, 0.56] for name in ("acc", "ece", "auroc")} for scope in ("all", *TASKS)}
    first = Entry("r0", "2025-01-07T10:00:00", "org/model", 10, values, dict.fromkeys(values, 60), revision="5f" * 20)
    later = [
        replace(
            first,
            run=f"r{month}",
            date=f"2025-{month:02}-07T10:00:00",
            base="r0",
            verdict="drifted",
            drifted=(f"{TASKS[0]} ece",),
            tolerances={"ece": 0.02},
            newly_wrong=((TASKS[0], 3, 0.4, 0.9),),
            n_newly_wrong=1,
        )
        for month in range(2, 12)
    ]
    write_picture(made / "history.html", [first, *later])
    return made


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1024, 1600])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_sound(browser: Any, folder: Path, name: str, width: int, scheme: str) -> None:
    page, said = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((folder / f"{name}.html").as_uri())
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CUT) == []
    assert page.evaluate(HIDDEN) == []
    found = axe.Axe().run(page)
    assert [(v["id"], v["nodes"][0]["html"]) for v in found.response["violations"]] == []
    page.close()
    assert said == []


@pytest.mark.parametrize("name", PAGES)
def test_paper_loses_no_column(browser: Any, folder: Path, name: str) -> None:
    page = browser.new_page(viewport={"width": 718, "height": 1000})  # A4 less its margins
    page.goto((folder / f"{name}.html").as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    assert page.evaluate(HIDDEN) == []
    page.close()


def test_models_are_searched_and_sorted(browser: Any, folder: Path) -> None:
    runs = [
        write_run(folder / f"many{i}", {TASKS[1]: make_lines(TASKS[1], n=20, seed=i)}, model=f"org/model-{i:02}")
        for i in range(9)
    ]
    run_command("compare", *runs, "--metrics", "acc,ece", "--output", folder / "many.html")
    page = browser.new_page()
    page.goto((folder / "many.html").as_uri())
    page.fill("#find", "model 07")
    assert page.inner_text("#found") == "1 of 9 models"
    assert page.locator("table.models tbody tr:visible").count() == 1
    assert page.locator("g.dim").count() == 8
    page.fill("#find", "")
    page.click("table.models thead th:nth-child(3) button")
    cells = page.eval_on_selector_all(
        "table.models tbody tr", "rows => rows.map(row => Number(row.cells[2].dataset.value))"
    )
    assert cells == sorted(cells)
    assert page.get_attribute("table.models thead th:nth-child(3)", "aria-sort") == "ascending"
    page.close()
