"""``lm-eval-calibration decide``: decide on some docs of RESULTS, or check a decision on others."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from lm_eval_calibration.decisions import Costs, Decision, SavedDecision, Wanted, check
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.plots.drawing import draw_decision
from lm_eval_calibration.plots.style import Form
from lm_eval_calibration.records.files import write_whole
from lm_eval_calibration.reports.decide.formats import CHECKS, TEXTS, summary
from lm_eval_calibration.reports.decide.sentences import percent_of
from lm_eval_calibration.reports.formats import choose_format, print_or_write
from lm_eval_calibration.reports.runs import print_notes
from lm_eval_calibration.results import Run, Selection, load_run

EXIT_CODES = {"holds": 0, "broken": 1, "other docs": 1, "nothing promised": 0}
"""Exit codes of a check, as those of ``drift``; 2 for another model or task."""


def decide(
    results: Sequence[Path],
    select: Selection,
    *,
    error_rate: float,
    confidence_level: float,
    costs: tuple[float | None, float | None],
    by: str | None,
    cluster: str | None,
    fit_on: str | None,
    groups: str | None,
    output: Path | None,
    form: str,
    picture: Path | None,
) -> None:
    """Print the decision, and write its file and its picture; arguments are the command's."""
    choose_format(form, None, TEXTS)
    if picture is not None and picture.suffix not in (".svg", ".png", ".pdf"):
        raise UserError(f"{picture}: a picture is a file .svg, .png or .pdf")
    try:
        wanted = Wanted(error_rate, confidence_level, _costs(*costs)).check()  # before the run is read
        run = _load(results, cluster, select)
        decision = run.decide(wanted=wanted, by=by, fit_on=fit_on, groups=groups)
    except ValueError as error:
        raise UserError(str(error)) from error
    if output is not None:
        SavedDecision.of(decision, run.configuration.model, run.tasks).write(output)
    if picture is not None:
        draw(picture, decision)
    print_or_write(TEXTS[form](decision), None, "")


def apply(path: Path, results: Sequence[Path], select: Selection, *, cluster: str | None, form: str) -> int:
    """Print whether a decision holds on the docs of a run, and return the exit code."""
    choose_format(form, None, CHECKS)
    saved = SavedDecision.read(path)
    run = _load(results, cluster, select)
    try:
        missing = saved.check_made_for(run.configuration.model, run.tasks)
        checked = replace(check(saved, run.recalibration_docs(by=saved.by), run.candidates()), missing_tasks=missing)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    print_or_write(CHECKS[form](checked), None, summary(checked))
    return EXIT_CODES[checked.verdict]


def draw(path: Path, decision: Decision) -> None:
    """Write the picture: the share answered by the error rate that is allowed."""
    wanted = decision.wanted
    title = f"At most {percent_of(wanted.error_rate)} wrong (confidence level {percent_of(wanted.confidence_level)})"
    form = cast(Form, path.suffix.removeprefix("."))
    write_whole(path, draw_decision(decision.curve, wanted.error_rate, title, form))


def _load(results: Sequence[Path], cluster: str | None, select: Selection) -> Run:
    run = load_run(*results, cluster=cluster, select=select)
    print_notes(run)
    return run


def _costs(wrong: float | None, abstain: float | None) -> Costs | None:
    if (wrong is None) != (abstain is None):
        raise UserError("--cost_wrong and --cost_abstain belong together: give both")
    return None if wrong is None or abstain is None else Costs(wrong, abstain)
