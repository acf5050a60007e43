"""A server on this machine alone: whoever doesn't know its token gets nothing."""

import hmac
import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.reports.view.pages import Pages

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
"""What a browser may call this machine: another name is a page elsewhere that was made to point here."""

HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def make_server(pages: Pages, port: int) -> tuple[ThreadingHTTPServer, str]:
    """Return a server that answers for these pages, and the address to open.

    Args:
        pages: to serve.
        port: of this machine; 0 for any that is free.

    Raises:
        UserError: the port can't be had.
    """
    token = secrets.token_urlsafe(16)
    handler = type("Handler", (_Handler,), {"pages": pages, "token": token})
    try:
        server = ThreadingHTTPServer((HOST, port), handler)
    except (OSError, OverflowError) as error:
        raise UserError(f"--port {port} can't be had: {error}") from error
    server.daemon_threads = True
    return server, f"http://{HOST}:{server.server_port}/{token}/"


class _Handler(BaseHTTPRequestHandler):
    pages: Pages
    token: str

    def do_GET(self) -> None:
        """Answer with a page, or with nothing to whoever doesn't know the token."""
        host = (self.headers.get("Host") or "").rpartition(":")[0]
        _, token, *rest = (self.path.partition("?")[0] + "/").split("/")
        if host not in NAMES or not hmac.compare_digest(token.encode(), self.token.encode()):
            self._send(HTTPStatus.FORBIDDEN, "This address lacks its token: open the one that the command printed.")
            return
        where = "/".join(rest).strip("/")
        if not where and not self.path.partition("?")[0].endswith("/"):
            self._send(HTTPStatus.NOT_FOUND, "The address ends in a slash.")
        elif where == "state" or where.startswith("state/"):
            names = where.removeprefix("state").strip("/")
            self._send(HTTPStatus.OK, self.pages.state(*names.split(",") if names else ()))
        elif not where:
            self._send(HTTPStatus.OK, self.pages.index(), "text/html")
        elif (page := self._report(where)) is not None:
            self._send(HTTPStatus.OK, page, "text/html")
        else:
            self._send(HTTPStatus.NOT_FOUND, "There is no such run.")

    def _report(self, where: str) -> str | None:
        """The report of a run, or of those that were ticked."""
        if where == "runs/side":
            names = parse_qs(self.path.partition("?")[2]).get("run", [])
            return self.pages.report(*names) if len(names) > 1 else None
        return self.pages.report(where.removeprefix("run/"))

    def _send(self, status: HTTPStatus, text: str, kind: str = "text/plain") -> None:
        content = text.encode("utf-8", "backslashreplace")
        self.send_response(status)
        for name, value in {
            **HEADERS,
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(content)),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing of each request: it would show the token."""
