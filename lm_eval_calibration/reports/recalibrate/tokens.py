"""``recalibrate --method token_temperature``: one temperature of every token's logits, as a serving engine has it."""

import warnings
from pathlib import Path

import numpy as np

from lm_eval_calibration import metrics
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.metrics.validation import IntArray
from lm_eval_calibration.recalibration import Change, MapByGroup, TokenGrid, TokenTemperature, cross_fit_tokens
from lm_eval_calibration.recalibration.by_group import digest
from lm_eval_calibration.recalibration.choices import stacked
from lm_eval_calibration.recalibration.map_file import SavedMap
from lm_eval_calibration.records import clusters_of
from lm_eval_calibration.records.display import counted
from lm_eval_calibration.reports.recalibrate.tables import print_changes, say
from lm_eval_calibration.results import Run
from lm_eval_calibration.results.columns import columns


def fit(run: Run, *, output: Path | None, folds: int, n_bins: int) -> None:
    """Fit and judge by cross-fitting; save the temperature of all docs."""
    grid = read_grid(run)
    crossed = cross_fit_tokens(grid, n_folds=folds)
    fitted = TokenTemperature().fit(grid)
    say(f"token_temperature: {counted(len(grid))} in {len(crossed.maps)} folds, each at the temperature of the others")
    say(f"temperature of all docs: {fitted.temperature:g}")
    _print(grid, crossed.of_doc, n_bins)
    if output is not None:
        saved = MapByGroup(TokenTemperature.method, {"": fitted}, frozenset(map(digest, grid.doc_hashes)))
        SavedMap(saved).write(output)
        say(f"the map, fitted on {counted(len(grid))}, is in {output}; judge it on others with --apply {output}")


def apply(saved: SavedMap, source: str, run: Run, *, n_bins: int) -> None:
    """Judge a saved temperature on docs that it was not fitted on."""
    grid, fitted = read_grid(run), saved.map.maps[""]
    if not isinstance(fitted, TokenTemperature):
        raise TypeError(f"{source} holds a map of {saved.map.method}")
    try:
        saved.map.check_others(grid.doc_hashes)
        index = fitted.index(grid)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error
    say(f"token_temperature of {source}, fitted on {counted(len(saved.map.fitted_on))}, tested on {len(grid)} others")
    say(f"temperature: {fitted.temperature:g}")
    _print(grid, np.full(len(grid), index), n_bins)


def read_grid(run: Run) -> TokenGrid:
    """Read docs whose tokens were scored at several temperatures.

    Raises:
        UserError: a doc without a grid of temperatures, or a grid without 1.
    """
    try:
        grid = TokenGrid.of(run.records)
        TokenTemperature.identity().index(grid)  # what is compared with
    except ValueError as error:
        raise UserError(str(error)) from error
    return grid


def _print(grid: TokenGrid, of_doc: IntArray, n_bins: int) -> None:
    """``of_doc``: [N] index of the temperature of each doc."""
    as_it_is = np.full(len(grid), TokenTemperature.identity().index(grid))
    before, after = _run(grid, as_it_is), _run(grid, of_doc)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what is undefined is shown as such
        cluster = clusters_of(grid.cluster_ids)
        found = metrics.compare(before, after, names=columns("recalibrate: tokens"), n_bins=n_bins, cluster=cluster)
    changes = [Change.of(name, one) for name, one in found.items()]
    print_changes("before and after, on the same docs (intervals: of pairs of docs, temperatures held fixed)", changes)
    docs = np.arange(len(grid))
    nll = [grid.losses[docs, index].sum() / grid.n_positions.sum() for index in (as_it_is, of_doc)]
    say(f"negative log-likelihood of a gold token: {nll[0]:.4f} before, {nll[1]:.4f} after")


def _run(grid: TokenGrid, of_doc: IntArray) -> metrics.Run:
    """The docs' arrays, each doc at its temperature."""
    docs, probs = np.arange(len(grid)), grid.probs(of_doc)
    return metrics.Run(
        np.array([row.max() for row in probs]),
        grid.correct[docs, of_doc],
        stacked(probs),
        grid.labels,
        grid.gap_sums[docs, of_doc],
        grid.n_positions,
        tokenizer="the run's own",
    )
