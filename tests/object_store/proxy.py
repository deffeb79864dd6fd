"""An HTTP server between a client and a real S3 server: counts, refuses, cuts connections."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PASS, BUSY, DENIED, RESET = "pass", "503", "403", "reset"
LOST, CUT, SLOW, FAILED = "lost", "cut", "slow", "failed"
FIRST_OF_TWO, LAST_OF_TWO, AGAIN = "first of two", "last of two", "again"
CHANGES = {"PUT", "POST", "DELETE"}
_ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>%s</Message></Error>'
_REFUSALS = {
    BUSY: (503, _ERROR % ("SlowDown", "Please reduce your request rate.")),
    DENIED: (403, _ERROR % ("AccessDenied", "Access Denied")),
    FAILED: (200, _ERROR % ("InternalError", "We encountered an internal error.")),
}
_ONE_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}

Fault = Callable[[str, str], str]
"""(method, path) → one of these. Not carried out are BUSY, DENIED: answered by 503, 403; FAILED: by
200 with an error in the body, as S3 may answer a COPY; RESET: by a TCP reset. Carried out are PASS;
LOST: a reset instead of the answer; CUT: half of the answer's body, or of its head where it has
none, then a reset; SLOW: the answer comes after `Proxy.delay` seconds; FIRST_OF_TWO, LAST_OF_TWO:
carried out twice and answered by the first or the last answer; AGAIN: answered at once, and carried
out again before the last of `Proxy.after` changes that follow, or by `Proxy.repeat`."""

Request = tuple[str, str, bytes, dict[str, str]]
Answer = tuple[int, list[tuple[str, str]], bytes]


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
        self.delay, self.after = 1.0, 3
        self.repeated: list[tuple[str, str, int]] = []
        self._kept: list[tuple[int, Request]] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def judge(self, method: str, path: str) -> str:
        with self._lock:
            self.requests[method] += 1
            self.paths.append((method, path))
            verdict = self.fault(method, path)
            self.faults += verdict != PASS
        return verdict

    def keep(self, request: Request) -> None:
        """Carries a request out again later."""
        with self._lock:
            self._kept.append((self.after, request))

    def repeat(self, *, now: bool = True, backwards: bool = False) -> None:
        """Carries out again what was kept, or only what is due with one more change."""
        with self._lock:
            kept = [(0 if now else left - 1, request) for left, request in self._kept]
            self._kept = [(left, request) for left, request in kept if left]
        for left, request in kept[:: -1 if backwards else 1]:
            if not left:
                with closing(http.client.HTTPConnection("127.0.0.1", self.target)) as upstream:
                    status = carry_out(upstream, request)[0]
                self.repeated.append((*request[:2], status))

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
        if self.command in CHANGES:
            self.server.repeat(now=False)
        verdict = self.server.judge(self.command, self.path)
        if verdict == RESET:
            self._reset()
        elif verdict in _REFUSALS:
            status, text = _REFUSALS[verdict]
            self._answer(status, [("Content-Type", "application/xml")], text.encode())
        else:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _ONE_HOP}
            request = (self.command, self.path, body, headers)
            answer = carry_out(self._upstream, request)
            if verdict in (FIRST_OF_TWO, LAST_OF_TWO):
                second = carry_out(self._upstream, request)
                answer = second if verdict == LAST_OF_TWO else answer
            elif verdict == AGAIN:
                self.server.keep(request)
            elif verdict == SLOW:
                time.sleep(self.server.delay)
            if verdict == LOST:
                self._reset()
            else:
                self._answer(*answer, verdict == CUT)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _forward

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, cut: bool = False
    ) -> None:
        kept = [(k, v) for k, v in headers if k.lower() not in _ONE_HOP | {"content-length"}]
        lengths = [v for k, v in headers if k.lower() == "content-length"]
        length = lengths[0] if self.command == "HEAD" and lengths else str(len(body))
        lines = [f"{k}: {v}" for k, v in [*kept, ("Content-Length", length)]]
        head = "\r\n".join([f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *lines, "", ""])
        data = head.encode("latin-1") + (b"" if self.command == "HEAD" else body)
        self.wfile.write(data[: -len(body) // 2 or len(data) // 2] if cut else data)
        if cut:
            self._reset()

    def _reset(self) -> None:
        # A linger of no time makes close() send RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the counts are what is looked at."""


def carry_out(upstream: http.client.HTTPConnection, request: Request) -> Answer:
    """The server's answer: status, headers and body."""
    upstream.request(*request)
    found = upstream.getresponse()
    return found.status, found.getheaders(), found.read()


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
