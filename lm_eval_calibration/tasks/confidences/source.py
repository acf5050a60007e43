"""What every way of obtaining a confidence defines: one object, in one file of this package.

A source defines how its metrics are named, which option switches it on, which requests it adds, how replies become a
confidence, and what its metrics compute from a record. Tables, options, tasks and reports read the registry.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from lm_eval_calibration.metrics import CATALOG, GENERATION_CATALOG, Metric
from lm_eval_calibration.records import AnswerRecord
from lm_eval_calibration.tasks.confidences.option import Option
from lm_eval_calibration.tasks.confidences.table_rows import INTERVAL, NULL, TableMetric, trust_rows

Table = Literal["choices", "generation"]
"""Tables differ between docs whose choices are scored and docs whose answers are generated."""

CATALOGS: Mapping[str, Mapping[str, Metric]] = {"choices": CATALOG, "generation": GENERATION_CATALOG}


class ConfidenceSource:
    """A way of obtaining the confidence of an answer.

    Attributes:
        name: in records and registries; the names of its metrics end in ``_<name>``.
        tables: the tasks that it is for.
        option: the option that switches it on; None for a source that is always on.
        report_name: what ``lm-eval-calibration confidences`` calls it; None where that does not show it.
        single_rows: rows that are no metric's, such as a fitted number.
        means: rows that are means over docs, and whether higher is better.
        stock_metrics: metrics of the harness that stand beside its own.
        variant: options that the task name ``<task>_<name>_calibration`` stands for; None where there is no such name.
        writes_only: whether the model is only to write, and nothing scored: choices are then named in words.
        needs_named_choice: whether it is undefined where such a reply names none of the choices.
        sets_form: whether the model is to reply in a form of its own: prompts then ask for it, and filters are shown
            the answer in it.
        has_trust_rows: whether its metrics have rows for intervals and nulls.
        beside: the source without whose rows its own are not shown; None where they stand for themselves.
    """

    name: str
    tables: tuple[Table, ...] = ("choices", "generation")
    option: Option | None = None
    report_name: str | None = None
    single_rows: tuple[str, ...] = ()
    means: ClassVar[Mapping[str, bool]] = {}
    stock_metrics: tuple[str, ...] = ()
    variant: ClassVar[Mapping[str, Any] | None] = None
    writes_only: bool = False
    needs_named_choice: bool = False
    sets_form: bool = False
    has_trust_rows: bool = False
    beside: "ConfidenceSource | None" = None

    @property
    def suffix(self) -> str:
        """The end of its metrics' names."""
        return f"_{self.name}"

    # --- options and rows of the table -------------------------------------------------------------------------------

    def is_requested(self, options: Any) -> bool:
        """Whether the options (:class:`~lm_eval_calibration.tasks.options.Options`) switch it on."""
        return self.option is None or options[self.option.name] != self.option.default

    def metrics(self, table: Table) -> dict[str, Metric]:
        """Return the metrics that its confidences have, by their plain names."""
        return {name: metric for name, metric in CATALOGS[table].items() if metric.kind != "full_vocabulary"}

    def rows(self, table: Table) -> dict[str, TableMetric]:
        """Return its rows of a table by name."""
        metrics = {f"{name}{self.suffix}": metric for name, metric in self.metrics(table).items()}
        rows = {n: TableMetric(replace(metric, name=n), self, self.view) for n, metric in metrics.items()}
        return rows | (trust_rows(rows) if self.has_trust_rows else {})

    def shown(self, names: Sequence[str], options: Any, table: Table) -> list[str]:
        """Return the names of the rows that a table with these plain metrics shows."""
        rows = self.rows(table)
        shown = [f"{name}{self.suffix}" for name in names if f"{name}{self.suffix}" in rows]
        suffixes = [*(INTERVAL if options.intervals else ()), *(NULL if options.nulls else ())]
        return [*shown, *(name + suffix for suffix in suffixes for name in shown if name + suffix in rows)]

    def requested_means(self, options: Any) -> Mapping[str, bool]:
        """Return those of its means that the options add."""
        return self.means

    # --- records -----------------------------------------------------------------------------------------------------

    def view(self, records: Sequence[Any]) -> Iterable[Any]:
        """Return what its metrics compute from, made of records."""
        return records

    def is_in(self, record: Any) -> bool:
        """Whether a record holds its confidence, be it an undefined one."""
        return True

    def means_of(self, record: Any, options: Any) -> dict[str, float]:
        """Return a doc's values of its means."""
        return {}

    def left_out(self, record: Any) -> bool:
        """Whether a doc is in none of its metrics, since its confidence is undefined."""
        return False

    def left_out_of(self, records: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
        """Return the docs that are left out, by the warning about them: with {n}, {total} and {docs} in it."""
        if not self.left_out_message or not any(map(self.is_in, records)):
            return {}
        return {self.left_out_message: [record for record in records if self.left_out(record)]}

    left_out_message = ""
    """This warning."""

    # --- the form of a reply, for a source that sets one --------------------------------------------------------------

    def with_form(self, text: str) -> str:
        """Return a prompt that asks for the form."""
        return text

    def generation_settings(self, stock: Mapping[str, Any]) -> dict[str, Any]:
        """Return the stock task's settings, changed so that a reply of this form is not cut short."""
        return dict(stock)

    def answers_in(self, reply: str) -> tuple[str, ...]:
        """Return the answer in a reply as filters may be shown it, one at least; the next where one finds nothing."""
        return (reply,)

    def answer_start(self, reply: str) -> int:
        """Return where in a reply the first of :meth:`answers_in` begins."""
        return 0

    # --- a run -------------------------------------------------------------------------------------------------------

    def start(self, task: Any, lm: Any, chat_template: Any) -> Any:
        """Return the :class:`~.elicitation.Elicitation` of a run of a task; None where it adds no requests.

        Args:
            task: the calibrated task.
            lm: the run's backend; None outside a run.
            chat_template: makes a prompt of messages; None where prompts are plain text.
        """
        return None


class StatedSource(ConfidenceSource):
    """A confidence that the model states when it is questioned about its answer.

    Its metrics are those of one confidence a doc, whatever the docs are: ``ace`` has one class, and there is no
    ``brier_score``. Subclasses implement ``start``.
    """

    has_trust_rows = True

    def metrics(self, table: Table) -> dict[str, Metric]:
        """Return the metrics of one confidence a doc."""
        return {name: metric for name, metric in GENERATION_CATALOG.items() if metric.kind == "top_label"}

    def shown(self, names: Sequence[str], options: Any, table: Table) -> list[str]:
        """Return the rows beside these metrics, the Brier score of one confidence in place of that of all choices."""
        of_one_confidence = {m.in_place_of: name for name, m in GENERATION_CATALOG.items() if m.in_place_of}
        return super().shown(list(dict.fromkeys(of_one_confidence.get(n, n) for n in names)), options, table)

    def view(self, records: Sequence[Any]) -> Iterable[Any]:
        """Return the docs with the confidences that the model stated."""
        return (record.with_stated_confidence(self.name) for record in records)

    def is_in(self, record: Any) -> bool:
        """Whether the model was questioned."""
        return isinstance(record, AnswerRecord) and self.name in record.stated

    def left_out(self, record: Any) -> bool:
        """Whether its reply is no confidence."""
        return self.is_in(record) and record.stated[self.name].confidence is None
