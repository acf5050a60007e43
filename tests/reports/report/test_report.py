"""The report of a run: its figures are the metrics', its words say what the figures do, texts stay texts."""

import json
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run_command
from logged_runs import TIME, make_generated_lines, make_lines, write_run

from lm_eval_calibration import load_run, metrics
from lm_eval_calibration.plots import VocabularyCounter, prepare_reliability, prepare_risk_coverage
from lm_eval_calibration.reports.names import EVERYTHING
from lm_eval_calibration.reports.report.content import Report, domains_of, make_report
from lm_eval_calibration.reports.report.formats import FORMATS
from lm_eval_calibration.reports.report.verdicts import answers
from lm_eval_calibration.reports.sentences import how_well_apart
from lm_eval_calibration.results import Measured

pytest.importorskip("jinja2", reason="reports need jinja2 (extra `report`)")
pytest.importorskip("matplotlib", reason="pictures need matplotlib (extra `report`)")

ATTACK = "<script>alert(1)</script>"
GROUPS = {"mmlu_calibration": ["mmlu_law_calibration", "mmlu_art_calibration"]}


def write(folder: Path, text: str = ATTACK, **options: Any) -> Path:
    tasks = {name: make_lines(name, n=120, text=text) for name in ("mmlu_law_calibration", "mmlu_art_calibration")}
    return write_run(folder, tasks | {"arc_easy": make_lines("arc_easy", n=60, text=text)}, groups=GROUPS, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("run"), model=f"org/{ATTACK.replace('/', '')}")


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    return make_report(load_run(folder))


def report_of(*arguments: object) -> Any:
    return run_command("report", *arguments)


def change_of(after: Any, name: str) -> Any:
    return next(change for change in after.changes if change.name == name)


def test_bars_add_up_to_the_reported_error(report: Report) -> None:
    assert [domain.name for domain in report.domains] == [EVERYTHING, "mmlu_calibration", "arc_easy"]
    for domain in report.domains:
        assert domain.reliability.ece == pytest.approx(domain.metrics["ece"].value, abs=1e-12)
        after = domain.recalibrated
        assert after.reliability.ece == pytest.approx(change_of(after, "ece").after, abs=1e-12)
        assert domain.risk_coverage[-1].risk == pytest.approx(1 - domain.metrics["acc"].value, abs=1e-12)
    assert report.vocabulary.full_ece == pytest.approx(report.domains[0].metrics["full_ece"].value, abs=1e-12)
    assert report.domains[0].n_docs == 300


@pytest.mark.parametrize("n_bins", [1, 7, 10, 15, 100])
def test_bars_add_up_for_any_number_of_bins(n_bins: int) -> None:
    rng = np.random.default_rng(n_bins)
    confidence = np.r_[rng.uniform(0, 1, 500), 0.0, 1.0, 0.3, 0.7]
    correct = (rng.random(len(confidence)) < confidence**2).astype(int)
    data = prepare_reliability(confidence, correct, n_bins=n_bins)
    assert len(data.bins) == n_bins
    assert sum(b.n_docs for b in data.bins) == data.n_docs == 504
    assert data.ece == pytest.approx(metrics.ece(confidence, correct, n_bins=n_bins), abs=1e-12)


def test_the_band_holds_what_a_calibrated_model_shows() -> None:
    rng = np.random.default_rng(0)
    inside = total = 0
    for _ in range(60):
        confidence = rng.uniform(0.3, 1, 400)
        data = prepare_reliability(confidence, (rng.random(400) < confidence).astype(int))
        inside += sum(not b.is_off for b in data.bins if b.n_docs)
        total += sum(b.n_docs > 0 for b in data.bins)
    assert 0.93 < inside / total < 0.99
    over = prepare_reliability([0.95] * 100, [1] * 50 + [0] * 50).bins[9]
    assert over.is_off
    assert over.gap == pytest.approx(-0.45)


def test_an_empty_bin_shows_nothing() -> None:
    empty = prepare_reliability([0.95], [1]).bins[0]
    assert (empty.n_docs, empty.gap, empty.is_off) == (0, 0.0, False)
    assert math.isnan(empty.accuracy)


def test_the_curve_has_the_ends_and_at_most_200_points() -> None:
    rng = np.random.default_rng(0)
    confidence, correct = rng.random(5000), rng.integers(0, 2, 5000)
    points = prepare_risk_coverage(confidence, correct)
    assert len(points) == 200
    assert points[-1].coverage == 1
    assert points[-1].risk == pytest.approx(1 - correct.mean())
    assert points[0].threshold == confidence.max()
    assert prepare_risk_coverage([0.5], [0]) == ((1.0, 1.0, 0.5),)


