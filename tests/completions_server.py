"""A real server of OpenAI's protocol on loopback, for a small model: echo, completions, chat, and its faults."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch


@dataclass
class Behaviour:
    """How the server answers, and what it received.

    Attributes:
        most: log-probabilities it grants; more are refused with 400.
        ids: whether it grants tokens as ids; else refused with 400 (None: the flag is ignored).
        shifted: each row is the distribution after its token, and the additional token is left out, as
            llama-cpp-python has it for models without BOS.
        faults: what to do with the next requests for log-probabilities: "500", "cut" (JSON), "few", "nan", "none",
            "slow" (five seconds).
        scales: whether log-probabilities of what it writes are those that the request's temperature leaves.
        drawn: the token that it draws where one is requested at temperature 1; None: the most probable.
    """

    most: int = 20
    ids: bool | None = True
    shifted: bool = False
    scales: bool = False
    drawn: int | None = None
    faults: list[str] = field(default_factory=list)
    received: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def completions_server(model: Any, tokenizer: Any, behaviour: Behaviour) -> Iterator[str]:
    """Serve until the context ends; gives the URL of the completions (see :func:`chat_url`)."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            behaviour.received.append(request)
            status, body = respond(model, tokenizer, behaviour, request | {"is_chat": "chat" in self.path})
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/completions"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def chat_url(url: str) -> str:
    return url.replace("/v1/completions", "/v1/chat/completions")


def chat_prompt(messages: Any) -> str:
    """What the server makes of a chat: its template."""
    return "".join(f"{message['role'][0]}:{message['content']}\n" for message in messages) + "a:"


def respond(model: Any, tokenizer: Any, behaviour: Behaviour, request: dict[str, Any]) -> tuple[int, bytes]:
    ids = bool(request.get("return_tokens_as_token_ids"))
    most = max(int(request.get("logprobs", 0)), request.get("top_logprobs", 0))
    if most > behaviour.most or (ids and behaviour.ids is False):
        return 400, b'{"error": "not granted"}'
    is_probe = len(behaviour.received) == 1
    fault = behaviour.faults.pop(0) if behaviour.faults and most and not is_probe else ""
    if fault == "500":
        return 500, b"busy"
    if fault == "slow":
        time.sleep(5)
    if request.get("echo"):
        choices = [echo(model, tokenizer, behaviour, prompt, request) for prompt in request["prompt"]]
    elif request["is_chat"]:
        prompts = [tokenizer(chat_prompt(request["messages"]))["input_ids"]]
        choices = [in_chat(written(model, tokenizer, behaviour, prompt, request)) for prompt in prompts]
    else:
        choices = [written(model, tokenizer, behaviour, prompt, request) for prompt in request["prompt"]]
        for choice in choices:
            choice["logprobs"]["top_logprobs"] = list(map(dict, choice["logprobs"]["top_logprobs"]))
    for index, choice in enumerate(choices):
        if not request.get("logprobs"):
            choice["logprobs"] = None
        elif fault:
            spoil(choice, fault)
        choice["index"] = index
    body = json.dumps({"choices": choices}).encode()
    return 200, body[:-20] if fault == "cut" else body


def spoil(choice: dict[str, Any], fault: str) -> None:
    found = choice["logprobs"]
    if fault == "none":
        choice["logprobs"] = None
    elif fault == "few" and "content" in found:
        found["content"] = found["content"][1:]
    elif fault == "few":
        found["token_logprobs"] = found["token_logprobs"][:-3]
    elif fault == "nan" and "content" in found:
        for entry in found["content"]:
            for told in (entry, *entry["top_logprobs"]):
                told["logprob"] = float("nan")
    elif fault == "nan":
        found["token_logprobs"][-2] = float("nan")


def written(
    model: Any, tokenizer: Any, behaviour: Behaviour, prompt: list[int], request: dict[str, Any]
) -> dict[str, Any]:
    """Go on greedily."""
    tokens: list[int] = []
    log_probs, tops, text = [], [], ""
    k = request.get("top_logprobs") or int(request.get("logprobs") or 0)
    stop = [string for string in request.get("stop") or () if string]
    most = request.get("max_tokens") or request["max_completion_tokens"]
    while len(tokens) < most and not any(string in text for string in stop):
        with torch.no_grad():
            row = model(torch.tensor([[*prompt, *tokens]])).logits[0, -1].double().log_softmax(-1)
        token = int(row.argmax()) if behaviour.drawn is None or not request["temperature"] else behaviour.drawn
        best = {token: 0, **dict.fromkeys(map(int, row.topk(k).indices), 0)}
        told = (row / max(request["temperature"], 1e-6)).log_softmax(-1) if behaviour.scales else row
        tokens.append(token)
        log_probs.append(float(told[token]))
        tops.append([(tokenizer.decode([t]), float(told[t])) for t in list(best)[:k]])  # as vLLM: the last one is lost
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        if token == tokenizer.eos_token_id:
            break
    places = [text.find(string) for string in stop if string in text]
    found = {"tokens": [tokenizer.decode([t]) for t in tokens], "token_logprobs": log_probs, "top_logprobs": tops}
    return {"text": text[: min(places)] if places else text, "logprobs": found}


def in_chat(choice: dict[str, Any]) -> dict[str, Any]:
    """The same in the form of a chat's answer."""
    found = choice["logprobs"]
    content = [
        {"token": token, "logprob": value, "top_logprobs": [{"token": t, "logprob": v} for t, v in top]}
        for token, value, top in zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True)
    ]
    return {"message": {"role": "assistant", "content": choice["text"]}, "logprobs": {"content": content}}


def echo(
    model: Any, tokenizer: Any, behaviour: Behaviour, prompt: list[int], request: dict[str, Any]
) -> dict[str, Any]:
    with torch.no_grad():
        rows = model(torch.tensor([prompt])).logits[0].double().log_softmax(-1)
    tokens = prompt if behaviour.shifted else [*prompt, int(rows[-1].argmax())]
    named, k = request.get("return_tokens_as_token_ids") and behaviour.ids is True, request["logprobs"]
    names = [f"token_id:{token}" if named else tokenizer.decode([token]) for token in range(rows.shape[-1])]
    log_probs: list[float | None] = [None]
    tops: list[dict[str, float] | None] = [None]
    for i in range(1, len(tokens)):
        row = rows[i if behaviour.shifted else i - 1]
        log_probs.append(float(row[tokens[i]]))
        best = [int(token) for token in row.topk(k).indices]
        tops.append({names[token]: float(row[token]) for token in dict.fromkeys([tokens[i], *reversed(best)])})
    found = {"tokens": [names[t] for t in tokens], "token_logprobs": log_probs, "top_logprobs": tops}
    return {"text": "", "logprobs": found}
