"""What a server of OpenAI's protocol grants, found out by asking it once."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import requests as http


class Grant(NamedTuple):
    """What came of asking.

    Attributes:
        options: the first that the server took; None where it took none, or could not say.
        answer: to the request with these.
        refused: in the server's words, why it took no earlier ones; "" where it took the first.
        is_unknown: whether it could not say: it failed, as the real requests may; the harness's retries are for that.
    """

    options: Mapping[str, Any] | None
    answer: Mapping[str, Any]
    refused: str
    is_unknown: bool = False


def first_granted(lm: Any, request: Mapping[str, Any], choices: Sequence[Mapping[str, Any]]) -> Grant:
    """Ask for less until the server agrees.

    Args:
        lm: the harness's backend, which knows address, header and patience.
        request: a small one of the kind to come.
        choices: options to ask for beside it, best first.
    """
    refused = ""
    for options in choices:
        response = http.post(
            lm.base_url,
            json={**request, **options},
            headers=lm.header,
            verify=lm.verify_certificate,
            timeout=lm.timeout,
        )
        if response.ok:
            try:
                return Grant(options, response.json(), refused)
            except ValueError:  # cut short
                return Grant(None, {}, "its answer is no JSON", is_unknown=True)
        refused = f"{response.status_code} {response.text[:200]}"
        if response.status_code >= 500:
            return Grant(None, {}, refused, is_unknown=True)
    return Grant(None, {}, refused)
