"""What chat servers give of a model's thought: fields beside the content, and counts of tokens that nobody sees."""

from collections.abc import Mapping
from typing import Any

import requests as http

from lm_eval_calibration.backends.api.capability import PROBE, choices_of, probe
from lm_eval_calibration.backends.api.written import FIELDS, content_of
from lm_eval_calibration.backends.thoughts import begins_with_thought


def reason_for_thinking(lm: Any) -> str | None:
    """Return why a chat server's model thinks before it answers, as its reply shows; "" if it doesn't.

    None where the server could not be asked.
    """
    settings = {"max_gen_toks": 16, "temperature": 1.0}
    message = {"role": "user", "content": PROBE}
    request = lm._create_payload([message], generate=True, gen_kwargs=settings, seed=lm._seed, eos=lm.eos_string)
    try:
        probed = probe(lm, request, ({},))
    except http.RequestException:  # where a run reads all answers from its cache, no server need be there
        return None
    if probed.options is None:
        return None
    choice: Mapping[str, Any] = next(iter(choices_of(probed.answer)), {})
    if reason := reason_in_answer(choice, probed.answer):
        return reason
    is_mute = not content_of(choice) and choice.get("finish_reason") == "length"
    return "thinks before it answers (it spent all tokens of a reply and wrote nothing)" if is_mute else ""


def reason_in_answer(choice: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    """Return what in an answer shows that the model thought before it; "" where nothing does."""
    field = next((name for name in FIELDS if (choice.get("message") or {}).get(name)), None)
    if field is not None:
        return f"thinks before it answers (the server returns {field})"
    if begins_with_thought(content_of(choice) or ""):
        return "thinks before it answers (its reply begins with a thought)"
    details = (answer.get("usage") or {}).get("completion_tokens_details") or {}
    if details.get("reasoning_tokens"):
        return f"thinks before it answers (the server counts {details['reasoning_tokens']} reasoning_tokens)"
    return ""
