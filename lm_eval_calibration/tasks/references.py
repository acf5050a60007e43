"""The reference whose tokens are scored beside what the model writes: which text it is, and where there is none."""

from types import SimpleNamespace
from typing import Any

from lm_eval.filters.extraction import RegexFilter
from lm_eval.utils import apply_template

from lm_eval_calibration.backends import can_score_texts
from lm_eval_calibration.backends.thinking import reason_for_thinking
from lm_eval_calibration.tasks.answer_spans import UNKNOWN
from lm_eval_calibration.tasks.filtered_answers import located_by

_DOCS = 10
"""References that are looked at."""


def reference_of(task: Any, doc: dict[str, Any]) -> str | None:
    """Return the text whose tokens are scored, delimiter included; None where the task has none."""
    template = task.options.reference
    if template is None:
        target = _target(task, doc)
        return f"{task.config.target_delimiter or ''}{target}" if isinstance(target, str) and target else ""
    if not template:
        return None
    return str(doc[template] if template in doc else apply_template(template, doc))


def reason_unscored(task: Any, lm: Any, chat_template: Any) -> str:
    """Return why the tokens of references are not scored in a run; "" where they are.

    A task whose filter takes the answer out of a longer text by a regex has the model reason before it answers. A
    reference that is the answer alone, or no reply in which the filter finds one, does not continue such a prompt: its
    probability says nothing. A whole solution does, such as gsm8k's. What the user names as the reference is scored.

    Args:
        task: a task that has references.
        lm: the backend; None outside a run.
        chat_template: of the run; None where prompts are plain text.
    """
    if lm is not None and not can_score_texts(lm):
        return "the backend can't score given texts"
    if task.options.reference is not None:
        return ""
    if reason := reason_for_thinking(lm, chat_template):
        return f"the model {reason}, so no reference continues its prompts"
    ensemble = task.scored_ensemble
    if _extracts(ensemble) and all(_is_no_reply(task, doc, ensemble) for doc in _some(task.task_docs)):
        return (
            f"the filter {ensemble.name} takes answers out of longer texts, and no reference is such a text "
            "(metadata.calibration.reference may name one)"
        )
    return ""


def _target(task: Any, doc: dict[str, Any]) -> Any:
    target = task.doc_to_target(doc)
    return (target[0] if target else "") if isinstance(target, list | tuple) else target


def _some(docs: Any) -> list[Any]:
    return [docs[i] for i in range(min(_DOCS, len(docs)))]


def _extracts(ensemble: Any) -> bool:
    return any(isinstance(make(), RegexFilter) for make in ensemble.filters)


def _is_no_reply(task: Any, doc: dict[str, Any], ensemble: Any) -> bool:
    """Whether a filter finds nothing in a reference, or nothing less than all of it."""
    target = _target(task, doc)
    if not isinstance(target, str):
        return True
    shown = SimpleNamespace(resps=[target], doc=doc, filtered_resps={})
    ensemble.apply([shown])
    found = shown.filtered_resps[ensemble.name]
    return not located_by(ensemble, target, doc, UNKNOWN).is_found or found in (target.strip(), [target.strip()])
