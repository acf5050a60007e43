"""The one place where the harness is changed. Each patch says why; a test fails when upstream makes it needless.

(What several ranks need, on the backend's object of a run and only there, is in ``ranks``.)
"""

import subprocess
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, NamedTuple

from lm_eval import evaluator, evaluator_utils, utils
from lm_eval.api.model import CachingLM
from lm_eval.loggers import EvaluationTracker

from lm_eval_calibration.harness.aggregation import complete
from lm_eval_calibration.harness.numbers import with_numbers
from lm_eval_calibration.harness.response_cache import with_response_cache
from lm_eval_calibration.harness.run import with_run_settings


def children_first(propagate: Callable[..., None]) -> Callable[..., None]:
    """Hand arrows and n-shot from tasks to groups over children first.

    The harness visits parents before their children, so the top row of nested groups gets neither.
    """

    @wraps(propagate)
    def patched(all_groups: Any, values: Any) -> None:
        propagate(list(reversed(all_groups)), values)

    return patched


def completing(aggregate_groups: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Complete the numbers of a run from its records: see ``aggregation``.

    The harness only averages over groups, and knows no standard error of our metrics.
    """

    @wraps(aggregate_groups)
    def patched(results: Any) -> Any:
        return complete(results, aggregate_groups)

    return patched


def compiled_once(from_string: Callable[..., Any]) -> Callable[..., Any]:
    """Keep compiled templates.

    The harness compiles the template of every field again for every doc and every few-shot example, which takes longer
    than to render it.
    """
    return wraps(from_string)(lru_cache(maxsize=256)(from_string))


def without_a_complaint(get_git_commit_hash: Callable[[], Any]) -> Callable[[], Any]:
    """Ask git for a commit only where there is one.

    Elsewhere the harness lets git print "fatal: not a git repository" between the run's progress and its table.
    """

    @wraps(get_git_commit_hash)
    def patched() -> Any:
        try:
            done = subprocess.run(["git", "describe", "--always"], capture_output=True, check=False)
        except FileNotFoundError:  # without git the harness reads the repository's files itself
            return get_git_commit_hash()
        return get_git_commit_hash() if done.returncode == 0 else None

    return patched


class Patch(NamedTuple):
    """A function of the harness, where it stands, and what is made of it."""

    owner: Any
    name: str
    patch: Callable[[Any], Any]


PATCHES = (
    Patch(evaluator, "evaluate", with_run_settings),
    Patch(evaluator_utils, "aggregate_groups", completing),
    Patch(evaluator_utils, "_propagate_higher_is_better", children_first),
    Patch(evaluator_utils, "_propagate_num_fewshot", children_first),
    Patch(utils.env, "from_string", compiled_once),
    Patch(CachingLM, "__init__", with_response_cache),
    Patch(EvaluationTracker, "save_results_samples", with_numbers),
    Patch(evaluator, "get_git_commit_hash", without_a_complaint),
)


def apply() -> None:
    """Apply the patches, once. One whose function is gone is left out: the run works, and its test fails."""
    for owner, name, patch in PATCHES:
        stock = getattr(owner, name, None)
        if stock is not None and not hasattr(stock, "stock"):
            patched = patch(stock)
            patched.stock = stock
            setattr(owner, name, patched)
