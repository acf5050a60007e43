"""A generation task: what the model writes, how sure of its tokens it is, and whether the answer is right."""

from typing import Any

from lm_eval_calibration.tasks.generated_answers import GeneratedAnswerTask


class GenerationTask(GeneratedAnswerTask):
    """A ``generate_until`` task with calibration, scored by the stock task's own metric."""

    def _problem(self, doc: dict[str, Any], *, labels_too: bool) -> str | None:
        text = self.doc_to_text(doc)
        return None if isinstance(text, str) else f"doc_to_text gives {text!r}, not a text"
