"""The options of a calibrated task: ``metadata: {calibration: {...}}`` in a YAML, or ``--metadata`` on the command."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from typing import Any, Self

from lm_eval_calibration import __version__
from lm_eval_calibration.backends import MAX_BINS
from lm_eval_calibration.errors import TaskError, nearest
from lm_eval_calibration.metrics import CATALOG
from lm_eval_calibration.records import DEFINITION_VERSION
from lm_eval_calibration.tasks.confidences.option import Option, field_of_docs, flag, pattern, text, whole_number
from lm_eval_calibration.tasks.confidences.registry import sources

KEY = "calibration"

NAMED_OPTIONS = "named_options"
"""Of a configuration that was made by its name: options that the name stands for. The harness lets ``--metadata``
replace the options under ``metadata`` whole, and these are to stay."""

BUDGET_CUE = "\nThe answer is"

_VERSIONS = {"definition_version": DEFINITION_VERSION, "version": __version__}
"""What results state beside the options; a configuration taken from results may hold it."""


def _of_sources() -> dict[str, Any]:
    return {source.option.name: source.option.default for source in sources() if source.option is not None}


@dataclass(frozen=True)
class Options:
    """What a user may set.

    Attributes:
        n_bins: bins of all binned metrics, 1 to 100.
        metrics: extended metrics wanted beside the core ones, by name.
        intervals: whether the table shows the ends of each metric's 95% interval.
        nulls: whether it shows what a calibrated model would have, and the p-value.
        temperatures: whether a doc's record holds its tokens at a grid of temperatures.
        filter: of a generation task, the filter whose answers are scored; "" for the first.
        correct: of a generation task, its own metric of whether an answer is right; "" for the first.
        reference: of a generation task, a column or template of the text whose tokens are scored for ``full_ece``; None
            for the target, "" for none.
        question_max_gen_toks: tokens of the reply to the question of ``verbalized``; 0 for 32, or for 1,024 where the
            model thinks before it replies.
        refusal: of a generation task, a regular expression that refusals match; "" for none.
        budget_cue: of a generation task with ``budgets``, what leads from a cut thought to the answer.
        cluster: the field of the docs that says what was drawn together, such as ``doc.passage_id``; "" for none.
            Folds, standard errors, intervals and nulls go by it.
        shared_prefixes: whether prompts that begin alike may share that computation (all tasks of a run, or none).
        confidences: the options of the confidence sources, by name; ``options[name]`` is one of them.
    """

    n_bins: int = 10
    metrics: tuple[str, ...] = ()
    intervals: bool = False
    nulls: bool = False
    temperatures: bool = False
    filter: str = ""
    correct: str = ""
    reference: str | None = None
    question_max_gen_toks: int = 0
    refusal: str = ""
    budget_cue: str = BUDGET_CUE
    cluster: str = ""
    shared_prefixes: bool = True
    confidences: Mapping[str, Any] = field(default_factory=_of_sources)

    def __getitem__(self, name: str) -> Any:
        return self.confidences[name]

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], task: str) -> Self:
        """Read and check the options of a task."""
        given = metadata.get(KEY) or {}
        location = f"{task}: metadata.{KEY}"
        if not isinstance(given, Mapping):
            raise TaskError(f"{location} is {given!r}, not a mapping like {{n_bins: 15}}")
        # A resolved configuration (from a result's `configs`) can be given back as it is.
        given = {key: value for key, value in given.items() if key not in _VERSIONS}
        known = cls().to_dict()
        for key in given:
            if key not in known:
                raise TaskError(f"{location} has no option {key!r}{nearest(key, known)}; there are {', '.join(known)}")
        for option in (*_OPTIONS, *(source.option for source in sources() if source.option is not None)):
            value = given.get(option.name, option.default)
            if problem := option.problem(value):
                raise TaskError(f"{location}.{option.name} is {value!r}{problem}")
        own = {key: value for key, value in given.items() if key not in _of_sources()}
        own["metrics"] = _names(given.get("metrics", ()), f"{location}.metrics")
        return cls(**own, confidences={name: given.get(name, default) for name, default in _of_sources().items()})

    def to_dict(self) -> dict[str, Any]:
        """Return all options by name, as a user may write them."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "confidences"}
        return {**own, "metrics": list(self.metrics), **self.confidences}

    def to_metadata(self) -> dict[str, Any]:
        """Return what results show under ``configs``."""
        return {**_VERSIONS, **self.to_dict()}


_OPTIONS: tuple[Option, ...] = (
    whole_number("n_bins", 1, MAX_BINS, default=10),
    *map(flag, ("intervals", "nulls", "temperatures")),
    *map(text, ("filter", "correct")),
    text("reference", default=None),
    whole_number("question_max_gen_toks", 0, 1_000_000),
    pattern("refusal"),
    text("budget_cue", default=BUDGET_CUE),
    field_of_docs("cluster"),
    flag("shared_prefixes", default=True),
)
"""The options that are no confidence source's and no lists."""


def _names(given: Any, location: str) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, list | tuple):
        raise TaskError(f"{location} is {given!r}, not a list of names")
    for name in names:
        check_metric(name, location)
    return tuple(names)


def check_metric(name: Any, location: str, others: Iterable[str] = ()) -> None:
    """Raise TaskError if there is no metric of this name of ours, or the package that it needs is missing.

    Args:
        name: what the user wrote.
        location: where.
        others: metrics that may stand there, too, and may have been meant.
    """
    if not isinstance(name, str) or name not in CATALOG:
        raise TaskError(f"{location} has {name!r}{nearest(name, [*CATALOG, *others])}; there are {', '.join(CATALOG)}")
    requires = CATALOG[name].requires
    if requires is not None and find_spec(requires) is None:
        raise TaskError(f"{location} has {name}, which needs: pip install 'lm-eval-calibration[{name}]'")


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
