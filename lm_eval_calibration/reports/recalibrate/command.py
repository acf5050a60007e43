"""``lm-eval-calibration recalibrate``: fit on RESULTS, or apply a saved map to others."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.metrics import CATALOG
from lm_eval_calibration.recalibration import (
    METHODS,
    Change,
    Docs,
    Forecasts,
    MapByGroup,
    Multicalibrated,
    Temperature,
    TokenTemperature,
    before_after,
    choose_threshold,
    compare_domains,
    cross_fit,
    cross_fit_operating_point,
    cross_fitted_changes,
    evaluate_threshold,
)
from lm_eval_calibration.recalibration.map_file import SavedMap
from lm_eval_calibration.records import n_clusters
from lm_eval_calibration.records.display import counted
from lm_eval_calibration.reports.groups import left_out as reasons
from lm_eval_calibration.reports.recalibrate import tokens
from lm_eval_calibration.reports.recalibrate.tables import (
    print_answer,
    print_changes,
    print_domains,
    print_groups,
    print_operating_point,
    print_strata,
    say,
)
from lm_eval_calibration.results import Run, Selection, load_run
from lm_eval_calibration.results.doc_fields import ALL
from lm_eval_calibration.results.grouping import split_field

SUPERSEDED = """--error_rate promises nothing here; `lm-eval-calibration decide RESULTS --error_rate {error_rate:g}` \
finds a threshold with a guarantee"""


def fit(
    results: Sequence[Path],
    select: Selection,
    *,
    method: str,
    by: str | None,
    groups: str | None,
    fit_on: str | None,
    cluster: str | None,
    output: Path | None,
    folds: int,
    n_bins: int,
    error_rate: float | None,
) -> None:
    """Fit and judge, on other docs, and save the map.

    Without ``fit_on`` by cross-fitting; the saved map is then fitted on all docs. With it on the calibration split
    that it names, tested on the rest.
    """
    if method not in (*METHODS, TokenTemperature.method):
        raise UserError(f"no method {method!r}; there are {', '.join(METHODS)} and {TokenTemperature.method}")
    with _notes():
        if error_rate is not None:
            warnings.warn(SUPERSEDED.format(error_rate=error_rate), stacklevel=2)
        if method == TokenTemperature.method:
            if any(option is not None for option in (by, groups, fit_on, error_rate)):
                raise UserError(
                    f"--method {method} is one temperature: --by, --groups, --fit_on and --error_rate are for others"
                )
            tokens.fit(_load(results, cluster, select), output=output, folds=folds, n_bins=n_bins)
            return
        _check_groups(method, by, groups)
        run = _load(results, cluster, select)
        docs = _docs(run, by, groups or (ALL if method == Multicalibrated.method else None))
        _check_fits(method, docs)
        if fit_on is None:
            saved = _fit_map(method, docs, by, error_rate)
            _cross_fit(saved, docs, folds=folds, n_bins=n_bins)
        else:
            here = _split(run, fit_on)
            _warn_of_split_clusters(docs, here)
            saved = _fit_map(method, docs.take(np.flatnonzero(here)), by, error_rate)
            _print_test(saved, docs.take(np.flatnonzero(~here)), fit_on, n_bins)
    if output is not None:
        saved.write(output)
        n_docs = len(saved.map.fitted_on)
        say(f"the map, fitted on {counted(n_docs)}, is in {output}; judge it on others with --apply {output}")


def apply(path: Path, results: Sequence[Path], select: Selection, *, cluster: str | None, n_bins: int) -> None:
    """Judge a saved map on docs that it was not fitted on."""
    saved = SavedMap.read(path)
    with _notes():
        if saved.map.method == TokenTemperature.method:
            tokens.apply(saved, str(path), _load(results, cluster, select), n_bins=n_bins)
            return
        docs = _docs(_load(results, cluster, select), saved.by, _groups_of(saved))
        _print_test(saved, docs, str(path), n_bins)


def _cross_fit(saved: SavedMap, docs: Docs, *, folds: int, n_bins: int) -> None:
    """Print how the method does, each fold mapped by a map of the others."""
    method, for_all = saved.map.method, MapByGroup.fit(saved.map.method, docs.in_one_group())
    crossed = cross_fit(method, docs, n_folds=folds)
    changes = cross_fitted_changes(method, docs, crossed, n_bins=n_bins)
    print_answer(changes)
    say(f"{method}: {_counted(docs)} in {len(crossed.maps)} folds, each mapped by a map fitted on the other folds")
    if isinstance(one := for_all.maps[""], Temperature):
        say(f"temperature of all docs: {one.temperature:.4f}")
    _print_changes("the fit of the maps is in them", changes, crossed.forecasts)
    if docs.fields:
        print_groups(docs.forecasts, crossed.forecasts, docs.fields, n_bins)
    if saved.by is not None:
        print_domains(compare_domains(method, docs, n_folds=folds, n_bins=n_bins), saved.map, for_all)
        print_strata(docs.forecasts, crossed.forecasts, docs.groups, n_bins)
    if saved.error_rate is not None:
        print_operating_point(cross_fit_operating_point(docs, crossed, wanted=saved.error_rate))


def _print_test(saved: SavedMap, docs: Docs, source: str, n_bins: int) -> None:
    """Print how a map does on docs that it was not fitted on."""
    try:
        after = saved.map.recalibrate(docs)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error
    tested = _counted(docs, "others")
    changes = before_after(docs.forecasts, after, n_bins=n_bins)
    print_answer(changes)
    say(f"{saved.map.method} of {source}, fitted on {counted(len(saved.map.fitted_on))}, tested on {tested}")
    if saved.by is None and isinstance(one := saved.map.maps[""], Temperature):
        say(f"temperature: {one.temperature:.4f}")
    _print_changes("the map held fixed", changes, after)
    if docs.fields:
        print_groups(docs.forecasts, after, docs.fields, n_bins)
    if saved.by is not None:
        print_strata(docs.forecasts, after, docs.groups, n_bins)
    if saved.error_rate is not None:
        threshold = np.inf if saved.threshold is None else saved.threshold
        print_operating_point(evaluate_threshold(after.confidence, after.correct, threshold, wanted=saved.error_rate))


def _counted(docs: Docs, what: str = "docs") -> str:
    """The number of docs, and of their clusters."""
    return counted(len(docs), None if docs.cluster_ids is None else n_clusters(docs.cluster_ids), what)


def _warn_of_split_clusters(docs: Docs, here: NDArray[np.bool_]) -> None:
    """Warn where a calibration split and the rest have docs of one cluster: the test is no test of new ones."""
    shared = np.intersect1d(docs.drawn_as[here], docs.drawn_as[~here])
    if len(shared):
        warnings.warn(f"{len(shared)} clusters have docs in both splits: these are no new clusters", stacklevel=2)


def _fit_map(method: str, docs: Docs, by: str | None, error_rate: float | None) -> SavedMap:
    fitted, threshold = MapByGroup.fit(method, docs), None
    if error_rate is not None:
        seen = fitted.forecasts(docs)
        chosen = choose_threshold(seen.confidence, seen.correct, wanted=error_rate)
        threshold = chosen if np.isfinite(chosen) else None
    return SavedMap(fitted, by, error_rate, threshold)


def _check_groups(method: str, by: str | None, groups: str | None) -> None:
    if groups is not None and method != Multicalibrated.method:
        raise UserError(f"--groups is for --method {Multicalibrated.method}; --method {method} has --by")
    if by is not None and method == Multicalibrated.method:
        raise UserError(f"--method {method} is one map for all groups: name them by --groups, not --by")


def _groups_of(saved: SavedMap) -> str | None:
    """Fields that a map needs of the docs, as ``--groups`` names them."""
    needed = [name for one in saved.map.maps.values() if isinstance(one, Multicalibrated) for name in one.fields or ()]
    return ",".join(needed) or None


def _check_fits(method: str, docs: Docs) -> None:
    try:
        docs.fit_arguments(METHODS[method].takes)
    except ValueError as error:
        raise UserError(f"--method {method}: {error}") from error


def _split(run: Run, fit_on: str) -> NDArray[np.bool_]:
    """[N] True for the docs of the calibration split ``FIELD=VALUE``."""
    field, value = split_field(fit_on)
    groups = run.recalibration_docs(by=field).groups
    here = np.asarray(groups == value, dtype=np.bool_)
    if here.all() or not here.any():
        found = ", ".join(np.unique(groups))
        raise UserError(f"--fit_on {fit_on} is {'all' if here.all() else 'none'} of the docs; {field} is {found}")
    return here


def _load(results: Sequence[Path], cluster: str | None, select: Selection) -> Run:
    run = load_run(*results, cluster=cluster, select=select)
    for note in run.notes:
        warnings.warn(note, stacklevel=2)
    return run


def _docs(run: Run, by: str | None, groups: str | None = None) -> Docs:
    """Docs of a run; raise UserError where there is nothing to recalibrate."""
    try:
        docs = run.recalibration_docs(by=by)
    except ValueError as error:
        raise UserError(str(error)) from error
    if not len(docs):
        raise UserError(f"{run.model}: no doc has a sound gold label and a confidence")
    if groups is not None:
        fields, left_out = run.fields(groups=groups)
        if not fields:
            raise UserError(f"no field of the docs makes groups: {reasons(left_out)}")
        docs = docs.with_fields(fields)
    if n_broken := len(run) - len(docs):
        have, its, are = ("has", "its", "is") if n_broken == 1 else ("have", "their", "are")
        why = f"a gold label outside {its} choices" if docs.confidence is None else "an empty answer"
        typer.echo(f"note: {counted(n_broken)} {have} {why} and {are} left out", err=True)
    return docs


def _print_changes(intervals: str, changes: Sequence[Change], after: Forecasts) -> None:
    print_changes(f"before and after, on the same docs (intervals: of pairs of docs, {intervals})", changes)
    if after.probs is None:
        names = ", ".join(name for name, metric in CATALOG.items() if metric.kind == "choices")
        say(f"not shown, since only the answer's confidence is mapped: {names}")


@contextmanager
def _notes() -> Iterator[None]:
    """Print each warning once, in one line; a missing package is for the user to install."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except ImportError as error:
            raise UserError(str(error)) from error
        finally:
            for message in dict.fromkeys(str(warning.message) for warning in caught):
                typer.echo(f"note: {message}", err=True)
