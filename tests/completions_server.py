"""A real server of the completions protocol on loopback, for a small model: echo, log-probabilities, and its faults."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch


@dataclass
class Manners:
    """How the server answers.

    Attributes:
        most: log-probabilities it grants; more are refused with 400.
        ids: whether it grants tokens as ids; else refused with 400 (None: the flag is ignored).
        shifted: each row is the distribution after its token, as a popular server has it for models without BOS.
        faults: what to do with the next requests for log-probabilities: "500", "cut" (JSON), "few", "nan", "none".
    """

    most: int = 20
    ids: bool | None = True
    shifted: bool = False
    faults: list[str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def completions_server(model: Any, tokenizer: Any, manners: Manners) -> Iterator[str]:
    """Serve until the context ends; gives the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            manners.asked.append(asked)
            status, body = respond(model, tokenizer, manners, asked)
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


def respond(model: Any, tokenizer: Any, manners: Manners, asked: dict[str, Any]) -> tuple[int, bytes]:
    if "logprobs" not in asked:  # to write, not to score
        return 200, json.dumps({"choices": [{"text": "", "index": i} for i, _ in enumerate(asked["prompt"])]}).encode()
    ids = bool(asked.get("return_tokens_as_token_ids"))
    if asked["logprobs"] > manners.most or (ids and manners.ids is False):
        return 400, b'{"error": "not granted"}'
    is_probe = len(manners.asked) == 1
    fault = manners.faults.pop(0) if manners.faults and not is_probe else ""
    if fault == "500":
        return 500, b"busy"
    choices = [echo(model, tokenizer, manners, prompt, asked) for prompt in asked["prompt"]]
    for index, choice in enumerate(choices):
        found = choice["logprobs"]
        if fault == "few":
            found["token_logprobs"] = found["token_logprobs"][:-3]
        if fault == "nan":
            found["token_logprobs"][-2] = float("nan")
        if fault == "none":
            choice["logprobs"] = None
        choice["index"] = index
    body = json.dumps({"choices": choices}).encode()
    return 200, body[:-20] if fault == "cut" else body


def echo(model: Any, tokenizer: Any, manners: Manners, prompt: list[int], asked: dict[str, Any]) -> dict[str, Any]:
    with torch.no_grad():
        rows = model(torch.tensor([prompt])).logits[0].double().log_softmax(-1)
    tokens = [*prompt, int(rows[-1].argmax())]
    named, k = asked.get("return_tokens_as_token_ids") and manners.ids is True, asked["logprobs"]
    names = [f"token_id:{token}" if named else tokenizer.decode([token]) for token in range(rows.shape[-1])]
    log_probs: list[float | None] = [None]
    tops: list[dict[str, float] | None] = [None]
    for i in range(1, len(tokens)):
        row = rows[min(i, len(rows) - 1) if manners.shifted else i - 1]
        log_probs.append(float(row[tokens[i]]))
        best = [int(token) for token in row.topk(k).indices]
        tops.append({names[token]: float(row[token]) for token in dict.fromkeys([tokens[i], *reversed(best)])})
    found = {"tokens": [names[t] for t in tokens], "token_logprobs": log_probs, "top_logprobs": tops}
    return {"text": "", "logprobs": found}
