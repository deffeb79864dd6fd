"""Serves the page of `review`: a score table or a store in, a manifest of corrections out."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from beam_flowers import files
from beam_flowers.errors import InputError
from beam_flowers.images.outputs import Writing
from beam_flowers.review import CHOOSE
from beam_flowers.review.app import HOST, make_app, require_flask
from beam_flowers.review.choose import Chosen, choose_images
from beam_flowers.review.decisions import Decisions
from beam_flowers.review.session import Session, least_sure_first
from beam_flowers.scoring.read_table import read_scores
from beam_flowers.scoring.recognise import STORE, recognise
from beam_flowers.store.features import read_features

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer


@dataclass(frozen=True)
class ReviewJob:
    """Options of one review.

    Attributes:
        source: a score table, or a store.
        output: manifest of corrections, `.csv`; images in it are not shown again.
        port: of the page; 0 for any free one.
        model_id: beginning of the model's id, for a table with the scores of several models.
        choose: number of images to choose from a store, see `choose_images`; `CHOOSE` if None.
        backbone: whose vectors they are chosen by, where the store has several.
    """

    source: str
    output: str
    port: int = 0
    model_id: str | None = None
    choose: int | None = None
    backbone: str | None = None

    def __post_init__(self) -> None:
        if self.choose is not None and self.choose < 1:
            raise InputError(f"--choose takes a number of images from 1 on, not {self.choose!r}")
        if not 0 <= self.port < 65536:
            raise InputError(f"a port is a number from 0 to 65535, not {self.port!r}")


@dataclass(frozen=True)
class ReviewPage:
    """A page that is ready to be served.

    Attributes:
        url: its address, with a secret: anyone who has it can label.
        server: to be run with `serve_forever`.
        decisions: all decisions so far.
        count: number of images that are asked about.
        following: command line to run next.
        chosen: see `Chosen`; None for a score table.
    """

    url: str
    server: BaseWSGIServer
    decisions: Decisions
    count: int
    following: str
    chosen: Chosen | None


@contextmanager
def reviewing(job: ReviewJob) -> Iterator[ReviewPage]:
    """Opens the page for this machine alone; each decision is on disk before the page goes on.

    Raises:
        OutputError: if the output is the source, or a file without corrections.
        InputError: if a package is missing, the source cannot be read, every image of a store has
            a label, or the port is taken.
        StoreError: if the store has no vectors, or those of several backbones.
    """
    require_flask()
    if not files.exists(files.absolute(job.source)):
        raise InputError(
            f"{job.source!r} is not there; name a feature store, which `embed` writes, or a table "
            "of scores, which `score` writes"
        )
    Writing().reading(job.source).refuse_input(files.absolute(job.output))
    decisions = Decisions(job.output)
    chosen = None
    if recognise(job.source) == STORE:
        _, features = read_features(files.absolute(job.source), job.backbone)
        count = CHOOSE if job.choose is None else job.choose
        chosen = choose_images(features, {d.sha256: d.label for d in decisions}, count)
        # Those typed come behind, in their order: keys stay from round to round.
        given = sorted({label for label in features.labels if label})
        session = Session(chosen.candidates, given, decisions)
    elif job.choose is not None:
        raise InputError(f"--choose is for a feature store, which {job.source!r} is not")
    else:
        table = read_scores(job.source, job.model_id)
        session = Session(least_sure_first(table), table.names, decisions)
    token = secrets.token_urlsafe(16)
    store = shlex.quote(job.source) if chosen else "STORE"
    following = f"beam-flowers train {store} --model MODEL --labels {shlex.quote(job.output)}"
    app = make_app(session, token, files.absolute(job.output), following)
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
        url = f"http://{HOST}:{server.server_port}/{token}/"
        total = session.state()["total"]
        yield ReviewPage(url, server, decisions, total, following, chosen)
    finally:
        server.server_close()
