"""Many runs, a leaderboard's worth: read one after the other in several processes, each tested against the best.

The marks of a column are right about the run that is truly best with probability 95% over the whole table: that one
would lose its mark only if one of the others were better in a test by chance, and Bonferroni's correction is over all
others and all columns (after Hsu's multiple comparisons with the best, 1984). Tests of every two runs, as fewer runs
have them, would be 124,750 a column of 500.
"""

import gc
import math
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from lm_eval_calibration import metrics
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.metrics.uncertainty.differences import difference_of
from lm_eval_calibration.metrics.verdicts import ALPHA
from lm_eval_calibration.records.display import some
from lm_eval_calibration.records.reading import processors
from lm_eval_calibration.reports.compare.measuring import MeasuredRun, Plan, doc_hashes, measured_run
from lm_eval_calibration.reports.compare.table import (
    OF_THE_MODEL,
    Cell,
    Mark,
    Pair,
    Scope,
    Table,
    badness,
    default_metrics,
    is_as_good,
    scopes_of,
)
from lm_eval_calibration.reports.runs import echo_note, label_of, meant, shown_names
from lm_eval_calibration.results import Run, certificate_differences
from lm_eval_calibration.results.identity import labels_of
from lm_eval_calibration.results.loading import FoundRun

LEVEL = 0.95

SHOWN = 3
"""Runs that a note names, and notes of a run."""


def make_table_of_many(found: Sequence[FoundRun], given: Sequence[str], plan: Plan, tasks: Sequence[str]) -> Table:
    """Compare runs, which are read one after the other, with notes on standard error of what is left out.

    Args:
        found: the runs.
        given: names that they were given; "" for those that go by their model.
        plan: what is wanted of all, but for their tasks; without metrics those of the first run.
        tasks: those to show, groups too; where not given the docs of all tasks.

    Raises:
        UserError: fewer than two that can be read, runs of the same files or of other bins, or no task in common.
    """
    first = _first(found, plan)
    plan = plan._replace(metrics=plan.metrics or tuple(default_metrics([first])))
    plan = _with_scopes(plan, first, first.tasks, [first.groups], tasks)
    runs = _measured(found, plan)
    sound = [run for run in runs if not isinstance(run, UserError)]
    for run in runs:
        for reason in [f"left out: {run}"] if isinstance(run, UserError) else _first_of(run):
            echo_note(reason)
    common = [task for task in first.tasks if all(task in run.tasks for run in sound)]
    if len(common) < len(first.tasks):
        if not common:
            raise UserError("the runs have no task in common (`lm-eval-calibration runs` lists the tasks of each)")
        plan = _with_scopes(plan, first, common, [run.groups for run in sound], tasks)
        sound = [run for run in _measured(found, plan) if isinstance(run, MeasuredRun)]
    _check(sound)
    own = labels_of([run.identity for run in sound])
    kept = [name for name, run in zip(given, runs, strict=True) if not isinstance(run, UserError)]
    names = [name or label for name, label in zip(kept, own, strict=True)]
    labels = shown_names(names, [run.model for run in sound])
    return _table(dict(zip(labels, sound, strict=True)), plan)


def _first_of(run: MeasuredRun) -> Iterator[str]:
    """The first notes of a run, with its model's name."""
    model = label_of(run.model, run.identity.model)
    yield from (f"{model}: {reason}" for reason in run.notes[:SHOWN])
    if len(run.notes) > SHOWN:
        yield f"{model}: and {len(run.notes) - SHOWN} more, which `report` names"


def _first(found: Sequence[FoundRun], plan: Plan) -> Run:
    """The first run that can be read, with whose docs those of the others are compared."""
    reasons = []
    for one in found:
        try:
            return one.load(plan.n_bins, plan.cluster)
        except UserError as error:
            reasons.append(str(error))
    raise UserError(f"no run can be read: {'; '.join(reasons[:SHOWN])}")


def _with_scopes(
    plan: Plan, first: Run, common: Sequence[str], groups: Sequence[Mapping[str, tuple[str, ...]]], tasks: Sequence[str]
) -> Plan:
    scopes = scopes_of(groups, common)
    shown = {name: scopes[name] for name in meant(tasks, scopes) or [next(iter(scopes))]}
    return plan._replace(scopes=shown, docs={name: doc_hashes(first, inside) for name, inside in shown.items()})


