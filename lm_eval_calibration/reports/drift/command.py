"""``lm-eval-calibration drift``: the new run against the base run."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records.display import counted
from lm_eval_calibration.reports.changed_docs import ChangedDocs, changed_docs
from lm_eval_calibration.reports.drift.comparability import docs_apart, docs_changed, settings_apart
from lm_eval_calibration.reports.drift.formats import FORMATS
from lm_eval_calibration.reports.drift.gate import TOLERANCE, gate
from lm_eval_calibration.reports.drift.history import Entry, append, read_history
from lm_eval_calibration.reports.drift.picture import write_picture
from lm_eval_calibration.reports.drift.result import EXIT_CODES, Result
from lm_eval_calibration.reports.formats import choose_format, echo_next, print_or_write
from lm_eval_calibration.reports.names import shown
from lm_eval_calibration.reports.numbers import finite
from lm_eval_calibration.reports.runs import has_distributions, label_of, print_notes
from lm_eval_calibration.results import Run, RunComparison, Selection, compare_runs, load_run
from lm_eval_calibration.results.columns import check_metric, columns, parse_metrics
from lm_eval_calibration.results.differences import POOLED
from lm_eval_calibration.results.identity import are_same_files, date_of, fingerprint, labels, unchanged

WORST = 10
"""Newly wrong docs that a line of the history names."""


def drift(
    base: Path,
    new: Path,
    *,
    metrics: str | None,
    tolerance: Sequence[str],
    n_bins: int | None,
    cluster: str | None,
    select: Selection,
    form: str,
    output: Path | None,
    history: Path | None,
    picture: Path | None,
    fail_on_unclear: bool,
    same_docs: bool,
) -> int:
    """Print or write what the gate says, append to the history, return the exit code. Arguments: the command's."""
    choose_format(form, None, FORMATS)
    if picture is not None and history is None:
        raise UserError("--picture shows a history: give --history FILE too")
    tolerances = parse_tolerances(metrics, tolerance)
    if history is not None:
        read_history(history)  # a broken one is refused before any work
    one, other = (load_run(path, n_bins=n_bins, cluster=cluster, select=select, is_strict=True) for path in (base, new))
    print_notes(one, other)
    if are_same_files(one, other):
        raise UserError(f"{base} and {new} are the same files")
    known = fingerprint(one)
    result = run_gate(one, other, tolerances, named=metrics is not None, same_docs=same_docs)
    result = replace(result, fails_on_unclear=fail_on_unclear)
    if known == fingerprint(other):
        result = replace(result, notes=(unchanged("BASE", "NEW"), *result.notes))
    print_or_write(FORMATS[form](result), output, result.summary())
    if output is None and form == "text" and not result.reasons:
        echo_next([f"base={base}", f"new={new}"], "changes.html", "curves on the same axes, docs that changed sides")
    if history is not None and not result.reasons:
        common = [task for task in one.tasks if task in other.tasks]
        changed = changed_docs(one, other, common, redact=True, most=WORST)
        names = list(dict.fromkeys(test.metric for test in result.tests))
        entries = append(history, [_entry(one, names), _entry(other, names, known, result, changed)])
        if picture is not None:
            write_picture(picture, entries)
    return EXIT_CODES[result.verdict]


def parse_tolerances(metrics: str | None, tolerance: Sequence[str]) -> dict[str, float]:
    """Return the tolerance of each metric to test.

    Raises:
        UserError: an unknown metric or no number.
    """
    names = columns("drift") if metrics is None else parse_metrics(metrics)
    for_all, single = TOLERANCE, {}
    for text in tolerance:
        name, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise UserError(f"--tolerance {text}: it is a number of at least 0, as 0.02, or METRIC=NUMBER, as ece=0.02")
        if equals:
            check_metric(name)
            single[name] = value
        else:
            for_all = value
    return dict.fromkeys(names, for_all) | single