def test_bins_of_the_vocabulary_are_those_of_whole_distributions() -> None:
    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.full(50, 0.05), 300)
    targets = np.array([rng.choice(50, p=row) for row in probs])
    counter = VocabularyCounter(10)
    for row, target in zip(probs, targets, strict=True):
        counter.add([math.log(row[target])] if row[target] else [-math.inf], row[row >= 0.05])
    data = counter.result()
    assert data.n_positions == 300
    index = metrics.bin_index(probs.ravel(), 10)
    mass = np.bincount(index, weights=probs.ravel(), minlength=10)
    hits = np.bincount(metrics.bin_index(probs[np.arange(300), targets], 10), minlength=10)
    np.testing.assert_allclose([b.mass for b in data.bins], mass, atol=1e-9)
    assert [b.hits for b in data.bins] == hits.tolist()
    assert data.full_ece == pytest.approx(metrics.full_ece(probs, targets), abs=1e-12)


def test_a_run_without_groups_has_its_tasks_as_domains(tmp_path: Path) -> None:
    lines = make_lines("law", n=30)
    one = load_run(write_run(tmp_path / "one", {"law": lines}))
    assert domains_of(one) == {"law": ("law",)}
    many = {f"t{i:02}": make_lines(f"t{i:02}", n=2) for i in range(13)}
    assert list(domains_of(load_run(write_run(tmp_path / "many", many)))) == [EVERYTHING]
    nested = {"all": ["a", "b"], "a": ["t00", "t01"], "b": ["t02"], "inner": ["t00"]}
    few = {name: lines for name, lines in many.items() if name < "t04"}
    run = load_run(write_run(tmp_path / "nested", few, groups={**nested, "a": ["t00", "t01", "inner"]}))
    assert list(domains_of(run)) == [EVERYTHING, "all", "t03"]


def measured(value: float, low: float, high: float, n_docs: int = 100, reason: str | None = None) -> Measured:
    return Measured(value, math.nan, low, high, n_docs, reason)


def said(sure: int = 0, chance: float = 0.0, **changed: Measured) -> dict[str, Any]:
    nan = math.nan
    found = {
        "acc": measured(0.6, 0.5, 0.7),
        "overconfidence": measured(0.2, 0.1, 0.3),
        "auroc": measured(0.75, 0.7, 0.8),
        "confident_error_rate": measured(nan, nan, nan, reason="none"),
    } | changed
    null = metrics.Null(0.2, 0.05, 0.09, 0.001)
    correct = np.arange(100) < 60
    confidence = np.where(np.arange(100) < sure, 0.95, 0.8 - 0.15 * sure / max(1, 100 - sure))
    rows = answers(found, {"ece": null, "overconfidence": null}, confidence, correct, None, chance=np.full(100, chance))
    return {row.question: row for row in rows}


def test_words_follow_the_figures() -> None:
    sure = said()["Is it right as often as it says?"]
    assert (sure.short, sure.tone) == ("Overconfident by 20 points", "bad")
    assert "says 80% on average and is right 60% of the time [50%, 69%]" in sure.figures
    assert "+20.0 points [+10.0, +30.0]" in sure.figures
    under = said(overconfidence=measured(-0.052, -0.1, -0.01))["Is it right as often as it says?"]
    assert under.short == "Underconfident by 5.2 points"
    assert metrics.tendency((0.01, 0.1), metrics.Null(0.05, 0, 0.06, 0.3)) == ""  # the null is not rejected
    unclear = said(overconfidence=measured(0.05, -0.01, 0.1))["Is it right as often as it says?"]
    assert (unclear.short, unclear.tone) == ("No clear difference on average", "")
    wrong = "How often is it wrong when it is at least 90% sure?"
    assert said()[wrong].short == "It is never that sure"
    assert said(confident_error_rate=measured(0.2, 0.15, 0.3))[wrong].tone == "bad"
    assert said(confident_error_rate=measured(0.02, 0.01, 0.05))[wrong].tone == "good"
    unclear = said(sure=40, confident_error_rate=measured(0.1, 0.05, 0.2))[wrong]
    assert unclear.short == "10% of the time: too few to tell"
    few = said(sure=1, confident_error_rate=measured(1.0, 0.05, 1.0))[wrong]
    assert (few.short, few.tone) == ("1 of 1 answers: too few to tell", "")
    apart = "Can it tell its right answers from its wrong ones?"
    reversed_ = said(auroc=measured(0.28, 0.18, 0.4))[apart]
    assert (reversed_.short, reversed_.tone) == ("The wrong way round: it is surer of its wrong answers", "bad")
    assert said(auroc=measured(0.48, 0.4, 0.56))[apart].short.startswith("No evidence that it tells")
    guessing = "Is it right more often than by guessing?"
    assert guessing not in said()
    shorts = [said(chance=chance)[guessing].short for chance in (0.25, 0.6, 0.9)]
    assert shorts == ["Yes", "No clear difference from guessing", "No, less often"]
    assert said()["Would it be better after recalibration?"].short == "Not tried"
    assert said()["Are there enough questions to measure its calibration?"].short == "Yes"
    apart = "Can it tell its right answers from its wrong ones?"
    nan = math.nan
    assert said(auroc=measured(nan, nan, nan, reason="every doc is correct"))[apart].figures == "every doc is correct."
    words = [how_well_apart(value, 0.51) for value in (0.95, 0.85, 0.75, 0.65, 0.55)]
    assert [text.removeprefix("tells them apart ") for text in words[:4]] == [
        "very well",
        "well",
        "fairly well",
        "only weakly",
    ]
    assert words[4] == "hardly tells them apart"
    assert how_well_apart(0.7, 0.5) == "no evidence that it tells right answers from wrong ones"


