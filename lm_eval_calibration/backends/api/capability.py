"""Which options a server of OpenAI's protocol accepts, found out by one small request."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import requests as http

from lm_eval_calibration.backends.top_k import K

PROBE = "One and two"
"""The prompt of these requests."""

CHAT_TOP_OPTIONS = tuple({"logprobs": True, "top_logprobs": k} for k in (K, 10, 5))
"""What a chat server may accept where the most probable tokens are wanted, best first; with fewer tokens they are not
worth reading."""


class Probe(NamedTuple):
    """The result of a capability probe."""

    options: Mapping[str, Any] | None  # the first that the server accepted; None: none, or the probe was inconclusive
    answer: Mapping[str, Any]  # to the request with these
    refusal: str  # in the server's words, why it rejected earlier ones; "" where it accepted the first
    is_inconclusive: bool = False  # it failed, as the real requests may: the harness's retries are for that


def probe(lm: Any, request: Mapping[str, Any], choices: Sequence[Mapping[str, Any]]) -> Probe:
    """Send a small request of the kind to come with each of these options, best first, until the server accepts one."""
    refusal = ""
    for options in choices:
        how = {"headers": lm.header, "verify": lm.verify_certificate, "timeout": lm.timeout}
        response = http.post(lm.base_url, json={**request, **options}, **how)
        if response.ok:
            try:
                return Probe(options, response.json(), refusal)
            except ValueError:  # cut short
                return Probe(None, {}, "its answer is no JSON", is_inconclusive=True)
        refusal = f"{response.status_code} {response.text[:200]}"
        if response.status_code >= 500:
            return Probe(None, {}, refusal, is_inconclusive=True)
    return Probe(None, {}, refusal)


def choices_of(outputs: Any) -> list[Any]:
    """Return the choices of one or several responses, those of each response in the order of its prompts."""
    outputs = outputs if isinstance(outputs, list) else [outputs]
    return [c for o in outputs for c in sorted(o.get("choices") or (), key=lambda c: int(c.get("index", 0)))]
