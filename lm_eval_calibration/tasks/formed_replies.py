"""Tasks whose replies may have a form that a source of confidence sets: prompts ask for it, filters see its answer."""

from typing import Any

from lm_eval.api.task import ConfigurableTask

from lm_eval_calibration.errors import TaskError
from lm_eval_calibration.tasks.base import BaseTask
from lm_eval_calibration.tasks.confidences.registry import setting_form
from lm_eval_calibration.tasks.confidences.source import ConfidenceSource
from lm_eval_calibration.tasks.configuration import Configuration
from lm_eval_calibration.tasks.filtered_answers import FilterOfForms


class FormedReplyTask(BaseTask):
    """A task whose answers are written, in the form of a source where one sets a form, else as the stock task has them.

    Examples would have to show the form, with a confidence that nobody knows: there are none.
    """

    _filters: list[Any]

    def __init__(self, calibration: Configuration) -> None:
        super().__init__(calibration)
        if (source := self._form) is not None:
            self._filters = [FilterOfForms(ensemble, source) for ensemble in self._filters]

    @property
    def _form(self) -> ConfidenceSource | None:
        """The source that sets the form; None where replies are the stock task's."""
        return setting_form(self.calibration.options)

    def doc_to_text(self, doc: Any, doc_to_text: Any = None) -> Any:
        """Return the prompt of a doc, which asks for the form of a reply where a source sets one."""
        text = self._question(doc, doc_to_text)
        return text if self._form is None or not isinstance(text, str) else self._form.with_form(text)

    def _question(self, doc: Any, doc_to_text: Any) -> Any:
        """Return the prompt of a doc, without the form."""
        return super().doc_to_text(doc, doc_to_text)

    def build_all_requests(self, **kwargs: Any) -> None:
        """Build the requests; raise TaskError where examples are wanted that can't show the form."""
        if self._form is not None and self.config.num_fewshot:
            raise TaskError(
                f"{self.calibration.where}: num_fewshot is {self.config.num_fewshot}, but examples can't show the form "
                f"of {self._form.name}, since no confidence in their answers is known: run it zero-shot"
            )
        super().build_all_requests(**kwargs)

    def construct_requests(self, doc: dict[str, Any], ctx: Any, **kwargs: Any) -> list[Any]:
        """Return the stock task's request, which knows its form."""
        request = ConfigurableTask.construct_requests(self, doc, ctx, **kwargs)
        request.form = self._form and self._form.name
        return [request]

    def _check_cached_requests(self) -> None:
        for request in self._instances:
            if request.idx == 0 and getattr(request, "form", None) != (self._form and self._form.name):
                raise TaskError(
                    f"{self.task_name}: the cached requests were made with other options: run with --cache_requests "
                    "refresh"
                )
