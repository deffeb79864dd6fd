"""Serves the page of `review`: a score table in, a manifest of corrections out."""

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
    """Options of one review.

    Attributes:
        scores: a score table.
        output: manifest of corrections, `.csv`; images in it are not shown again.
        port: of the page; 0 for any free one.
        model_id: beginning of the model's id, for a table with the scores of several models.
    """

    scores: str
    output: str
    port: int = 0
    model_id: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise InputError(f"a port is a number from 0 to 65535, not {self.port!r}")


@dataclass(frozen=True)
class ReviewPage:
    """A page that is ready to be served.

    Attributes:
        url: its address, with a secret: anyone who has it can label.
        server: to be run with `serve_forever`.
        decisions: all decisions so far.
    """

    url: str
    server: BaseWSGIServer
    decisions: Decisions


@contextmanager
def reviewing(job: ReviewJob) -> Iterator[ReviewPage]:
    """Opens the page for this machine alone; each decision is on disk before the page goes on.

    Raises:
        OutputError: if the output is the table, or a file without corrections.
        InputError: if the table cannot be read, or the port is taken.
    """
    Writing().reading(job.scores).refuse_input(files.absolute(job.output))
    decisions = Decisions(job.output)
    table = read_scores(job.scores, job.model_id)
    session = Session(least_sure_first(table), table.names, decisions)
    token = secrets.token_urlsafe(16)
    app = make_app(session, token, files.absolute(job.output))
    # Werkzeug comes with Flask; `make_app` raises if that is missing.
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        """Logs nothing: requests hold the secret token."""

        def log(self, type: str, message: str, *args: object) -> None:
            pass

    try:
        server = make_server(HOST, job.port, app, threaded=True, request_handler=Quiet)
    except (OSError, SystemExit) as error:
        raise InputError(f"port {job.port} cannot be used: {error}; leave out --port") from error
    try:
        yield ReviewPage(f"http://{HOST}:{server.server_port}/{token}/", server, decisions)
    finally:
        server.server_close()