def run_gate(base: Run, new: Run, tolerances: dict[str, float], *, named: bool, same_docs: bool) -> Result:
    """Return what the gate says of two runs.

    Args:
        base: the base run.
        new: the new run.
        tolerances: by metric.
        named: whether the metrics were named, so that one that can't be computed is an obstacle.
        same_docs: whether docs that were added, removed or changed are an obstacle.
    """
    label, other = map(label_of, (base.model, new.model), labels([base, new]))
    reasons, notes = settings_apart(base, new), []
    if "full_ece" in tolerances and not named and not has_distributions(base) and not has_distributions(new):
        tolerances = {name: value for name, value in tolerances.items() if name != "full_ece"}
        notes.append("full_ece is not tested: the runs have no token distributions")
    if reasons:
        return Result(label, other, n_bins=new.n_bins, reasons=tuple(reasons), notes=tuple(notes))
    changed = [f"the docs are not the same: {text}" for text in docs_changed(base, new)]
    if same_docs and changed:
        return Result(label, other, n_bins=new.n_bins, reasons=tuple(changed), notes=tuple(notes))
    notes += changed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what is undefined says so in its own row
            comparison = compare_runs(base.records, new.records, names=list(tolerances), n_bins=new.n_bins)
    except ValueError as error:
        raise UserError(str(error)) from error
    notes += _notes(comparison)
    reasons = docs_apart(comparison, tolerances)
    tests = () if reasons else gate(comparison, tolerances)
    return Result(label, other, n_bins=new.n_bins, tests=tests, reasons=tuple(reasons), notes=tuple(notes))


def _notes(comparison: RunComparison) -> list[str]:
    notes = [f"{shown(task)} is in NEW only and not tested" for task in comparison.only_b]
    unknown = "no doc has a sound gold label and a confidence, so nothing is tested"
    notes += [f"{shown(task)}: {unknown}" for task in comparison.left_out]
    for task in comparison.tasks:
        if task.n_clusters is not None:
            notes.append(f"{shown(task.task)}: tested as {counted(task.n_a, task.n_clusters)}")
        if not task.paired:
            notes.append(f"{shown(task.task)}: the runs have different docs, so they are compared unpaired")
        elif task.left_out_a or task.left_out_b:
            counts = f"{counted(task.left_out_a)} of BASE and {task.left_out_b} of NEW"
            notes.append(f"{shown(task.task)}: {counts} are not in both (or have a broken gold label) and are left out")
    notes += [f"different in the two runs: {difference}" for difference in comparison.certificate_differences]
    return notes


def _entry(
    run: Run,
    names: Sequence[str],
    base: str = "",
    result: Result | None = None,
    changed: ChangedDocs | None = None,
) -> Entry:
    scopes = {task: run.docs[task].name for task in run.tasks} | ({POOLED: ""} if len(run.tasks) > 1 else {})
    values = {}
    for scope in scopes:
        found = run.metrics(None if scope == POOLED else scope, names=names)
        values[scope] = {name: finite([m.value, m.low, m.high]) for name, m in found.items()}
    return Entry(
        run=fingerprint(run),
        date=date_of(run),
        model=run.model,
        n_bins=run.n_bins,
        values=values,
        n_docs={scope: len(run.docs[scope]) if scope in run.docs else len(run) for scope in scopes},
        base=base,
        verdict="" if result is None else result.verdict,
        drifted=() if result is None else tuple(f"{test.task} {test.metric}" for test in result.drifted),
        revision=run.configuration.revision,
        commit=run.configuration.commit,
        tolerances={} if result is None else {test.metric: test.tolerance for test in result.tests},
        **_newly_wrong(changed),
    )


def _newly_wrong(changed: ChangedDocs | None) -> dict[str, Any]:
    if changed is None:
        return {}
    docs = [(doc.task, doc.doc_id, finite(doc.confidence_a), finite(doc.confidence_b)) for doc in changed.lost]
    return {
        "newly_wrong": tuple(docs),
        "n_newly_wrong": changed.n_lost,
        "n_newly_right": changed.n_won,
    }
