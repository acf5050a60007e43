"""The metrics of a calibrated task's configuration: the stock task's, and ours beside them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lm_eval.api.registry import (
    DEFAULT_METRIC_REGISTRY,
    aggregation_registry,
    get_aggregation,
    get_metric_aggregation,
    is_higher_better,
    metric_agg_registry,
    metric_registry,
)

from lm_eval_calibration.errors import TaskError, nearest
from lm_eval_calibration.metrics import CATALOG, CORE, CORPUS_CATALOG, GENERATION_CATALOG, GENERATION_CORE
from lm_eval_calibration.tasks.confidences.registry import requested
from lm_eval_calibration.tasks.options import Options, check_metric
from lm_eval_calibration.tasks.token_metrics import TOKEN_ACCURACY
from lm_eval_calibration.tasks.views import requested_means, rows, shown

MetricList = tuple[list[dict[str, Any]], list[str]]
"""A task's ``metric_list``, the stock task's metrics first, and the names in it that are ours, in the table's order."""

OURS = "of_calibration"
"""Marks an entry that the stock task does not have; the harness takes it for an argument of the metric."""


def metrics_of_choices(stock: Mapping[str, Any], given: Mapping[str, Any], options: Options, where: str) -> MetricList:
    """Return the metrics of a task whose choices are scored.

    Args:
        stock: the stock task's configuration.
        given: the keys of ours.
        options: what the user set.
        where: file and task, for an error.

    Raises:
        TaskError: naming a metric that there is not.
    """
    chosen = list(given.get("metric_list") or ())
    for entry in [*chosen, *(stock.get("metric_list") or ())]:
        metric = entry["metric"]
        if isinstance(metric, str) and (metric in CATALOG or not _is_of_harness(entry)):
            check_metric(metric, f"{where}: metric_list", metric_registry)
    plain = _ours(chosen, CATALOG, CORE, options)
    stocks = _others(chosen, CATALOG, stock, "multiple_choice")
    if not chosen and "acc" not in _names(stocks):
        stocks.insert(0, {"metric": "acc"})  # what confidence is about stands beside it
    beside = [name for source in requested(options, "choices") for name in source.stock_metrics]
    stocks += [{"metric": name} for name in beside if name not in _names(stocks)]
    known, ours = rows("choices"), shown(plain, options, "choices")
    entries = [_entry(name, known[name].metric.higher_is_better) for name in ours]
    means = [_entry(name, better, "mean") for name, better in requested_means(options, "choices").items()]
    return [*_complete([entry for entry in stocks if entry["metric"] not in known]), *entries, *means], ours


def metrics_of_generation(
    stock: Mapping[str, Any], given: Mapping[str, Any], options: Options, where: str
) -> MetricList:
    """Return the metrics of a task whose answers are generated; see :func:`metrics_of_choices`."""
    chosen = list(given.get("metric_list") or ())
    own = {entry["metric"] for entry in chosen if entry.get("hf_evaluate") or given.get("process_results")}
    for name in [*_names(chosen), *options.metrics]:
        if name in CATALOG and name not in GENERATION_CATALOG:
            known = ", ".join(GENERATION_CATALOG)
            raise TaskError(f"{where}: {name} is not defined for generated answers, which have no choices; {known} are")
        if isinstance(name, str) and name not in {*GENERATION_CATALOG, *own} and name not in metric_registry:
            check_metric(name, f"{where}: metric_list", metric_registry)
    plain = _ours(chosen, GENERATION_CATALOG, GENERATION_CORE, options)
    if options.reference == "":
        plain = [name for name in plain if GENERATION_CATALOG[name].kind != "full_vocabulary"]
    stocks = _others(chosen, GENERATION_CATALOG, stock, "generate_until")
    means = {} if "acc" in _names(stocks) else {"acc": True}
    means |= requested_means(options, "generation")
    added = [_entry(name, better, "mean") | {OURS: True} for name, better in means.items()]
    if options.reference != "":
        added.append(_entry(TOKEN_ACCURACY, True))
    table, ours = rows("generation"), shown(plain, options, "generation")
    return [*_complete(stocks), *added, *(_entry(name, table[name].metric.higher_is_better) for name in ours)], ours


def metrics_of_corpus(stock: Mapping[str, Any], given: Mapping[str, Any], options: Options, where: str) -> MetricList:
    """Return the metrics of the tokens of a corpus; see :func:`metrics_of_choices`."""
    chosen = list(given.get("metric_list") or ())
    for entry in chosen:
        name = entry["metric"]
        if name not in CORPUS_CATALOG and (name in rows("choices") or not _is_of_harness(entry)):
            known = ", ".join(CORPUS_CATALOG)
            raise TaskError(f"{where}: metric_list has {name!r}{nearest(name, CORPUS_CATALOG)}; a corpus has {known}")
    ours = [name for name in _names(chosen) if name in CORPUS_CATALOG] or list(CORPUS_CATALOG)
    stocks = _others(chosen, CORPUS_CATALOG, stock, "loglikelihood_rolling")
    entries = [_entry(name, CORPUS_CATALOG[name].higher_is_better) for name in ours]
    return [*_complete([entry for entry in stocks if entry["metric"] not in CORPUS_CATALOG]), *entries], ours


def _is_of_harness(entry: Mapping[str, Any]) -> bool:
    return entry["metric"] in metric_registry or bool(entry.get("hf_evaluate"))


def _names(entries: Iterable[Mapping[str, Any]]) -> list[Any]:
    return [entry["metric"] for entry in entries]


def _ours(
    chosen: Sequence[Mapping[str, Any]], catalog: Mapping[str, Any], core: Iterable[str], options: Options
) -> list[str]:
    """Return our metrics among those chosen, or the core ones, and those that the options add."""
    plain = [name for name in _names(chosen) if name in catalog] or list(core)
    return [*plain, *(name for name in options.metrics if name not in plain)]


def _others(
    chosen: Sequence[Mapping[str, Any]], catalog: Mapping[str, Any], stock: Mapping[str, Any], output_type: str
) -> list[Mapping[str, Any]]:
    """Return the metrics of the harness among those chosen, or those of the stock task, or the harness's defaults."""
    defaults = [{"metric": metric} for metric in DEFAULT_METRIC_REGISTRY[output_type]]
    return [entry for entry in chosen if entry["metric"] not in catalog] or list(stock.get("metric_list") or defaults)


def _entry(name: str, higher_is_better: bool | None, aggregation: str | None = None) -> dict[str, Any]:
    return {"metric": name, "aggregation": aggregation or name, "higher_is_better": higher_is_better}


def _complete(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give the harness's metrics the aggregation and direction that it would take by itself, with a warning."""
    names = {get_aggregation(name): name for name in aggregation_registry}
    return [
        {
            "aggregation": names[get_metric_aggregation(entry["metric"])],
            "higher_is_better": is_higher_better(entry["metric"]),
            **entry,
        }
        if entry["metric"] in metric_agg_registry
        else dict(entry)
        for entry in entries
    ]
