"""Why two runs can't be compared: settings, tasks, prompts, labels, tokenizers."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator

from lm_eval_calibration.records.display import counted, some
from lm_eval_calibration.reports.names import shown
from lm_eval_calibration.results import Run, RunComparison
from lm_eval_calibration.results.task_docs import TaskDocs


def settings_apart(base: Run, new: Run) -> list[str]:
    """Return settings that differ, as far as the harness's results have them, and tasks that are missing."""
    reasons: dict[str, list[str]] = defaultdict(list)
    if not set(base.tasks) & set(new.tasks):
        return [f"no task in common: BASE has {_listed(base.tasks)}, NEW has {_listed(new.tasks)}"]
    for task in base.tasks:
        if task not in new.tasks:
            reasons["NEW has no samples (a gate must not pass what was not run)"].append(task)
            continue
        if base.docs[task].has_answers and not new.docs[task].has_answers:
            reasons["no doc of NEW has a sound gold label and a confidence, as in BASE"].append(task)
        for name, one, other in _settings(base, new, task):
            if one is not None and other is not None and one != other:
                reasons[f"{name}: {one} in BASE, {other} in NEW"].append(task)
    found = [f"{_listed(tasks)}: {reason}" for reason, tasks in reasons.items()]
    found += [f"{name}: {suspicion}" for name, run in (("BASE", base), ("NEW", new)) for suspicion in run.suspicions]
    if base.n_bins != new.n_bins:
        found.append(f"n_bins: {base.n_bins} in BASE, {new.n_bins} in NEW; --n_bins computes both alike")
    if base.configuration.chat_template != new.configuration.chat_template and _has_all_results(base, new):
        found.append("chat template: not the same, or applied in one of the runs only")
    return found


def docs_apart(comparison: RunComparison, names: Collection[str]) -> list[str]:
    """Return what differs in prompts or gold answers of the docs, and metrics whose values mean something else."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for task in comparison.tasks:
        if task.other_prompts:
            reasons["prompts of the same docs are not the same"].append(task.task)
        if task.other_golds:
            reasons["gold answers of the same docs are not the same"].append(task.task)
        found = task.differences.get("full_ece")
        if found is not None and "full_ece" in names and found.difference != found.difference:
            reasons[f"{found.reason}; leave it out by --metrics"].append(task.task)
    return [f"{_listed(tasks)}: {reason}" for reason, tasks in reasons.items()]


def docs_changed(base: Run, new: Run) -> Iterator[str]:
    """Yield, for each task that both runs have, how their docs are not the same, and how the new ones do."""
    for task in base.tasks:
        if task not in new.tasks:
            continue
        one, other = base.docs[task], new.docs[task]
        added = Counter(other.doc_hashes) - Counter(one.doc_hashes)
        removed = Counter(one.doc_hashes) - Counter(other.doc_hashes)
        if not added and not removed:
            continue
        lost = {doc_id for doc_id, name in zip(one.doc_ids, one.doc_hashes, strict=True) if name in removed}
        found = {doc_id for doc_id, name in zip(other.doc_ids, other.doc_hashes, strict=True) if name in added}
        changed = len((lost & found) - {-1})
        counts = added.total() - changed, removed.total() - changed, changed
        text = f"{shown(task)}: {counted(counts[0])} added, {counts[1]} removed, {counts[2]} changed"
        shares = [_share_right(other, added, are_new=are_new) for are_new in (True, False)]
        if None not in shares:
            text += f"; in NEW {shares[0]:.1%} of the added and changed docs are right, of the others {shares[1]:.1%}"
        yield text


def _share_right(docs: TaskDocs, added: Collection[str], *, are_new: bool) -> float | None:
    outcomes = zip(docs.doc_hashes, docs.correct, strict=True)
    known = [right for name, right in outcomes if (name in added) == are_new and right >= 0]
    return sum(known) / len(known) if known else None


def _settings(base: Run, new: Run, task: str) -> Iterator[tuple[str, object, object]]:
    one, other = base.configuration, new.configuration
    yield "task version", one.task_versions.get(task), other.task_versions.get(task)
    yield "shots", one.num_fewshot.get(task), other.num_fewshot.get(task)


def _has_all_results(*runs: Run) -> bool:
    """Whether there are results of every call, which say what template was applied."""
    return all(source.results for run in runs for source in run.configuration.sources)


def _listed(tasks: Collection[str]) -> str:
    return some(sorted(map(shown, tasks)))