@pytest.mark.parametrize(
    ("p_value", "mean", "short"), [(0.3, 0.15, "No: its"), (0.01, 0.15, "Enough to see that it is miscal")]
)
def test_too_few_docs_are_said_to_be_too_few(p_value: float, mean: float, short: str) -> None:
    null = metrics.Null(0.2, mean, 0.3, p_value)
    found = {name: measured(0.5, 0.4, 0.6) for name in ("acc", "overconfidence", "auroc", "confident_error_rate")}
    found["overconfidence"] = measured(0.0, -0.1, 0.1)
    nulls = {"ece": null, "overconfidence": None}
    assert answers(found, nulls, np.full(9, 0.8), np.ones(9), None)[-1].short.startswith(short)
    found["overconfidence"] = measured(0.5, 0.4, 0.6)  # shown to be off, whatever the p of the binned error
    assert not answers(found, nulls, np.full(9, 0.8), np.ones(9), None)[-1].short.startswith("No")


def test_recalibration_is_judged_on_other_docs(report: Report) -> None:
    again = report.domains[0].recalibrated
    assert again.temperature == pytest.approx(2, rel=0.3)
    assert change_of(again, "acc").change == 0
    row = report.domains[0].answers[4]
    assert (row.question, row.short) == ("Would it be better after recalibration?", "Yes")


def test_examples_are_the_surest_wrong_answers(report: Report, folder: Path) -> None:
    frame = load_run(folder).to_frame()
    wrong = frame[frame["correct"] == 0].sort_values("confidence", ascending=False)
    assert [e.confidence for e in report.examples] == wrong["confidence"].tolist()[:10]
    assert {e.doc_hash for e in report.examples} == set(wrong["doc_hash"].tolist()[:10])
    assert report.examples[0].prompt.startswith(ATTACK)
    assert {report.examples[0].answer, report.examples[0].right} < set("ABCD")


def test_texts_stay_texts(report: Report) -> None:
    for form, write_as in FORMATS.items():
        content = write_as(report)
        content = content.encode() if isinstance(content, str) else content
        assert content
        if form != "json":  # which is no page
            assert b"<script" not in content
        if form in ("html", "svg"):
            assert b"&lt;script&gt;alert(1)" in content


def test_the_page_is_whole_by_itself(report: Report) -> None:
    page = str(FORMATS["html"](report))
    assert not re.search(r"""(src|href)=["'](?!#|data:,)""", page)
    assert "url(" not in page
    assert "@import" not in page
    for picture in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        root = ET.fromstring(picture)
        assert root.find("title").text
        assert root.find("desc").text
    targets = set(re.findall(r'href="#([\w-]+)"', page))
    assert targets <= set(re.findall(r'id="([\w-]+)"', page))
    identifiers = re.findall(r' id="([\w-]+)"', page)
    assert len(identifiers) == len(set(identifiers))


