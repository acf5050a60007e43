"""``lm-eval-calibration check``: a few docs through a backend and through a reference, and where the two differ most.

What people run when two backends disagree, or before they believe one: same weights, same docs, same numbers?
"""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sklearn.exceptions import UndefinedMetricWarning

from lm_eval_calibration import metrics
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records import RECORD_KEY, ChoicesRecord, Columns, Record, read_records

AGREE = 1e-3
"""Largest difference of a choice's log-likelihood between backends in float32 that is mere rounding, in nats."""


class Difference(NamedTuple):
    """One line of the outcome.

    Attributes:
        name: what is compared.
        backend: its value there; "" for a largest difference over docs.
        reference: its value there.
        difference: absolute difference, or the largest of all docs.
        where: the doc (and choice) of the largest one.
    """

    name: str
    backend: float | None
    reference: float | None
    difference: float
    where: str = ""


class Outcome(NamedTuple):
    """What a check found.

    Attributes:
        n_docs: docs compared.
        differences: log-likelihood first.
        other_answers: docs that the two answer differently.
        close_calls: those of them whose two best choices are closer than twice the largest difference.
        suspect: what is wrong with the backend's numbers by themselves; "" for nothing.
    """

    n_docs: int
    differences: tuple[Difference, ...]
    other_answers: tuple[str, ...]
    close_calls: int
    suspect: str

    @property
    def agrees(self) -> bool:
        """Whether the log-likelihoods differ by rounding only, and no answer but for that."""
        small = self.differences[0].difference <= AGREE
        return small and not self.suspect and len(self.other_answers) == self.close_calls


def compare(backend: Sequence[ChoicesRecord], reference: Sequence[ChoicesRecord], n_bins: int = 10) -> Outcome:
    """Compare the same docs' records.

    Raises:
        UserError: they are not the same docs, or were asked otherwise.
    """
    others = {(record.task, record.doc_hash): record for record in reference}
    pairs = [(r, others[r.task, r.doc_hash]) for r in backend if (r.task, r.doc_hash) in others]
    if not pairs or len(pairs) < len(backend):
        raise UserError(f"{len(backend) - len(pairs)} of {len(backend)} docs are not in the reference")
    if unlike := [ours for ours, other in pairs if ours.prompt_hash != other.prompt_hash]:
        raise UserError(f"{_place(unlike[0])} was asked with another prompt in the reference")
    gaps = [
        (0.0 if a == b else abs(a - b), f"{_place(ours)} choice {k}")
        for ours, other in pairs
        for k, (a, b) in enumerate(zip(ours.log_likelihoods, other.log_likelihoods, strict=True))
    ]
    largest, where = max(gaps)
    confidence, doc = max((abs((a.confidence or 0) - (b.confidence or 0)), _place(a)) for a, b in pairs)
    unequal = [(ours, other) for ours, other in pairs if ours.answer != other.answer]
    return Outcome(
        n_docs=len(pairs),
        differences=(
            Difference("log-likelihood", None, None, largest, where),
            Difference("confidence", None, None, confidence, doc),
            *_metrics([a for a, _ in pairs], [b for _, b in pairs], n_bins),
        ),
        other_answers=tuple(_place(ours) for ours, _ in unequal),
        close_calls=sum(_margin(other) <= 2 * largest for _, other in unequal),
        suspect=next((str(r.certificate["suspect"]) for r in backend if r.certificate.get("suspect")), ""),
    )


def _metrics(backend: Sequence[ChoicesRecord], reference: Sequence[ChoicesRecord], n_bins: int) -> Iterable[Difference]:
    """Compare the core metrics that both have."""
    columns = [Columns.of(records, n_bins) for records in (backend, reference)]
    for name in metrics.CORE:
        metric = metrics.CATALOG[name]
        options = {"n_bins": n_bins} if metric.takes_n_bins else {}
        try:
            with warnings.catch_warnings():  # few docs are often all right or all wrong
                warnings.simplefilter("ignore", UndefinedMetricWarning)
                a, b = (metric.value(*of_run.arrays(metric.kind), **options) for of_run in columns)
        except ValueError:  # no token distributions, or too few of their entries
            continue
        if not math.isnan(a) and not math.isnan(b):
            yield Difference(name, a, b, abs(a - b))


def _margin(record: ChoicesRecord) -> float:
    second, best = sorted(record.log_likelihoods)[-2:] if len(record.log_likelihoods) > 1 else (-math.inf, 0.0)
    return best - second


def _place(record: Record) -> str:
    return f"{record.task} doc {record.doc_id}"


def ask(
    model: str, model_args: str | Mapping[str, Any], tasks: str | None, limit: int, **options: Any
) -> list[ChoicesRecord]:
    """Run a backend of the harness on a few docs; return their records.

    Args:
        model: as ``--model``.
        model_args: as ``--model_args``.
        tasks: calibrated tasks, separated by commas; None asks the demo's quiz, which needs no data set.
        limit: docs of all tasks together, about.
        **options: of the harness's ``simple_evaluate``.
    """
    from lm_eval import simple_evaluate

    from lm_eval_calibration.demo.quiz import PARTS, quiz_group
    from lm_eval_calibration.tasks import CalibrationTaskManager

    names = None if tasks is None else tasks.split(",")
    results = simple_evaluate(
        model=model,
        model_args=model_args if isinstance(model_args, str) else dict(model_args),
        tasks=names or [quiz_group()],
        task_manager=CalibrationTaskManager(include_defaults=names is not None),
        limit=math.ceil(limit / (len(names) if names else len(PARTS))),
        log_samples=True,
        bootstrap_iters=0,
        **options,
    )
    return _choices(
        [
            Record.from_dict(sample[RECORD_KEY])
            for samples in results["samples"].values()
            for sample in samples
            if RECORD_KEY in sample
        ],
        str(tasks),
    )


def read_reference(path: Path) -> list[ChoicesRecord]:
    """Read the records of an earlier run's samples file, or of all such files in a folder."""
    files = sorted(path.rglob("samples_*.jsonl")) if path.is_dir() else [path]
    try:
        records = [record for file in files for record in read_records(file)]
    except ValueError as error:
        raise UserError(str(error)) from error
    return [record for record in records if isinstance(record, ChoicesRecord)]


def _choices(records: Sequence[Record], tasks: str) -> list[ChoicesRecord]:
    choices = [record for record in records if isinstance(record, ChoicesRecord)]
    if len(choices) < len(records) or not records:
        raise UserError(f"{tasks}: check compares log-likelihoods of choices: name calibrated multiple-choice tasks")
    return choices


def lines(outcome: Outcome) -> list[tuple[str, str, str, str, str]]:
    """Return the outcome as the rows of a table: name, backend, reference, difference, where."""
    return [
        (d.name, _number(d.backend), _number(d.reference), f"{d.difference:.2g}", d.where) for d in outcome.differences
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def verdict(outcome: Outcome) -> str:
    """Say in a sentence whether the backend can be believed."""
    if outcome.suspect:
        return outcome.suspect
    answers = f"{len(outcome.other_answers)} of {outcome.n_docs} answers differ"
    if outcome.other_answers:
        answers += f" ({outcome.close_calls} of them close calls; first {outcome.other_answers[0]})"
    largest = outcome.differences[0].difference
    agree = "they agree" if outcome.agrees else "THEY DISAGREE"
    return f"{agree}: log-likelihoods differ by at most {largest:.2g} nats (rounding is {AGREE:g} or less); {answers}"
