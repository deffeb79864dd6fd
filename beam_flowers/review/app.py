"""Makes the local page with Flask, for its routes and host check; the page fetches nothing else."""

from __future__ import annotations

import contextlib
import importlib.util
import secrets
from typing import TYPE_CHECKING, Any

from beam_flowers.errors import InputError
from beam_flowers.pages.page import asset, environment
from beam_flowers.pages.thumbnails import read_thumbnail
from beam_flowers.review.session import NEW, SKIP, TAKE_OUT, UNDO, Session

if TYPE_CHECKING:
    from flask import Flask, Response

HOST = "127.0.0.1"
_SIDE, _QUALITY = 1400, 80
"""Pixels of an image's longer side, and quality of WebP."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src blob: data:; style-src 'self'; "
    "script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def require_flask() -> None:
    """Raises InputError if Flask is not installed."""
    if importlib.util.find_spec("flask") is None:
        raise InputError(
            "the review page needs further packages: pip install 'beam-flowers[report]'"
        )


def make_app(session: Session, token: str, output: str, following: str) -> Flask:
    """Makes the page of a session, below `/<token>/`; other addresses get 404.

    Args:
        session: the images and their decisions.
        token: secret part of the address.
        output: file of the corrections, which the page names.
        following: command line to run next, which the page shows in the end.
    """
    from flask import Flask, abort

    app = Flask("beam_flowers.review", static_folder=None)
    # DNS rebinding: a hostile page can make its own name resolve to this address.
    app.config.update(TRUSTED_HOSTS=[HOST, "localhost"], MAX_CONTENT_LENGTH=64 * 1024)

    @app.url_value_preprocessor
    def check_token(endpoint: str | None, values: dict[str, Any] | None) -> None:
        given = (values or {}).pop("token", "")
        if not secrets.compare_digest(given.encode(), token.encode()):
            abort(404)

    @app.after_request
    def protect(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response

    _add_page(app, session, output, following)
    _add_actions(app, session)
    return app


def _add_page(app: Flask, session: Session, output: str, following: str) -> None:
    package = "beam_flowers.review"
    template = environment(package).get_template("review.html")
    html = template.render(
        output=output, following=following, skip=SKIP, take_out=TAKE_OUT, undo=UNDO, new=NEW
    )
    texts = {
        "": ("text/html", html),
        "review.css": ("text/css", asset("base.css") + asset("review.css", package)),
        "review.js": ("text/javascript", asset("review.js", package)),
    }

    @app.get("/<token>/", defaults={"name": ""})
    @app.get("/<token>/<name>")
    def page(name: str) -> Any:
        if name not in texts:
            return "no such page", 404
        media_type, text = texts[name]
        return text, 200, {"Content-Type": f"{media_type}; charset=utf-8"}

    @app.get("/<token>/image/<int:number>")
    def image(number: int) -> Any:
        candidate = session.candidate(number)
        if candidate is None:
            return "no such image", 404
        thumbnail = read_thumbnail(candidate.uri, _SIDE, candidate.sha256, _QUALITY)
        if thumbnail.data is None:
            return thumbnail.problem, 410, {"Content-Type": "text/plain; charset=utf-8"}
        return thumbnail.data, 200, {"Content-Type": "image/webp"}


def _add_actions(app: Flask, session: Session) -> None:
    from flask import request

    @app.get("/<token>/state")
    def state() -> Any:
        return session.state()

    @app.post("/<token>/<any(decide, skip, undo):action>")
    def act(action: str) -> Any:
        # JSON only: for that, browsers ask the server before another site may send it (CORS).
        body: Any = None
        with contextlib.suppress(RecursionError):  # Raised by deeply nested lists.
            body = request.get_json()
        if not isinstance(body, dict):
            return {"error": "not saved: the request is no JSON object"}, 400
        number: Any = body.get("number")
        label: Any = body.get("label")
        try:
            if action == "undo":
                session.undo()
            # `isinstance` would take True for the image 1.
            elif type(number) is not int or (action == "decide" and not isinstance(label, str)):
                raise InputError("a decision names an image's number and a label")
            elif action == "skip":
                session.skip(number)
            else:
                session.decide(number, label)
        except (InputError, OSError) as error:
            return {"error": f"not saved: {error}"}, 400
        return session.state()
