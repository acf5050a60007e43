"""The harness's task, with errors that name file, doc and field, before any model runs."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lm_eval.api.task import ConfigurableTask

from lm_eval_calibration.errors import TaskError, nearest
from lm_eval_calibration.tasks.configuration import Configuration


class CheckedTask(ConfigurableTask):  # type: ignore[misc]
    """A task whose docs are looked at as its requests are built.

    A gold label outside its choices is an error where a user's own file describes the docs. The harness's own tasks
    have some that nobody can mend: those count in acc as they do there.
    """

    def __init__(self, calibration: Configuration) -> None:
        self.calibration = calibration
        try:
            super().__init__(config=calibration.full)
        except TaskError:
            raise
        except Exception as error:  # the harness looks at the splits and at the first doc
            raise TaskError(self._what_is_wrong(error)) from error
        self._check_columns()
        self.check(self.task_docs[0])

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Load the data set; say what to do where it can't be reached."""
        try:
            super().download(dataset_kwargs, **kwargs)
        except Exception as error:  # a loader may raise anything
            subset = f" ({self.DATASET_NAME})" if self.DATASET_NAME else ""
            files = (self.config.dataset_kwargs or {}).get("data_files")
            hint = (
                f"Its data_files are {files}, as seen from the current directory."
                if files
                else "Without network, run once with it (the copy is cached) or from a folder that holds "
                f"{self.DATASET_PATH}/"
            )
            reason = f"{error!r}, {error.__cause__!r}" if error.__cause__ else repr(error)
            raise TaskError(
                f"{self.calibration.where}: the data set {self.DATASET_PATH}{subset} can't be loaded: {reason}. {hint}"
            ) from error

    def _what_is_wrong(self, error: Exception) -> str:
        """Explain why the harness could not build the task."""
        where, dataset = self.calibration.where, getattr(self, "dataset", None)
        for key in ("test_split", "validation_split", "fewshot_split", "training_split"):
            split = self.calibration.full.get(key)
            if dataset is not None and split is not None and split not in dataset:
                return f"{where}: {key} is {split!r}{nearest(split, dataset)}; the splits are {', '.join(dataset)}"
        if dataset is not None and not len(self.eval_docs):
            split = self.config.test_split or self.config.validation_split
            return f"{where}: the split {split!r} that is evaluated has no docs"
        is_built = hasattr(self, "multiple_target")
        if is_built and (problem := self._problem(self.eval_docs[0], labels_too=True)):
            return f"{where}, doc 0: {problem}"
        return f"{where}: {error!r}"

    @abstractmethod
    def _problem(self, doc: dict[str, Any], *, labels_too: bool) -> str | None:
        """Return why a doc can't be used, or not with its label where that matters; None where it can."""

    def _check_columns(self) -> None:
        """Refuse the misspelt name of a column: the harness would take it for the prompt itself."""
        for field in ("doc_to_text", "doc_to_target"):
            value = self.calibration.full[field]
            is_word = isinstance(value, str) and value.isidentifier()
            if is_word and value not in self.features and value not in self._gold_texts():
                raise TaskError(
                    f"{self.calibration.where}: {field} is {value!r}{nearest(value, self.features)}; the columns are "
                    f"{', '.join(self.features)}, and templates have {{{{...}}}}"
                )

    def _gold_texts(self) -> Sequence[str]:
        """Return the words that may stand for a gold choice."""
        return ()

    @contextmanager
    def _naming(self, field: str, doc: Any) -> Iterator[None]:
        """Let an error in a field's template or function name file, doc and field."""
        try:
            yield
        except TaskError:
            raise
        except Exception as error:
            value = self.calibration.full.get(field)
            shown = getattr(value, "__name__", None) or repr(value)
            columns = list(doc) if isinstance(doc, Mapping) else []
            near = nearest(value, columns) if isinstance(value, str) and value.isidentifier() else ""
            listed = f"; the columns are {', '.join(columns)}" if columns else ""
            raise TaskError(
                f"{self.location_of(doc)}: {field} ({shown}{near}) fails: {error!r}{listed}",
                ids=f"{self.ids_of(doc)}, {field}",
            ) from error

    def location_of(self, doc: Any) -> str:
        """Return file, task and number of a doc, for an error: the docs are searched."""
        return f"{self.calibration.where}, {self._which(doc)}"

    def ids_of(self, doc: Any) -> str:
        """Return task and number of a doc, for an error that names no text."""
        return f"task {self.calibration.full['task']}, {self._which(doc)}"

    def _which(self, doc: Any) -> str:
        docs: Iterable[Any] = self.eval_docs
        number = next((i for i, other in enumerate(docs) if other == doc), None)
        return "a few-shot example" if number is None else f"doc {number}"

    def fewshot_context(self, doc: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the prompt of a doc with its few-shot examples, the doc checked first."""
        self.check(doc)
        try:
            return super().fewshot_context(doc, *args, **kwargs)
        except TaskError:
            raise
        except Exception as error:
            raise TaskError(
                f"{self.location_of(doc)}: its prompt can't be built: {error!r}. Look at the description and at the "
                "few-shot examples: their texts, their gold labels, and whether there are enough of them",
                ids=f"{self.ids_of(doc)}, its prompt",
            ) from error

    def doc_to_text(self, doc: Any, doc_to_text: Any = None) -> Any:
        """Return the prompt of a doc (multiple inputs: the index of the right one)."""
        with self._naming("doc_to_text", doc):
            return super().doc_to_text(doc, doc_to_text)

    def doc_to_target(self, doc: Any, doc_to_target: Any = None) -> Any:
        """Return the gold choice of a doc, by index or by text (multiple inputs: the continuation)."""
        with self._naming("doc_to_target", doc):
            return super().doc_to_target(doc, doc_to_target)

    def doc_to_choice(self, doc: Any, doc_to_choice: Any = None) -> Any:
        """Return the choices of a doc."""
        with self._naming("doc_to_choice", doc):
            return super().doc_to_choice(doc, doc_to_choice)

    def check(self, doc: dict[str, Any]) -> None:
        """Raise TaskError if a doc can't be used; it names all docs that can't."""
        labels_too = self.calibration.is_users_file
        if not self._problem(doc, labels_too=labels_too):
            return
        problems = {i: self._problem(other, labels_too=labels_too) for i, other in enumerate(self.eval_docs)}
        docs = [i for i, problem in problems.items() if problem]
        others = f" (and docs {', '.join(map(str, docs[1:6]))}{', ...' if len(docs) > 6 else ''})" if docs[1:] else ""
        raise TaskError(
            f"{self.calibration.where}, doc {docs[0]}{others}: {problems[docs[0]]}",
            ids=f"task {self.calibration.full['task']}, doc {docs[0]}{others}",
        )
