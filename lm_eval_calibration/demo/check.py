"""``lm-eval-calibration check``: a few docs through a backend and through a reference, and where the two differ most.

What people run when two backends disagree, or before they believe one: same weights, same docs, same numbers?
"""

import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from sklearn.exceptions import UndefinedMetricWarning

from lm_eval_calibration import metrics
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records import RECORD_KEY, ChoicesRecord, Columns, Record, read_records

AGREE = {"float32": 1e-3, "float16": 0.2, "bfloat16": 1.0}
"""Largest difference of a choice's log-likelihood between backends that is mere rounding, in nats, by dtype.

About twice what was seen in half precision: SmolLM2-135M over 60 questions against float32, and against itself with
other batches and another attention, differed by up to 0.086 in float16 and 0.54 in bfloat16. A backend that is wrong by
one position is wrong by several nats."""


class Difference(NamedTuple):
    """One line of the outcome.

    Attributes:
        name: what is compared.
        backend: its value with the backend; None where the difference is the largest one over docs.
        reference: its value with the reference; None likewise.
        difference: absolute difference.
        location: the doc (and choice) with the largest difference.
    """

    name: str
    backend: float | None
    reference: float | None
    difference: float
    location: str = ""


class Outcome(NamedTuple):
    """What a check found.

    Attributes:
        n_docs: docs compared.
        differences: log-likelihood first.
        changed_answers: docs that the two answer differently.
        close_calls: how many of these have two best choices that are closer than twice the largest difference.
        suspect: what is wrong with the backend's numbers by themselves; "" for nothing.
        dtype: the coarser one of the two, as :data:`AGREE` has it.
    """

    n_docs: int
    differences: tuple[Difference, ...]
    changed_answers: tuple[str, ...]
    close_calls: int
    suspect: str
    dtype: str = "float32"

    @property
    def agrees(self) -> bool:
        """Whether the log-likelihoods differ by rounding only, and no answer but for that."""
        small = self.differences[0].difference <= AGREE[self.dtype]
        return small and not self.suspect and len(self.changed_answers) == self.close_calls


def compare(backend: Sequence[ChoicesRecord], reference: Sequence[ChoicesRecord], n_bins: int = 10) -> Outcome:
    """Compare records of the same docs.

    Raises:
        UserError: the docs or their prompts differ.
    """
    others = {(record.task, record.doc_hash): record for record in reference}
    pairs = [(r, others[r.task, r.doc_hash]) for r in backend if (r.task, r.doc_hash) in others]
    if not pairs or len(pairs) < len(backend):
        raise UserError(f"{len(backend) - len(pairs)} of {len(backend)} docs are not in the reference")
    for ours, other in pairs:
        if ours.prompt_hash != other.prompt_hash:
            raise UserError(f"{_location(ours)} has a different prompt in the reference")
    gaps = [
        (0.0 if a == b else abs(a - b), f"{_location(ours)} choice {k}")
        for ours, other in pairs
        for k, (a, b) in enumerate(zip(ours.log_likelihoods, other.log_likelihoods, strict=True))
    ]
    largest, location = max(gaps)
    confidence, doc = max((abs((a.confidence or 0) - (b.confidence or 0)), _location(a)) for a, b in pairs)
    unequal = [(ours, other) for ours, other in pairs if ours.answer != other.answer]
    return Outcome(
        n_docs=len(pairs),
        differences=(
            Difference("log-likelihood", None, None, largest, location),
            Difference("confidence", None, None, confidence, doc),
            *_metrics([a for a, _ in pairs], [b for _, b in pairs], n_bins),
        ),
        changed_answers=tuple(_location(ours) for ours, _ in unequal),
        close_calls=sum(_margin(other) <= 2 * largest for _, other in unequal),
        suspect=next((str(r.certificate["suspect"]) for r in backend if r.certificate.get("suspect")), ""),
        dtype=_coarsest([*backend, *reference]),
    )


def _coarsest(records: Iterable[ChoicesRecord]) -> str:
    """Return the dtype with the largest bound; servers don't say theirs, and are held to the reference's."""
    dtypes = {str(record.certificate.get("dtype", "")).removeprefix("torch.") for record in records}
    return max(dtypes.intersection(AGREE), key=AGREE.__getitem__, default="float32")


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


