"""Runs by metrics: values with intervals on each run's docs, and every two runs tested on the docs both have.

The best value of a column is marked, and with it every run that is not shown to be worse: whose difference from the
best is not significant at 5% after Holm's procedure over all pairs, metrics and tasks of the table. So the marks of the
whole table are wrong about any difference at most 5% of the time.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

from lm_eval_calibration import metrics
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.metrics.uncertainty.kept import estimates_kept
from lm_eval_calibration.metrics.verdicts import ALPHA
from lm_eval_calibration.records import Record
from lm_eval_calibration.records.display import counted
from lm_eval_calibration.reports.names import shown
from lm_eval_calibration.reports.numbers import number
from lm_eval_calibration.reports.runs import answered_tasks, has_distributions, meant
from lm_eval_calibration.reports.sentences import BINNED_INTERVALS
from lm_eval_calibration.results import Run, TaskComparison, certificate_differences
from lm_eval_calibration.results.alignment import Alignment, align_tasks, by_task, joined
from lm_eval_calibration.results.columns import columns, metric_of
from lm_eval_calibration.results.comparison import Options, compare_docs
from lm_eval_calibration.results.differences import POOLED
from lm_eval_calibration.results.identity import fingerprint, unchanged

MANY_TASKS = 12
"""With more tasks than this, those in groups are shown as groups only."""

OF_THE_MODEL = ("tokenizer", "vocabulary")
"""Fields of a certificate that differ between models; where that matters the metric says so."""

Mark = Literal["best", "tied", ""]


class Cell(NamedTuple):
    """A metric of a run: nan where it is undefined, with the 95% interval.

    ``mark`` is "best" of the comparable runs (each of them, where several look equal), "tied" with it within noise, or
    "". ``reason`` says why the value is undefined, or not comparable with the other runs'. ``p_best`` is the p-value
    against the best run after Holm's procedure over the table; nan where there is no such test.
    """

    value: float
    low: float
    high: float
    mark: Mark = ""
    reason: str = ""
    p_best: float = math.nan

    @property
    def is_apart(self) -> bool:
        """Whether the value is undefined or can't be compared with the other runs'."""
        return bool(self.reason) and not self.mark


class Pair(NamedTuple):
    """Two runs, named by their labels, by a metric on the docs that both have: estimate of b less a.

    ``p_adjusted`` is the p-value after Holm's procedure over the table, ``n_docs`` the number of docs of a that were
    compared; ``reason`` says why there is no difference.
    """

    task: str
    metric: str
    a: str
    b: str
    difference: float
    low: float
    high: float
    p_value: float
    p_adjusted: float
    paired: bool
    n_docs: int
    reason: str


@dataclass(frozen=True)
class Scope:
    """A task, a group, or the docs of all tasks ("all"): number of docs by run, cells by run and metric.

    ``n_clusters``: of how many clusters the docs of each run are; none of those whose docs were drawn by themselves.
    """

    task: str
    n_docs: dict[str, int]
    rows: dict[str, dict[str, Cell]]
    n_clusters: dict[str, int]


@dataclass(frozen=True)
class Table:
    """Runs compared: the docs of all tasks first, where there are several; all tests; what else should be known.

    ``is_against_best``: whether each run is tested against the best of a column alone, not every two runs.
    """

    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    n_bins: int
    scopes: tuple[Scope, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]
    is_against_best: bool = False

    @property
    def n_tests(self) -> int:
        """Number of tests that Holm's procedure was over."""
        return sum(not math.isnan(pair.p_value) for pair in self.pairs)

    def legend(self, best: str = "*", tied: str = "≈") -> str:
        """Say what intervals, marks and p-values mean."""
        tests = "Holm's procedure over {} (pairs of runs, metrics, tasks)"
        if self.is_against_best:
            tests = "Bonferroni's correction over {} (of each run against the best, metrics, tasks)"
        tests = tests.format(counted(self.n_tests, what="tests"))
        binned = any(metric_of(name).takes_n_bins for name in self.metrics)
        return (
            f"95% intervals in brackets, each of its value alone, {self.n_bins} bins. {best}: best; {tied}: not shown "
            f"to be worse than the best at 5%; p: of no difference from the best, after {tests}."
            f"{' ' + BINNED_INTERVALS if binned else ''}"
        )