def _measured(found: Sequence[FoundRun], plan: Plan) -> list[MeasuredRun | UserError]:
    """Measure the runs, as many at a time as there are processors."""
    from tqdm import tqdm

    n_workers, bar = min(processors(), len(found)), partial(tqdm, desc="Comparing", unit="run", delay=2, leave=False)
    if n_workers == 1:
        return [measured_run(one, plan) for one in bar(found)]
    with ProcessPoolExecutor(n_workers, multiprocessing.get_context(), _begin, (plan,)) as pool:
        measured = pool.map(_measure, found, chunksize=max(1, min(8, len(found) // (4 * n_workers))))
        return list(bar(measured, total=len(found)))


_plan: Plan


def _begin(plan: Plan) -> None:
    from threadpoolctl import threadpool_limits  # of scikit-learn

    global _plan  # noqa: PLW0603  # of this process: the plan is sent once
    _plan = plan
    threadpool_limits(1)  # every processor has a process of its own
    gc.set_threshold(100_000)  # a run is many objects and hardly a cycle: looking for them takes a twelfth of the time


def _measure(found: FoundRun) -> MeasuredRun | UserError:
    return measured_run(found, _plan)


def _check(runs: Sequence[MeasuredRun]) -> None:
    if len(runs) < 2:
        raise UserError("compare needs two runs at least")
    by_files: dict[frozenset[str], str] = {}
    for run in runs:
        if run.files in by_files:
            raise UserError(f"two runs are of the same files ({sorted(run.files)[0]})")
        by_files[run.files] = run.identity.model
    if len(bins := sorted({run.n_bins for run in runs})) > 1:
        listed = ", ".join(map(str, bins))
        raise UserError(f"the runs have different numbers of bins ({listed}): --n_bins computes all alike")


def _table(runs: dict[str, MeasuredRun], plan: Plan) -> Table:
    columns = [(scope, metric) for scope in plan.scopes for metric in plan.metrics]
    tested = {column: _against_best(runs, *column) for column in columns}
    n_tests = sum(not math.isnan(pair.p_value) for pairs, _ in tested.values() for pair in pairs)
    scopes, pairs = [], []
    for name in plan.scopes:
        rows: dict[str, dict[str, Cell]] = {label: {} for label in runs}
        for metric in plan.metrics:
            of_column, reasons = tested[name, metric]
            adjusted = [pair._replace(p_adjusted=min(1.0, pair.p_value * n_tests)) for pair in of_column]
            pairs += adjusted
            for label, cell in _cells(runs, name, metric, adjusted, reasons).items():
                rows[label][metric] = cell
        lead = plan.metrics[0]
        order = sorted(runs, key=lambda label, rows=rows: _rank(lead, rows[label][lead]))  # type: ignore[misc]
        n_docs = {label: runs[label].n_docs[name] for label in order}
        clusters = {label: n for label in order if (n := runs[label].n_clusters.get(name)) is not None}
        scopes.append(Scope(name, n_docs, {label: rows[label] for label in order}, clusters))
    n_bins = next(iter(runs.values())).n_bins
    labels = tuple(scopes[0].rows)
    return Table(labels, plan.metrics, n_bins, tuple(scopes), tuple(pairs), tuple(_notes(runs)), is_against_best=True)


def _rank(metric: str, cell: Cell) -> float:
    return math.inf if math.isnan(cell.value) else badness(metric, cell.value)


def _against_best(runs: dict[str, MeasuredRun], scope: str, metric: str) -> tuple[list[Pair], dict[str, str]]:
    """The tests of a column, and why others are not tested."""
    key, reference = (scope, metric), next(iter(runs))
    defined = [label for label, run in runs.items() if not math.isnan(run.found[key].value)]
    reasons = {
        label: f"its docs are not those of {reference}, so it is not tested"
        for label in defined
        if key not in runs[label].estimates
    }
    comparable = [label for label in defined if label not in reasons]
    tokenizers = {runs[label].tokenizer for label in comparable}
    if metrics.COMPARED[metric].kind == "full_vocabulary" and (len(tokenizers) > 1 or None in tokenizers):
        return [], dict.fromkeys(defined, f"{metric} is compared within one tokenizer only")
    if len(comparable) < 2:
        return [], reasons
    best = min(comparable, key=lambda label: badness(metric, runs[label].found[key].value))
    pairs = []
    for label in comparable:
        if label != best:
            found = difference_of(runs[best].estimates[key], runs[label].estimates[key], paired=True, level=LEVEL)
            reason = runs[label].found[key].reason or "" if math.isnan(found[0]) else ""
            pairs.append(Pair(scope, metric, best, label, *found, math.nan, True, runs[label].n_docs[scope], reason))
    return pairs, reasons


def _cells(
    runs: dict[str, MeasuredRun], scope: str, metric: str, pairs: Sequence[Pair], reasons: dict[str, str]
) -> dict[str, Cell]:
    found = {label: run.found[scope, metric] for label, run in runs.items()}
    cells = {
        label: Cell(one.value, one.low, one.high, reason=reasons.get(label) or one.reason or "")
        for label, one in found.items()
    }
    if not pairs:
        return cells
    best = pairs[0].a
    cells[best] = cells[best]._replace(mark="best")
    for pair in pairs:
        is_equal = is_as_good(metric, found[pair.b].value, found[best].value)
        mark: Mark = "" if pair.p_adjusted <= ALPHA else "best" if is_equal else "tied"
        cells[pair.b] = cells[pair.b]._replace(mark=mark, p_best=pair.p_adjusted)
    return cells


def _notes(runs: dict[str, MeasuredRun]) -> Iterator[str]:
    """What should be known of the runs beside the first, each said of all to which it applies."""
    (first, reference), *others = runs.items()
    for what in ("prompts", "gold answers"):
        differ = [label for label, run in others if run.digests[what] != reference.digests[what]]
        yield from _of_some(differ, first, f"other {what} than")
    differ = [label for label, run in others if reference.estimates.keys() - run.estimates.keys()]
    yield from _of_some(differ, first, "docs that are not tested, being other than those of")
    differing: dict[str, list[str]] = {}
    for label, run in others:
        found = certificate_differences(reference.certificates, run.certificates)
        for field in (difference.field for difference in found):
            if field.split(".")[-1] not in OF_THE_MODEL:
                differing.setdefault(field, []).append(label)
    for field, labels in differing.items():
        yield from _of_some(labels, first, f"another {field} than")
    tasks: list[set[str]] = [set(run.tasks) for run in runs.values()]
    if left := set[str]().union(*tasks) - tasks[0].intersection(*tasks):
        yield f"not in every run and left out: {', '.join(sorted(left))}"


def _of_some(labels: Sequence[str], first: str, what: str) -> Iterator[str]:
    if labels:
        yield f"{len(labels)} {'run has' if len(labels) == 1 else 'runs have'} {what} {first}: {some(labels, SHOWN)}"