def _location(record: Record) -> str:
    return f"{record.task} doc {record.doc_id}"


def run_backend(model: str, model_args: str, tasks: str | None, limit: int) -> list[ChoicesRecord]:
    """Run a backend of the harness on a few docs; return their records.

    Args:
        model: as ``--model``.
        model_args: as ``--model_args``.
        tasks: calibrated tasks, separated by commas; None for the demo's quiz, which needs no data set.
        limit: about how many docs of all tasks together.

    Raises:
        UserError: tasks other than calibrated multiple choice.
    """
    from lm_eval import simple_evaluate

    from lm_eval_calibration.demo.quiz import PARTS, quiz_group
    from lm_eval_calibration.harness.command import DEVICE
    from lm_eval_calibration.tasks import CalibrationTaskManager

    names = None if tasks is None else tasks.split(",")
    results = simple_evaluate(
        model=model,
        model_args=model_args,
        device=None if "device=" in model_args else DEVICE,
        tasks=names or [quiz_group()],
        task_manager=CalibrationTaskManager(include_defaults=names is not None),
        limit=math.ceil(limit / (len(names) if names else len(PARTS))),
        log_samples=True,
        bootstrap_iters=0,
    )
    records = [
        Record.from_dict(sample[RECORD_KEY])
        for samples in results["samples"].values()
        for sample in samples
        if RECORD_KEY in sample
    ]
    choices = [record for record in records if isinstance(record, ChoicesRecord)]
    if len(choices) < len(records) or not records:
        raise UserError(f"{tasks}: check compares log-likelihoods of choices: name calibrated multiple-choice tasks")
    return choices


def reference_records(
    reference: str, reference_args: str | None, model_args: str, tasks: str | None, limit: int
) -> list[ChoicesRecord]:
    """Return the records to compare with: those of an earlier run's files, or of a backend that is run now.

    Args:
        reference: a samples file, a folder that holds some, or a backend as ``--model``.
        reference_args: arguments of that backend; None takes ``pretrained`` and ``dtype`` from ``model_args``.
        model_args: those of the backend that is checked.
        tasks: as in :func:`run_backend`.
        limit: as in :func:`run_backend`.

    Raises:
        UserError: a file can't be read, or nothing names the reference's weights.
    """
    if (path := Path(reference)).exists():
        files = sorted(path.rglob("samples_*.jsonl")) if path.is_dir() else [path]
        try:
            records = [record for file in files for record in read_records(file)]
            return [record for record in records if isinstance(record, ChoicesRecord)]
        except ValueError as error:
            raise UserError(str(error)) from error
    shared = [pair for pair in model_args.split(",") if pair.partition("=")[0] in ("pretrained", "dtype")]
    if reference_args is None and not shared:
        raise UserError("name the reference's weights: --reference_args pretrained=DIR")
    return run_backend(reference, reference_args or ",".join(shared), tasks, limit)


def rows(outcome: Outcome) -> list[tuple[str, str, str, str, str]]:
    """Return the outcome as the rows of a table: name, backend, reference, difference, location."""

    def cell(value: float | None) -> str:
        return "" if value is None else f"{value:.4f}"

    return [
        (d.name, cell(d.backend), cell(d.reference), f"{d.difference:.2g}", d.location) for d in outcome.differences
    ]


def verdict(outcome: Outcome) -> str:
    """Return a sentence: can the backend be believed?"""
    if outcome.suspect:
        return outcome.suspect
    answers = f"{len(outcome.changed_answers)} of {outcome.n_docs} answers differ"
    if outcome.changed_answers:
        answers += f" ({outcome.close_calls} of them close calls; first {outcome.changed_answers[0]})"
    largest = outcome.differences[0].difference
    agree = "they agree" if outcome.agrees else "THEY DISAGREE"
    rounding = f"rounding is {AGREE[outcome.dtype]:g} or less in {outcome.dtype}"
    return f"{agree}: log-likelihoods differ by at most {largest:.2g} nats ({rounding}); {answers}"
