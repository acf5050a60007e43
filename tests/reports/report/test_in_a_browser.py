"""The page in a real browser: no errors, nothing cut, what axe looks for, and all that can be clicked and typed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import run_command
from logged_runs import make_generated_lines, make_lines, write_run

pytest.importorskip("jinja2", reason="reports need jinja2 (extra `report`)")
pytest.importorskip("playwright.sync_api", reason="needs playwright (extra `test`)")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe (extra `test`)")

pytestmark = pytest.mark.slow

ATTACK = "<script>document.title = 'attacked'</script>"
NAMES = ("mmlu_high_school_government_and_politics_calibration", "mmlu_law_calibration")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, {name: make_lines(name, n=60, text=ATTACK) for name in NAMES})
    run_command("report", folder, "--output", folder / "report.html")
    return folder / "report.html"


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    yield from opened(browser, page_file)


def opened(browser: Any, file: Path, fragment: str = "", **options: Any) -> Iterator[Any]:
    """The page once its script is ready; at the end nothing may have stood on the console."""
    context = browser.new_context(**options)
    found, said = context.new_page(), []
    found.on("console", lambda message: said.append(message.text))
    found.on("pageerror", lambda error: said.append(str(error)))
    found.goto(file.as_uri() + fragment)
    if options.get("java_script_enabled", True):
        found.wait_for_selector("html[data-explorer=ready]", timeout=30_000)
    yield found
    context.close()
    assert said == []


def count_of(page: Any) -> str:
    return str(page.inner_text("#explorer-count"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1024, 1600])
def test_the_page_is_sound(browser: Any, page_file: Path, scheme: str, width: int) -> None:
    size = {"width": width, "height": 900}
    for page in opened(browser, page_file, viewport=size, color_scheme=scheme):
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        cut = page.evaluate(
            """() => [...document.querySelectorAll("svg text")].filter(text => {
              const box = text.getBoundingClientRect(), picture = text.ownerSVGElement.getBoundingClientRect();
              return box.left < picture.left - 1 || box.right > picture.right + 1 || box.bottom > picture.bottom + 1;
            }).map(text => text.textContent)"""
        )
        assert cut == []
        found = axe.Axe().run(page)
        assert [(v["id"], v["nodes"][0]["html"]) for v in found.response["violations"]] == []
        assert len(found.response["passes"]) > 20


def test_without_a_script_the_page_is_whole_but_for_the_questions(browser: Any, page_file: Path) -> None:
    for page in opened(browser, page_file, java_script_enabled=False):
        assert page.is_visible("h1")
        assert not page.is_visible("#explorer")
        assert page.locator("#reliability ~ .pair svg").first.get_attribute("role") == "img"


def test_a_bar_leads_to_its_questions(page: Any) -> None:
    bar = page.locator("#reliability ~ .pair svg").first.locator(".hit").last
    said = bar.locator("title").text_content()
    bar.hover()
    assert page.locator("#reliability ~ .pair .readout").first.inner_text() == said
    bar.click()
    n_docs = said.split(": ")[1].split(" ")[0]
    assert count_of(page).startswith(f"{n_docs} of 120 questions")
    assert page.evaluate("document.activeElement.id") == "explorer-list"
    assert "from=0.9" in page.url


def test_keys_alone_reach_everything(page: Any) -> None:
    bar = page.locator("#reliability ~ .pair svg").first.locator(".hit").last
    bar.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("End")
    last = page.locator("#explorer-list [aria-selected=true]")
    assert last.get_attribute("aria-posinset") == last.get_attribute("aria-setsize")
    page.keyboard.press("Home")
    assert page.locator("#explorer-list [aria-selected=true]").get_attribute("aria-posinset") == "1"
    curve = page.locator("[data-points]").first
    curve.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    assert float(curve.get_attribute("aria-valuenow")) < 100
    page.keyboard.press("Enter")
    assert page.locator("#explorer [name=outcome]").input_value() == "wrong"


def test_a_task_of_the_forest_leads_to_its_questions(page: Any) -> None:
    page.locator(f".hit[data-scope={NAMES[1]}]").click()
    assert count_of(page).startswith("60 of 120 questions")


def test_filters_and_the_address_say_the_same(browser: Any, page: Any, page_file: Path) -> None:
    page.select_option("#explorer [name=outcome]", "wrong")
    page.fill("#explorer [name=from]", "60")
    page.fill("#explorer [name=text]", " 7")
    page.select_option("#explorer [name=sort]", "up")
    page.locator("#explorer-list .row").last.click()
    wanted, shown = count_of(page), page.inner_text("#explorer-doc")
    fragment = "#" + page.url.split("#")[1]
    for again in opened(browser, page_file, fragment):
        assert count_of(again) == wanted
        assert again.inner_text("#explorer-doc") == shown
        again.click("#explorer button[type=reset]")
        assert count_of(again).startswith("120 of 120")


def test_texts_stay_texts(page: Any) -> None:
    page.fill("#explorer [name=text]", "<script>")
    assert count_of(page).startswith("120 of 120")
    assert "<script>" in page.inner_text("#explorer-doc pre")
    assert page.title() != "attacked"
    page.fill("#explorer [name=text]", "nothing has this")
    assert count_of(page) == "0 of 120 questions."
    assert not page.is_visible("#explorer-doc")


def test_the_slider_says_what_the_run_says(page: Any, page_file: Path) -> None:
    from lm_eval_calibration import load_run

    confidence, correct = load_run(page_file.parent).arrays("top_label")
    page.locator("#alone-from").fill("0.7")
    answered = confidence >= 0.7
    n, wrong = int(answered.sum()), int((answered & (correct == 0)).sum())
    said = page.inner_text("#alone-said")
    assert f"({n} of 120)" in said
    assert f"{100 * wrong / n:.1f}% of these answers are wrong ({wrong})" in said


def test_written_answers_show_their_tokens(browser: Any, tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"g_calibration": make_generated_lines("g_calibration", n=120, empty=3)})
    run_command("report", folder, "--output", tmp_path / "page.html")
    for page in opened(browser, tmp_path / "page.html"):
        assert page.locator("#explorer-doc .tokens i").count() == 5
        page.select_option("#explorer [name=outcome]", "none")
        assert count_of(page) == "3 of 120 questions."
        page.select_option("#explorer [name=outcome]", "empty")
        assert count_of(page) == "3 of 120 questions."
        assert "it has no confidence: empty." in page.inner_text("#explorer-doc")


def test_a_redacted_page_holds_no_text(browser: Any, page_file: Path, tmp_path: Path) -> None:
    run_command("report", page_file.parent, "--output", tmp_path / "page.html", "--redact")
    for page in opened(browser, tmp_path / "page.html"):
        assert page.locator("#explorer [name=text]").count() == 0
        assert page.locator("#explorer-doc pre").count() == 0
        assert count_of(page).startswith("120 of 120")


def test_paper_shows_every_table_whole(browser: Any, page_file: Path) -> None:
    for page in opened(browser, page_file, viewport={"width": 794, "height": 1123}):
        page.emulate_media(media="print")
        too_wide = (
            "() => [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
        )
        assert page.evaluate(too_wide) == 0
        assert not page.is_visible("#explorer")