def test_json_holds_what_the_report_shows(folder: Path, report: Report, tmp_path: Path) -> None:
    done = report_of(folder, "--output", tmp_path / "report.txt", "--format", "json")
    assert done.exit_code == 0, done.output
    assert [path.name for path in tmp_path.iterdir()] == ["report.txt"]
    data = json.loads((tmp_path / "report.txt").read_text(encoding="utf-8"))
    assert data["model"] == report.model
    for found, domain in zip(data["domains"], report.domains, strict=True):
        assert found["metrics"]["ece"]["value"] == domain.metrics["ece"].value
        assert [b["n_docs"] for b in found["reliability"]] == [b.n_docs for b in domain.reliability.bins]
    assert set(data["tasks"]) == set(report.tasks)


@pytest.mark.slow
def test_redacted_reports_hold_no_word_of_a_doc(tmp_path: Path) -> None:
    words = ["zugzwang", "quokka", "xylophone", "bivouac"]
    folder = write_run(tmp_path / "run", {"law": make_lines("law", n=20, text=" ".join(words))})
    redacted = make_report(load_run(folder), redact=True)
    for form, write_as in FORMATS.items():
        content = write_as(redacted)
        content = content.encode() if isinstance(content, str) else content
        assert not [word for word in words if word.encode() in content], form
    for options, text in ((["--redact"], "Texts are left out of this report."), ([], words[0])):
        assert report_of(folder, "--output", tmp_path / "r.html", *options).exit_code == 0
        assert text in (tmp_path / "r.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_small_and_odd_runs_have_a_report(tmp_path: Path) -> None:
    right = make_lines("law", n=25)
    for line in right:
        record = line["calibration"]
        record["gold"] = int(np.argmax(record["log_likelihoods"]))
        del record["log_probs"], record["large_probs"]
    for name, lines in {"one": make_lines("law", n=1), "right": right}.items():
        report = make_report(load_run(write_run(tmp_path / name, {"law": lines})))
        pages = {form: write_as(report) for form, write_as in FORMATS.items()}
        assert all(pages.values())
        assert not re.search(r"\bnan\b", str(pages["html"]))
    assert "There are no wrong answers." in str(pages["html"])
    assert "every doc is correct" in str(pages["html"])


def test_nothing_is_written_where_something_is_wrong(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    broken = write_run(tmp_path / "broken", {"law": make_lines("law", n=5)})
    samples = broken / "org__model" / f"samples_law_{TIME}.jsonl"
    samples.write_text(samples.read_text(encoding="utf-8")[:-9], encoding="utf-8")
    for arguments, message in (
        ((broken, "--output", output), f"samples_law_{TIME}.jsonl, line 5: not JSON, cut short"),
        ((tmp_path / "none", "--output", output), "does not exist"),
        (
            (folder, "--output", tmp_path / "report.docx"),
            "no format is known by its suffix; there are html, md, json, svg, png, pdf",
        ),
        (
            (folder, "--output", output, "--format", "docx"),
            "error: no format 'docx'; there are html, md, json, svg, png, pdf",
        ),
    ):
        done = report_of(*arguments)
        assert done.exit_code == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*report*"))


def test_tasks_without_answers_are_left_out_and_named(tmp_path: Path) -> None:
    broken = make_lines("broken", n=5)
    for line in broken:
        line["calibration"]["gold"] = None
    folder = write_run(tmp_path / "run", {"broken": broken, "law": make_lines("law", n=5)})
    found = make_report(load_run(folder))
    assert [domain.name for domain in found.domains] == ["law"]
    assert found.left_out["broken"].startswith("no answers that could be right or wrong")
    done = report_of(write_run(tmp_path / "only", {"broken": broken}), "--output", tmp_path / "report.html")
    assert done.exit_code == 2
    assert "broken: no answers that could be right or wrong" in done.stderr


def test_a_model_below_chance_is_recalibrated_to_saying_so(tmp_path: Path) -> None:
    lines = make_lines("law", n=80)
    for line in lines:
        record = line["calibration"]
        record["gold"] = int(np.argmin(record["log_likelihoods"]))
    found = make_report(load_run(write_run(tmp_path, {"law": lines}, model="/models/mine")))
    again = found.domains[0].recalibrated
    assert again.temperature == pytest.approx(100)
    assert again.notes == ("the best temperature is above 100: the flatter, the likelier the gold choices",)
    assert change_of(again, "ece").verdict == "better"
    page = FORMATS["html"](found)
    assert "Note: the best temperature is above 100" in page
    assert "Can the confidence of mine be trusted?" in page


def test_tokens_at_other_temperatures_are_shown_where_the_run_has_them(tmp_path: Path) -> None:
    lines, grid = make_lines("arc_easy", n=60), [0.5, 1.0, 2.0]
    for line in lines:
        record = line["calibration"]
        # The larger T, the likelier the gold tokens here, and the later choices the more so.
        at = [[ll / t + k * t - 10 for t in grid] for k, ll in enumerate(record["log_likelihoods"])]
        gaps = [[-t / 10] + [0.0] * 8 + [t / 10] for t in grid]
        record["temperatures"] = {"grid": grid, "log_likelihoods": at, "n_bins": 10, "gap_sums": gaps}
    report = make_report(load_run(write_run(tmp_path / "run", {"arc_easy": lines})))
    records = [line["calibration"] for line in lines]
    n_positions = sum(len(record["log_probs"]) for record in records)
    assert [row.temperature for row in report.temperatures] == grid
    for g, row in enumerate(report.temperatures):
        of_gold = [record["temperatures"]["log_likelihoods"][record["gold"]][g] for record in records]
        chosen = [np.argmax([choice[g] for choice in r["temperatures"]["log_likelihoods"]]) for r in records]
        assert row.nll == pytest.approx(-sum(of_gold) / n_positions, abs=1e-12)
        assert row.full_ece == pytest.approx(2 * len(records) * grid[g] / 10 / n_positions, abs=1e-12)
        assert row.acc == pytest.approx(np.mean([c == r["gold"] for c, r in zip(chosen, records, strict=True)]))
    assert report_of(tmp_path / "run", "--output", tmp_path / "report.html").exit_code == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count('<strong class="good">best</strong>') == 1
    assert "Tokens at other temperatures" in page


def test_a_run_without_a_grid_shows_no_temperatures(report: Report) -> None:
    assert report.temperatures == ()


def test_the_difference_is_of_the_numbers_beside_it(tmp_path: Path) -> None:
    """Wrong answers without a confidence are in none of them."""
    run = load_run(write_run(tmp_path, {"gsm8k_calibration": make_generated_lines("gsm8k_calibration", empty=60)}))
    figures = make_report(run).domains[0].answers[0].figures
    found = re.search(r"says (\d+)% .* right (\d+)% .* is ([-+\d.]+) points", figures)
    assert found is not None
    says, right, difference = map(float, found.groups())
    assert difference == pytest.approx(says - right, abs=1)  # percentages are rounded


def test_generated_answers_are_recalibrated_by_platt_scaling(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, {"gsm8k_calibration": make_generated_lines("gsm8k_calibration", empty=3)}))
    report = make_report(run)
    after = report.domains[0].recalibrated
    assert after.method == "platt"
    assert after.reliability.n_docs == 117
    assert after.reliability.ece == pytest.approx(change_of(after, "ece").after, abs=1e-12)
    assert change_of(after, "ece").verdict == change_of(after, "brier_top_label").verdict == "better"
    assert "Platt scaling, evaluated on docs it was not fitted on" in report.domains[0].answers[3].figures
    page, data = FORMATS["html"](report), json.loads(FORMATS["json"](report))
    assert "Platt scaling maps the confidence" in page
    for form in ("html", "md"):
        assert "3 questions are left out below" in FORMATS[form](report)
    assert "One temperature" not in page
    assert data["domains"][0]["recalibrated"]["temperature"] is None


def test_choices_and_generated_answers_together_are_not_recalibrated(tmp_path: Path) -> None:
    tasks = {
        "gsm8k_calibration": make_generated_lines("gsm8k_calibration"),
        "arc_calibration": make_lines("arc_calibration", n=80),
    }
    report = make_report(load_run(write_run(tmp_path, tasks)))
    assert [domain.recalibrated and domain.recalibrated.method for domain in report.domains] == [
        None,
        "temperature",
        "platt",
    ]
    assert report.domains[0].answers[3].short == "Not tried"


def test_a_task_of_empty_answers_is_left_out_and_named(tmp_path: Path) -> None:
    empty = {"gsm8k_calibration": make_generated_lines("gsm8k_calibration", n=30, empty=30)}
    result = report_of(write_run(tmp_path / "empty", empty), "--output", tmp_path / "report.html")
    assert result.exit_code == 2
    assert "gsm8k_calibration: every answer is empty" in result.stderr
    assert not (tmp_path / "report.html").exists()
    both = empty | {"arc_calibration": make_lines("arc_calibration")}
    report = make_report(load_run(write_run(tmp_path / "both", both)))
    assert report.domains[0].tasks == ("arc_calibration",)
    assert "every answer is empty" in report.left_out["gsm8k_calibration"]
