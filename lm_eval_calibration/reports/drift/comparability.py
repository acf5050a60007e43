"""Why two runs can't be compared: settings, tasks, prompts, labels, tokenizers."""

from collections import defaultdict
from collections.abc import Collection, Iterator

from lm_eval_calibration.results import Run, RunComparison

SHOWN = 3
"""Tasks that are named where a reason holds for more."""


def settings_apart(base: Run, new: Run) -> list[str]:
    """Return settings that differ, as far as the harness's results have them, and tasks that are missing."""
    reasons: dict[str, list[str]] = defaultdict(list)
    if not set(base.tasks) & set(new.tasks):
        return [f"no task in common: BASE has {_listed(base.tasks)}, NEW has {_listed(new.tasks)}"]
    for task in base.tasks:
        if task not in new.tasks:
            reasons["NEW has no samples (a gate must not pass what was not run)"].append(task)
            continue
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


def _settings(base: Run, new: Run, task: str) -> Iterator[tuple[str, object, object]]:
    one, other = base.configuration, new.configuration
    yield "task version", one.task_versions.get(task), other.task_versions.get(task)
    yield "shots", one.num_fewshot.get(task), other.num_fewshot.get(task)


def _has_all_results(*runs: Run) -> bool:
    """Whether there are results of every call, which say what template was applied."""
    return all(source.results for run in runs for source in run.configuration.sources)


def _listed(tasks: Collection[str]) -> str:
    some = sorted(tasks)
    return ", ".join(some[:SHOWN]) + (f" and {len(some) - SHOWN} more" if len(some) > SHOWN else "")
