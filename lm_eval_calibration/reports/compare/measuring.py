"""What stays of a run in a table of many: for each scope and metric its value, and each doc's influence on it."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.metrics.uncertainty.intervals import Estimate
from lm_eval_calibration.metrics.validation import IntArray
from lm_eval_calibration.results import Run
from lm_eval_calibration.results.alignment import pair_by_hash
from lm_eval_calibration.results.columns import metric_of
from lm_eval_calibration.results.identity import Identity, files_of, identity_of
from lm_eval_calibration.results.loading import FoundRun
from lm_eval_calibration.results.measured import Measured, estimate, undefined

Scopes = Mapping[str, tuple[str, ...]]
"""Tasks of each row of tables: a task, a group, or all docs."""


class Plan(NamedTuple):
    """What is wanted of every run.

    Attributes:
        scopes: tasks of each.
        docs: hashes of each scope's docs, by task and doc id, of the run that the others are compared with.
        metrics: names.
        n_bins: of the binned metrics; those of the run where not given.
        cluster: as ``--cluster`` has it.
    """

    scopes: Scopes
    docs: Mapping[str, Sequence[str]]
    metrics: tuple[str, ...]
    n_bins: int | None
    cluster: str | None


class MeasuredRun(NamedTuple):
    """A run, without its docs.

    Attributes:
        identity: what it may be told by.
        model: its name as it was logged.
        files: that it was read from.
        tasks: names.
        groups: with their tasks.
        n_bins: of the binned metrics.
        n_docs: of each scope.
        n_clusters: of each scope whose docs hang together.
        found: value and interval by scope and metric.
        estimates: by scope and metric, docs in the plan's order; of other docs than the plan's there are none.
        tokenizer: by which positions were cut; None where it isn't known.
        certificates: how its numbers were obtained.
        digests: of prompts and gold answers, which are the same where runs had the same.
        notes: what is left out of it, and why.
    """

    identity: Identity
    model: str
    files: frozenset[str]
    tasks: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    n_bins: int
    n_docs: Mapping[str, int]
    n_clusters: Mapping[str, int]
    found: Mapping[tuple[str, str], Measured]
    estimates: Mapping[tuple[str, str], Estimate]
    tokenizer: str | None
    certificates: tuple[Mapping[str, Any], ...]
    digests: Mapping[str, str]
    notes: tuple[str, ...]


def measured_run(found: FoundRun, plan: Plan) -> MeasuredRun | UserError:
    """Read a run and measure it; what is wrong with its files is returned, for the others to go on."""
    try:
        run = found.load(plan.n_bins, plan.cluster)
    except UserError as error:
        return error
    return measured(run, plan)


def measured(run: Run, plan: Plan) -> MeasuredRun:
    """Return what stays of a run."""
    scopes = {name: tasks for name, tasks in plan.scopes.items() if set(tasks) <= set(run.tasks)}
    clusters = {name: n for name, tasks in scopes.items() if (n := run.n_clusters(tasks)) is not None}
    values, estimates = {}, {}
    for name, tasks in scopes.items():
        order = _order(doc_hashes(run, tasks), plan.docs[name]) if name in plan.docs else None
        if name in clusters and order is not None and not np.array_equal(order, np.arange(len(order))):
            order = None
        arrays_of = cache(partial(_arrays, run, tasks))  # of each kind of metric once
        for metric in plan.metrics:
            values[name, metric], found = _estimate(metric, run.n_bins, arrays_of)
            if found is not None and order is not None and (kept := _kept(found, order, name in clusters)) is not None:
                estimates[name, metric] = kept
    return MeasuredRun(
        identity_of(run),
        run.model,
        frozenset(str(path.resolve()) for path in files_of(run)),
        run.tasks,
        run.groups,
        run.n_bins,
        {name: sum(len(run.docs[task]) for task in tasks) for name, tasks in scopes.items()},
        clusters,
        values,
        estimates,
        _tokenizer(run),
        tuple(certificate for certificate, _ in run.certificates),
        _digests(run, scopes),
        (*run.notes, *run.suspicions),
    )


def doc_hashes(run: Run, tasks: Sequence[str]) -> list[str]:
    """Return the hashes of the docs of some tasks that metrics of answers take, in their order."""
    found = []
    for docs in (run.docs[task] for task in run.tasks_of(tasks)):
        order = docs.order
        known = order[~np.isnan(np.array(docs.confidence)[order])]
        found += [docs.doc_hashes[i] for i in known.tolist()]
    return found


def _order(mine: Sequence[str], wanted: Sequence[str]) -> IntArray | None:
    """Where the wanted docs stand among mine; None where these are not the same docs."""
    if mine == wanted:  # as they mostly are
        return np.arange(len(mine))
    pairs = pair_by_hash(wanted, mine)
    return np.array([i for _, i in pairs], dtype=np.int64) if len(pairs) == len(mine) == len(wanted) else None


def _arrays(run: Run, tasks: Sequence[str], kind: str) -> tuple[Any, Any]:
    """The arrays of some tasks and the clusters of their docs; ValueError where these docs have none."""
    return run.arrays(kind, tasks), run.clusters(kind, tasks)


def _estimate(name: str, n_bins: int, arrays_of: Callable[[str], tuple[Any, Any]]) -> tuple[Measured, Estimate | None]:
    metric = metric_of(name)
    try:
        arrays, cluster = arrays_of(metric.kind)
        return estimate(metric, arrays, n_bins, cluster=cluster)
    except ValueError as error:
        return undefined(str(error)), None


def _kept(found: Estimate, order: IntArray, is_clustered: bool) -> Estimate | None:
    """An estimate with its docs in another order; of a mean the values alone, of which its influence is made."""
    if found.values is not None:
        values = found.values
        if len(values.value) != len(order):
            return None
        in_order = values._replace(value=values.value[order], wrong=values.wrong[order])
        return found._replace(influence=np.zeros(0), values=in_order)
    if is_clustered:
        return found
    return found._replace(influence=found.influence[order]) if len(found.influence) == len(order) else None


def _tokenizer(run: Run) -> str | None:
    names = {one.get("vocabulary") or one.get("tokenizer") for one, _ in run.certificates}
    return str(names.pop()) if len(names) == 1 and None not in names else None


def _digests(run: Run, scopes: Scopes) -> dict[str, str]:
    tasks = sorted({task for inside in scopes.values() for task in inside})
    prompts, golds = hashlib.sha256(), hashlib.sha256()
    for task in tasks:
        docs = run.docs[task]
        prompts.update("".join(sorted(docs.prompt_hashes)).encode())
        if set(docs.kinds) == {"multiple_choice"}:
            labels = docs.columns.arrays("choices")[1].tolist()
            pairs = zip(doc_hashes(run, [task]), labels, strict=True)
            golds.update("".join(sorted(f"{doc}:{gold} " for doc, gold in pairs)).encode())
    return {"prompts": prompts.hexdigest(), "gold answers": golds.hexdigest()}