@estimates_kept()
def make_table(
    runs: dict[str, Run],
    names: Sequence[str],
    tasks: Sequence[str] = (),
) -> Table:
    """Compare runs.

    Args:
        runs: by label; two at least, of one number of bins.
        names: of the metrics.
        tasks: those to show, groups too ("all" for the docs of all tasks); where not given all that the runs have in
            common, but of more than twelve tasks in groups the groups alone.

    Raises:
        UserError: no task in common, or none of that name.
    """
    from tqdm import tqdm

    common = answered_tasks(runs)
    scopes = scopes_of([run.groups for run in runs.values()], common)
    wanted = meant(tasks, scopes) if tasks else _worth_showing(scopes, common)
    needed = list(dict.fromkeys(task for name in wanted for task in scopes[name]))
    records = {label: by_task(run.records_of(needed)) for label, run in runs.items()}
    pairs: list[Pair] = []
    notes: tuple[str, ...] = ()
    for a, b in tqdm(list(combinations(runs, 2)), desc="Comparing", unit="pair", delay=2, leave=False):
        aligned = _aligned(records[a], records[b])
        for name in wanted:
            docs = joined(aligned[task] for task in scopes[name])
            if len({record.kind for record in docs.a}) == 1:
                pairs += _pairs(a, b, compare_docs(name, docs, names, Options(runs[a].n_bins)))
        notes += tuple(_notes(a, b, aligned))
    pairs = _adjusted(pairs)
    filled = tuple(_scope(name, scopes[name], runs, names, pairs) for name in wanted)
    of_first = [pair for pair in pairs if (pair.task, pair.metric) == (wanted[0], "full_ece")]
    notes = tuple(dict.fromkeys([*notes, *(pair.reason for pair in of_first if pair.reason)]))
    digests = {label: fingerprint(run) for label, run in runs.items()}
    if left := set[str]().union(*(run.tasks for run in runs.values())).difference(common):
        left_out = ", ".join(sorted(map(shown, left)))
        notes += (f"not in every run with a sound gold label and a confidence, and left out: {left_out}",)
    notes += tuple(unchanged(a, b) for a, b in combinations(runs, 2) if digests[a] == digests[b])
    notes += tuple(f"{label}: {suspicion}" for label, run in runs.items() for suspicion in run.suspicions)
    return Table(tuple(runs), tuple(names), next(iter(runs.values())).n_bins, filled, tuple(pairs), notes)


def default_metrics(runs: Sequence[Run]) -> list[str]:
    """Return the metrics that compare shows by default, as far as some doc of the runs has them."""
    has_choices = any("multiple_choice" in run.kinds() for run in runs)
    names = columns("compare" if has_choices else "compare: generated answers")
    return [name for name in names if name != "full_ece" or any(map(has_distributions, runs))]


