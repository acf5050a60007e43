"""``lm-eval-calibration recalibrate``: fit on RESULTS, or apply a saved map to others."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import typer

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.metrics import CATALOG
from lm_eval_calibration.recalibrate.map_file import SavedMap
from lm_eval_calibration.recalibrate.reading import read_docs
from lm_eval_calibration.recalibrate.tables import (
    print_changes,
    print_domains,
    print_operating_point,
    print_strata,
    say,
)
from lm_eval_calibration.recalibration import (
    METHODS,
    Docs,
    FittedOnTheseDocsError,
    Forecasts,
    MapByGroup,
    Temperature,
    before_after,
    choose_threshold,
    compare_domains,
    cross_fit,
    cross_fit_operating_point,
    judge_threshold,
)

STRATA_METRICS = ("brier_score", "brier_top_label", "nll", "ece", "auroc", "overconfidence")
"""What is shown of each group."""


def fit(
    results: Sequence[Path],
    *,
    method: str,
    by: str | None,
    output: Path | None,
    folds: int,
    n_bins: int,
    error_rate: float | None,
) -> None:
    """Cross-fit, print what recalibration changes, and save the map that was fitted on all docs."""
    if method not in METHODS:
        raise UserError(f"no method {method!r}; there are {', '.join(METHODS)}")
    with _notes():
        docs = _read(results, by)
        fitted, for_all = MapByGroup.fit(method, docs), MapByGroup.fit(method, docs.in_one_group())
        crossed = cross_fit(method, docs, n_folds=folds)
        say(f"{method}: {len(docs)} docs in {len(crossed.maps)} folds, each judged by a map fitted on the other folds")
        if isinstance(one := for_all.maps[""], Temperature):
            say(f"temperature of all docs: {one.temperature:.4f}")
        _print_before_after(docs.forecasts, crossed.forecasts, n_bins)
        if by is not None:
            print_domains(compare_domains(method, docs, n_folds=folds, n_bins=n_bins), fitted, for_all)
            print_strata(docs.forecasts, crossed.forecasts, docs.groups, STRATA_METRICS, n_bins)
        threshold = None
        if error_rate is not None:
            print_operating_point(cross_fit_operating_point(docs, crossed, wanted=error_rate))
            seen = fitted.forecasts(docs)
            chosen = choose_threshold(seen.confidence, seen.correct, wanted=error_rate)
            threshold = chosen if np.isfinite(chosen) else None
    if output is not None:
        SavedMap(fitted, by, error_rate, threshold).write(output)
        say(f"the map of all {len(docs)} docs is in {output}; judge it on other docs with --apply {output}")


def apply(path: Path, results: Sequence[Path], *, n_bins: int) -> None:
    """Judge a saved map on docs that it was not fitted on."""
    saved = SavedMap.read(path)
    with _notes():
        docs = _read(results, saved.by)
        try:
            after = saved.map.judge(docs)
        except FittedOnTheseDocsError as error:
            raise UserError(f"{path}: {error}") from error
        except ValueError as error:
            raise UserError(f"{path}, by {saved.by}: {error}") from error
        say(f"{saved.map.method} of {path}, fitted on {len(saved.map.fitted_on)} other docs, judged on {len(docs)}")
        _print_before_after(docs.forecasts, after, n_bins)
        if saved.by is not None:
            print_strata(docs.forecasts, after, docs.groups, STRATA_METRICS, n_bins)
        if saved.error_rate is not None:
            threshold = np.inf if saved.threshold is None else saved.threshold
            print_operating_point(judge_threshold(after.confidence, after.correct, threshold, wanted=saved.error_rate))


def _read(results: Sequence[Path], by: str | None) -> Docs:
    docs, n_broken = read_docs(results, by)
    if n_broken:
        typer.echo(f"note: {n_broken} docs have a gold label outside their choices and are left out", err=True)
    return docs


def _print_before_after(before: Forecasts, after: Forecasts, n_bins: int) -> None:
    title = "before and after, on the same docs (intervals: docs resampled in pairs, maps held fixed)"
    print_changes(title, before_after(before, after, n_bins=n_bins))
    if after.probs is None:
        names = ", ".join(name for name, metric in CATALOG.items() if metric.kind == "choices")
        say(f"not shown, since only the answer's confidence is mapped: {names}")


@contextmanager
def _notes() -> Iterator[None]:
    """Say each warning once, in one line; a missing package is the user's to install."""
    said: set[str] = set()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except ImportError as error:
            raise UserError(str(error)) from error
        finally:
            for warning in caught:
                if (message := str(warning.message)) not in said:
                    said.add(message)
                    typer.echo(f"note: {message}", err=True)
