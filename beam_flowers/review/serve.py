"""`review`: a table of scores → a local page → a manifest of corrections."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from beam_flowers import files
from beam_flowers.errors import InputError
from beam_flowers.images.outputs import Writing
from beam_flowers.review.app import HOST, make_app
from beam_flowers.review.decisions import Decisions
from beam_flowers.review.session import Session, least_sure_first
from beam_flowers.scoring.read_table import read_scores

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer


@dataclass(frozen=True)
class ReviewJob:
    """What to look through.

    Attributes:
        scores: a table of scores.
        output: manifest of corrections, `.csv`; what is in it is kept and not asked again.
        port: of the page; 0 for any that is free.
        model_id: its beginning, of a table with the scores of several models.
    """

    scores: str
    output: str
    port: int = 0
    model_id: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise InputError(f"a port is a number from 0 to 65535, not {self.port!r}")


@dataclass(frozen=True)
class Reviewing:
    """A page that is ready to be served.

    Attributes:
        url: its address, which holds a secret: whoever has it can label.
        server: to be run with `serve_forever`.
        decisions: what was decided so far.
    """

    url: str
    server: BaseWSGIServer
    decisions: Decisions


@contextmanager
def reviewing(job: ReviewJob) -> Iterator[Reviewing]:
    """Opens the page on this machine alone; every decision is on disk when it is answered.

    Raises:
        OutputError: if the output is the table, or something else than corrections.
        InputError: if the table cannot be read, or the port is taken.
    """
    Writing().reading(job.scores).refuse_input(files.absolute(job.output))
    decisions = Decisions(job.output)
    table = read_scores(job.scores, job.model_id)
    session = Session(least_sure_first(table), table.names, decisions)
    token = secrets.token_urlsafe(16)
    app = make_app(session, token, files.absolute(job.output))
    # It comes with Flask, whose absence `make_app` has told by now.
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        """Requests hold the token: they belong in no log."""

        def log(self, type: str, message: str, *args: object) -> None:
            pass

    try:
        server = make_server(HOST, job.port, app, threaded=True, request_handler=Quiet)
    except (OSError, SystemExit) as error:
        raise InputError(f"port {job.port} cannot be used: {error}; leave out --port") from error
    try:
        yield Reviewing(f"http://{HOST}:{server.server_port}/{token}/", server, decisions)
    finally:
        server.server_close()
