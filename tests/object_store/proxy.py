"""An HTTP server between a client and a real S3 server: counts, refuses, cuts connections."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PASS, BUSY, RESET, CUT = "pass", "503", "reset", "cut"
_SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)
_ONE_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}

Fault = Callable[[str, str], str]
"""(method, path) → PASS; BUSY: answer 503 SlowDown; RESET: TCP reset instead of an answer; CUT:
half of the answer's body, then a reset."""


class Proxy(ThreadingHTTPServer):
    """Forwards to `127.0.0.1:port`; `requests` counts what came, by method."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = port
        self.fault: Fault = lambda method, path: PASS
        self.requests: Counter[str] = Counter()
        self.paths: list[tuple[str, str]] = []
        self.faults = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def judge(self, method: str, path: str) -> str:
        self.requests[method] += 1
        self.paths.append((method, path))
        verdict = self.fault(method, path)
        self.faults += verdict != PASS
        return verdict

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that ends is what this server is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # Otherwise each answer waits 40 ms for the client.
    server: Proxy

    def setup(self) -> None:
        super().setup()
        self._upstream = http.client.HTTPConnection("127.0.0.1", self.server.target)

    def finish(self) -> None:
        self._upstream.close()
        with suppress(OSError):
            super().finish()

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        verdict = self.server.judge(self.command, self.path)
        if verdict == RESET:
            self._reset()
        elif verdict == BUSY:
            self._answer(503, [("Content-Type", "application/xml")], _SLOW_DOWN)
        else:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _ONE_HOP}
            self._upstream.request(self.command, self.path, body, headers)
            found = self._upstream.getresponse()
            self._answer(found.status, found.getheaders(), found.read(), verdict == CUT)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _forward

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, cut: bool = False
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _ONE_HOP | {"content-length"}:
                self.send_header(name, value)
        lengths = [v for k, v in headers if k.lower() == "content-length"]
        length = lengths[0] if self.command == "HEAD" and lengths else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self._reset()

    def _reset(self) -> None:
        # A linger of no time makes close() send RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the counts are what is looked at."""


@contextmanager
def proxied(port: int) -> Iterator[Proxy]:
    """A running proxy before `127.0.0.1:port`."""
    proxy = Proxy(port)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()


def for_seconds(seconds: float, fault: str) -> Fault:
    """The fault from the first request on, for a while."""
    began: list[float] = []

    def judge(method: str, path: str) -> str:
        began.append(time.monotonic())
        return fault if began[-1] - began[0] < seconds else PASS

    return judge


def every(number: int, *faults: str) -> Fault:
    """The faults in turn, one for every so many requests."""
    count = iter(range(1, 1 << 40))

    def judge(method: str, path: str) -> str:
        found = next(count)
        return faults[found // number % len(faults)] if found % number == 0 else PASS

    return judge
