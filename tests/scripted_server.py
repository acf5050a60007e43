"""A chat server of OpenAI's protocol on loopback that answers by a script: models that think, servers that lie."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def entries(pieces: Sequence[str], log_probs: Sequence[float] | float) -> dict[str, Any]:
    """The field ``logprobs`` of a choice."""
    values = [log_probs] * len(pieces) if isinstance(log_probs, int | float) else log_probs
    return {
        "content": [
            {"token": piece, "logprob": value, "top_logprobs": [{"token": piece, "logprob": value}]}
            for piece, value in zip(pieces, values, strict=True)
        ]
    }


@contextmanager
def scripted_server(script: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve until the context ends; gives the URL and the requests that came.

    ``script`` makes the response to a request, ``choices`` and perhaps ``usage``; ``{"refused": TEXT}`` is status 400.
    """
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.append(request)
            response = script(request)
            for index, choice in enumerate(response.get("choices", ())):
                choice.setdefault("index", index)
            body = json.dumps(response).encode()
            self.send_response(400 if "refused" in response else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/chat/completions", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
