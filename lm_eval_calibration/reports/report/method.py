"""The method box: what a reader needs to believe the numbers or to get them again."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from lm_eval_calibration import __version__
from lm_eval_calibration.records import DEFINITION_VERSION
from lm_eval_calibration.records.display import counted
from lm_eval_calibration.results import Run

CONFIDENCE = """of multiple choice the largest choice probability (softmax of the summed log-likelihoods); of \
generated text the mean probability of its tokens"""
INTERVALS = """95%, of the population's value: inverted tests for binned errors, DeLong for auroc, mid-P for \
shares, Student's t and mid-P together for means"""
NULLS = "1,000 simulated sets of labels (5,000 where few are as bad) drawn from the model's own probabilities, seed 0"
RECALIBRATION = """one temperature (of generated answers: Platt scaling), 5 folds of docs by their hash, each \
evaluated with a map of the others, seed 0"""


def method(run: Run, tasks: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return headings and texts; what the run does not say is left out."""
    ran = run.configuration
    template = ran.chat_template
    shots, versions = ran.num_fewshot, ran.task_versions
    kinds = Counter(kind for docs in run.docs.values() for kind in docs.kinds)
    rows = {
        "Definitions": f"version {DEFINITION_VERSION} of lm-eval-calibration {__version__}",
        "Docs": f"{len(run):,} of {len(tasks)} {'task' if len(tasks) == 1 else 'tasks'}",
        "Clusters": _clusters(run),
        "Kinds": ", ".join(f"{n:,} {kind.replace('_', ' ')}" for kind, n in kinds.items()),
        "Bins": f"{run.n_bins} of equal width; the last one holds 1 (ace: as many of equal mass for each choice)",
        "Confidence": CONFIDENCE,
        "Intervals": INTERVALS,
        "Nulls": NULLS,
        "Recalibration": RECALIBRATION,
        "Full-ECE": _vocabulary(run),
        "Model": run.model,
        "Settings": "; ".join(map(_settings, ran.settings)),
        "Examples in the prompt": _counted(str(shots[task]) for task in tasks if task in shots),
        "Task versions": _counted(versions[task] for task in tasks if task in versions),
        "Chat template": f"applied, SHA-256 {template}" if template else "",
        "How the numbers were obtained": "; ".join(f"{_plain(c)} ({counted(n)})" for c, n in run.certificates[:6]),
        "Packages": ", ".join(f"{name} {version}" for name, version in run.versions.items()),
        "Run ended": ", ".join(ran.dates),
    }
    return tuple((heading, text) for heading, text in rows.items() if text)


def _clusters(run: Run) -> str:
    """Of how many clusters the docs are; "" where each was drawn by itself."""
    if (n := run.n_clusters()) is None:
        return ""
    return f"{n:,}, drawn whole: errors, intervals, nulls and folds go by them, not by docs"


def _vocabulary(run: Run) -> str:
    first = next(iter(run.records), None)
    if first is None or not first.vocab_size:
        return ""
    return f"over a vocabulary of {first.vocab_size:,} entries; values depend on the tokenizer"


def _counted(values: Iterable[str]) -> str:
    counts = Counter(values)
    return next(iter(counts)) if len(counts) == 1 else ", ".join(f"{value} ({n} tasks)" for value, n in counts.items())


def _settings(settings: dict[str, object]) -> str:
    return ", ".join(f"{key}={_plain(value)}" for key, value in settings.items() if value not in (None, {}, [], ""))


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={_plain(item)}" for key, item in value.items())
    return value if isinstance(value, str) else json.dumps(value, default=str)
