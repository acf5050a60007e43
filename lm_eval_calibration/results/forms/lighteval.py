"""lighteval's details: ``details/<model>/<date>/details_<task>_<date>.parquet``, a row a doc.

Read as lighteval 0.11 to 0.13 writes them (columns doc, model_response, metric), and as older ones did, whose are the
details of the first Open LLM Leaderboard (example, choices, predictions, gold_index, metrics). The log-likelihoods are
those of the choices, and where the row's own ``acc`` is another than theirs, nothing is read.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lm_eval_calibration.records.display import counted
from lm_eval_calibration.results.forms.form import About, Form, NoConfidenceError, Sample, at, number, whole
from lm_eval_calibration.results.names import parse

_COLUMNS = ("doc", "model_response", "metric")
_OLD_COLUMNS = ("choices", "predictions", "example", "query", "gold_index", "gold", "specifics", "metrics", "acc")

Parts = tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]


class Lighteval(Form):
    """The details that ``--save-details`` writes."""

    name = "lighteval's details"

    def is_mine(self, path: Path, head: bytes) -> bool:
        """Whether a file is called as details are."""
        return path.name.startswith("details_") and path.suffix == ".parquet"

    def without_docs(self, path: Path, head: bytes) -> str:
        """Results alone have no docs."""
        is_results = re.match(rb'\s*\{\s*"config_general"', head) and parse(path).is_results
        return "results of lighteval; its docs are in details_*.parquet, which --save-details writes" * bool(is_results)

    def about(self, path: Path) -> About:
        """Return model and task by folder and name."""
        name, parts = parse(path), path.resolve().parts[:-1]
        above = [part for part in parts if part.replace(":", "-") != name.time]
        if "details" in above:
            model = "/".join(above[len(above) - above[::-1].index("details") :])
        else:
            model = re.sub(r"^details_(.*?)(_private)?$", r"\1", above[-1]).replace("__", "/")
        return About(model, [name.stem.removeprefix("details_")], name.time)

    def samples(self, path: Path, task: str) -> Iterator[Sample]:
        """Yield the docs; raise ValueError naming the row."""
        try:
            file = pq.ParquetFile(path)
            names = file.schema_arrow.names
            known, needed = (_COLUMNS, _COLUMNS) if "doc" in names else (_OLD_COLUMNS, _OLD_COLUMNS[:2])
            if missing := sorted(set(needed) - set(names)):
                raise ValueError(f"{path}: no column {missing[0]!r}: not as lighteval writes details")
            parts = file.iter_batches(1024, columns=[name for name in names if name in known])
            for i, row in enumerate(row for part in parts for row in part.to_pylist()):
                with at(f"{path}, row {i + 1}", TypeError):
                    yield self._sample(task, i, *_parts(row))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path}: {error}") from error

    def _sample(self, task: str, row: int, doc: Mapping[str, Any], said: Mapping[str, Any], metric: Any) -> Sample:
        choices, k = list(doc.get("choices") or ()), len(doc.get("choices") or ())
        logs = [number("logprobs", value) for value in said.get("logprobs") or ()]
        if "GENERATIVE" in (doc.get("sampling_methods") or ()) or k < 2 or len(logs) not in (k, 2 * k):
            raise NoConfidenceError(
                f"{counted(len(logs), what='logprobs')} of {counted(k, what='choices')}: not multiple choice"
            )
        logs = logs[:k]  # behind them those without a prompt
        gold = _gold(doc.get("gold_index"), k)
        own, found = metric.get("acc"), int(gold == int(np.argmax(logs)))
        if own is not None and number("acc", own) != found:
            raise ValueError(f"acc is {own}, but by logprobs and gold_index it is {found}")
        query = doc.get("query")
        line = {
            "doc": {"query": query, **(doc.get("specific") or {})},
            "target": choices[gold],
            "arguments": [[query, choice] for choice in choices],
        }
        return self.sample(task, row, [query, choices], {"log_likelihoods": logs, "gold": gold}, line)


def _parts(row: Mapping[str, Any]) -> Parts:
    """Doc, response and metrics of a row; old ones have each of their fields as a column."""
    if "doc" in row:
        doc, said, metric = (row[name] or {} for name in _COLUMNS)
        return doc, said, metric
    gold = row.get("gold") if row.get("gold_index") is None else row["gold_index"]
    doc = {"query": row.get("example", row.get("query")), "choices": row["choices"], "gold_index": gold}
    # Of each choice its log-likelihood, with or without whether it is the greedy continuation; of generation texts.
    said = [one[0] if isinstance(one, list) else one for one in row["predictions"] or () if not isinstance(one, str)]
    return {**doc, "specific": row.get("specifics")}, {"logprobs": said}, row.get("metrics") or row


def _gold(value: Any, k: int) -> int:
    golds = value if isinstance(value, list) else [value]
    if len(golds) != 1:
        raise NoConfidenceError(f"gold_index is {golds}: several gold answers can't be calibrated")
    gold = whole("gold_index", golds[0])
    if not 0 <= gold < k:
        raise ValueError(f"gold_index is {gold}, and there are {k} choices")
    return gold


FORM = Lighteval()
