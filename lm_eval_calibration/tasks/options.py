"""The options of a calibrated task: ``metadata: {calibration: {...}}`` in a YAML, or ``--metadata`` on the command."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from typing import Any, Self

from lm_eval_calibration import __version__
from lm_eval_calibration.backends import MAX_BINS
from lm_eval_calibration.errors import TaskError
from lm_eval_calibration.metrics import CATALOG
from lm_eval_calibration.records import DEFINITION_VERSION
from lm_eval_calibration.tasks.confidences.p_true_query import QUERIES

KEY = "calibration"

NAMED_OPTIONS = "named_options"
"""Of a configuration that was made by its name: options that the name stands for. The harness lets ``--metadata``
replace the options under ``metadata`` whole, and these are to stay."""

CONFIDENCES = ("summed", "length_normalized")
"""Which log-likelihoods of the choices confidence is computed from."""

MAX_ORDERS = 100

MAX_SAMPLES = 10_000

_STATED = ("definition_version", "version")
"""What results state beside the options; a configuration taken from results may hold it."""


@dataclass(frozen=True)
class Options:
    """What a user may set.

    Attributes:
        n_bins: bins of all binned metrics, 1 to 100.
        metrics: extended metrics wanted beside the core ones, by name.
        confidence: ``summed`` (of the choices' summed log-likelihoods, as ``acc``) or ``length_normalized``, which adds
            the metrics of the log-likelihoods per character, as ``acc_norm``, under names of their own.
        permute: orders of its choices in which each doc is asked; 0 for the task's own order alone, and no metrics.
        intervals: whether the table shows the ends of each metric's 95% interval.
        nulls: whether it shows what a calibrated model would have, and the p-value.
        temperature: whether it shows each metric after temperature scaling too, cross-fitted over docs.
        temperatures: whether a doc's record holds its tokens at a grid of temperatures.
        filter: of a generation task, the filter whose answers are judged; "" for the first.
        correct: of a generation task, the metric of its own that says whether an answer is right; "" for the first.
        reference: of a generation task, a column or template of the text whose tokens are scored for ``full_ece``; None
            for the target, "" for none.
        repeats: of a generation task, samples of each prompt; 0 for as many as the stock task asks for.
        p_true: wording in which the model is asked whether its answer is right; "" for not asking.
        verbalized: whether the model is asked, in words, how likely its answer is right.
        shared_prefixes: whether prompts that begin alike may share that computation (all tasks of a run, or none).
    """

    n_bins: int = 10
    metrics: tuple[str, ...] = ()
    confidence: str = CONFIDENCES[0]
    permute: int = 0
    intervals: bool = False
    nulls: bool = False
    temperature: bool = False
    temperatures: bool = False
    filter: str = ""
    correct: str = ""
    reference: str | None = None
    repeats: int = 0
    p_true: str = ""
    verbalized: bool = False
    shared_prefixes: bool = True

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], task: str) -> Self:
        """Read and check the options of a task."""
        given = metadata.get(KEY) or {}
        place = f"{task}: metadata.{KEY}"
        if not isinstance(given, Mapping):
            raise TaskError(f"{place} is {given!r}, not a mapping like {{n_bins: 15}}")
        # A resolved configuration (from a result's `configs`) can be given back as it is.
        given = {key: value for key, value in given.items() if key not in _STATED}
        known = [f.name for f in fields(cls)]
        for key in given:
            if key not in known:
                raise TaskError(f"{place} has no option {key!r}{nearest(key, known)}; there are {', '.join(known)}")
        options = cls(**{**given, "metrics": _names(given.get("metrics", ()), f"{place}.metrics")})
        _check_whole(options.n_bins, 1, MAX_BINS, f"{place}.n_bins")
        _check_whole(options.permute, 0, MAX_ORDERS, f"{place}.permute")
        _check_whole(options.repeats, 0, MAX_SAMPLES, f"{place}.repeats")
        for name in ("filter", "correct", "reference"):
            value = getattr(options, name)
            if not isinstance(value, str) and not (name == "reference" and value is None):
                raise TaskError(f"{place}.{name} is {value!r}, not a text")
        for name in ("intervals", "nulls", "temperature", "temperatures", "verbalized", "shared_prefixes"):
            if not isinstance(value := getattr(options, name), bool):
                raise TaskError(f"{place}.{name} is {value!r}, not true or false")
        if options.confidence not in CONFIDENCES:
            raise TaskError(f"{place}.confidence is {options.confidence!r}; there are {', '.join(CONFIDENCES)}")
        if options.p_true not in ("", *QUERIES):
            raise TaskError(
                f"{place}.p_true is {options.p_true!r}{nearest(options.p_true, QUERIES)}; the wordings are "
                f"{', '.join(QUERIES)}"
            )
        return options

    def to_metadata(self) -> dict[str, Any]:
        """Return what results show under ``configs``."""
        stated = dict(zip(_STATED, (DEFINITION_VERSION, __version__), strict=True))
        return {**stated, **asdict(self), "metrics": list(self.metrics)}


def _names(given: Any, place: str) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, list | tuple):
        raise TaskError(f"{place} is {given!r}, not a list of names")
    for name in names:
        check_metric(name, place)
    return tuple(names)


def _check_whole(value: Any, low: int, high: int, place: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise TaskError(f"{place} is {value!r}, not a whole number from {low} to {high}")


def nearest(word: object, words: Iterable[str]) -> str:
    """Return `` (did you mean X?)`` where one of the words is near, else nothing."""
    near = difflib.get_close_matches(str(word), list(words), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def check_metric(name: Any, place: str, others: Iterable[str] = ()) -> None:
    """Raise TaskError if there is no metric of this name of ours, or the package that it needs is missing.

    Args:
        name: what the user wrote.
        place: where.
        others: metrics that may stand there, too, and may have been meant.
    """
    if not isinstance(name, str) or name not in CATALOG:
        raise TaskError(f"{place} has {name!r}{nearest(name, [*CATALOG, *others])}; there are {', '.join(CATALOG)}")
    if name == "smece" and find_spec("relplot") is None:
        raise TaskError(f"{place} has smece, which needs: pip install 'lm-eval-calibration[smece]'")


def merged(*metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Merge metadata, later ones winning; our own options are merged key by key."""
    result: dict[str, Any] = {}
    for part in metadata:
        ours = {**(result.get(KEY) or {}), **((part or {}).get(KEY) or {})} if _is_mapping(part) else None
        result |= part or {}
        if ours:
            result[KEY] = ours
    return result


def _is_mapping(metadata: Mapping[str, Any] | None) -> bool:
    return isinstance((metadata or {}).get(KEY, {}), Mapping)