def scopes_of(groups: Sequence[Mapping[str, tuple[str, ...]]], common: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return all docs, the groups that hold the same of these tasks in every run, and the tasks: name to tasks.

    Args:
        groups: of each run, with their tasks, those that not all runs have among them.
        common: tasks that all runs have.
    """
    every: dict[str, tuple[str, ...]] = {task: (task,) for task in common}
    if len(common) == 1:
        return every
    inside = [{name: tuple(t for t in tasks if t in every) for name, tasks in of_run.items()} for of_run in groups]
    alike = {
        name: tasks
        for name, tasks in inside[0].items()
        if tasks and len(tasks) < len(common) and all(of_run.get(name) == tasks for of_run in inside)
    }
    return {POOLED: tuple(common), **alike, **every}


def _worth_showing(scopes: dict[str, tuple[str, ...]], common: Sequence[str]) -> list[str]:
    """All of them, but of many tasks in groups the groups alone."""
    grouped = {task for name, inside in scopes.items() if name not in (POOLED, *common) for task in inside}
    return [name for name in scopes if len(common) <= MANY_TASKS or name not in grouped]


def _aligned(a: Mapping[str, Sequence[Record]], b: Mapping[str, Sequence[Record]]) -> dict[str, Alignment]:
    try:
        return align_tasks(a, b)
    except ValueError as error:
        raise UserError(str(error)) from error


def _pairs(a: str, b: str, scope: TaskComparison) -> list[Pair]:
    return [
        Pair(
            scope.task,
            name,
            a,
            b,
            d.difference,
            d.low,
            d.high,
            d.p_value,
            math.nan,
            scope.paired,
            scope.n_a,
            d.reason if math.isnan(d.difference) else "",
        )
        for name, d in scope.differences.items()
    ]


def _adjusted(pairs: Sequence[Pair]) -> list[Pair]:
    adjusted = metrics.holm([pair.p_value for pair in pairs])
    return [pair._replace(p_adjusted=float(p)) for pair, p in zip(pairs, adjusted, strict=True)]


def _scope(
    name: str, tasks: Sequence[str], runs: dict[str, Run], metrics_shown: Sequence[str], pairs: Sequence[Pair]
) -> Scope:
    rows = {}
    for label, run in runs.items():
        measured = run.metrics(tasks, names=metrics_shown, with_stderr=False)
        rows[label] = {metric: Cell(m.value, m.low, m.high, reason=m.reason or "") for metric, m in measured.items()}
    for metric in metrics_shown:
        _mark(rows, metric, [pair for pair in pairs if pair.task == name and pair.metric == metric])
    n_docs = {label: sum(len(run.docs[t]) for t in tasks) for label, run in runs.items()}
    clusters = {label: n for label, run in runs.items() if (n := run.n_clusters(tasks)) is not None}
    return Scope(name, n_docs, rows, clusters)


def _mark(rows: dict[str, dict[str, Cell]], name: str, pairs: Sequence[Pair]) -> None:
    """Mark the best of a column and its ties; a column in which any two can't be compared has none."""
    defined = [label for label, row in rows.items() if not math.isnan(row[name].value)]
    between = {frozenset((pair.a, pair.b)): pair for pair in pairs}
    twos = map(frozenset, combinations(defined, 2))
    reasons = [between[two].reason if two in between else f"{name} of these docs is not tested" for two in twos]
    if any(reasons):
        reason = next(filter(None, reasons))
        for label in defined:
            rows[label][name] = rows[label][name]._replace(reason=reason)
        return
    if len(defined) < 2:
        return
    best = min(defined, key=lambda label: badness(name, rows[label][name].value))
    best_value = rows[best][name].value
    for label in defined:
        p = math.nan if label == best else between[frozenset((label, best))].p_adjusted
        mark: Mark = "" if p <= ALPHA else "best" if is_as_good(name, rows[label][name].value, best_value) else "tied"
        rows[label][name] = rows[label][name]._replace(mark=mark, p_best=p)


def badness(name: str, value: float) -> float:
    """Return what is the lower, the better a metric's value is."""
    higher_is_better = metric_of(name).higher_is_better
    return abs(value) if higher_is_better is None else -value if higher_is_better else value


def is_as_good(name: str, value: float, best: float) -> bool:
    """Return whether a value is the best, as far as a reader sees."""
    return number(badness(name, value)) == number(badness(name, best))


def _notes(a: str, b: str, aligned: Mapping[str, Alignment]) -> Iterator[str]:
    for task, docs in aligned.items():
        n_docs = len(docs.a)
        if docs.n_clusters is not None:
            yield f"{shown(task)}: {a} and {b} are tested as {counted(n_docs, docs.n_clusters)}"
        if not docs.paired:
            yield f"{shown(task)}: {a} and {b} have different docs and are compared unpaired"
        elif docs.left_out_a or docs.left_out_b:
            yield f"{shown(task)}: {a} and {b} are tested on the {counted(n_docs)} that both have"
        if docs.other_golds:
            yield f"{shown(task)}: different gold answers of {counted(docs.other_golds)} in {a} and {b}"
    if any(docs.other_prompts for docs in aligned.values()):
        yield f"{a} and {b} were given different prompts"
    every = joined(aligned.values())
    differences = [
        str(one) for one in certificate_differences(*every.certificates) if one.field.split(".")[-1] not in OF_THE_MODEL
    ]
    if differences:
        yield f"{a} and {b} were not measured in the same way ({'; '.join(differences)})"
