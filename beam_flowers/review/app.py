"""The local page: Flask, for its routes and host check; nothing is fetched from elsewhere."""

from __future__ import annotations

import contextlib
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
"""Pixels of a picture's longer side, and of WebP."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src blob: data:; style-src 'self'; "
    "script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def make_app(session: Session, token: str, output: str) -> Flask:
    """The page of a session, below `/<token>/`; every other address is refused.

    Args:
        session: what to show and to change.
        token: secret part of the address.
        output: where the corrections lie, to be shown.

    Raises:
        InputError: if Flask is not installed.
    """
    try:
        from flask import Flask, abort
    except ImportError as error:
        raise InputError(
            "the review page needs further packages: pip install 'beam-flowers[report]'"
        ) from error
    app = Flask("beam_flowers.review", static_folder=None)
    # A page elsewhere that has its own name resolve to this address is refused by the name.
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

    _add_page(app, output)
    _add_pictures(app, session)
    _add_actions(app, session)
    return app


def _add_page(app: Flask, output: str) -> None:
    pages = environment("beam_flowers.review")
    texts = {
        "": ("text/html", pages.get_template("review.html").render(output=output, **_KEY_NAMES)),
        "review.css": ("text/css", asset("base.css") + _source("review.css")),
        "review.js": ("text/javascript", _source("review.js")),
    }

    @app.get("/<token>/", defaults={"name": ""})
    @app.get("/<token>/<name>")
    def page(name: str) -> Any:
        if name not in texts:
            return "no such page", 404
        kind, text = texts[name]
        return text, 200, {"Content-Type": f"{kind}; charset=utf-8"}


_KEY_NAMES = {"skip": SKIP, "take_out": TAKE_OUT, "undo": UNDO, "new": NEW}


def _source(name: str) -> str:
    return asset(name, "beam_flowers.review")


def _add_pictures(app: Flask, session: Session) -> None:
    @app.get("/<token>/picture/<int:number>")
    def picture(number: int) -> Any:
        candidate = session.candidate(number)
        if candidate is None:
            return "no such picture", 404
        found = read_thumbnail(candidate.uri, _SIDE, candidate.sha256, _QUALITY)
        if found.data is None:
            return found.problem, 410, {"Content-Type": "text/plain; charset=utf-8"}
        return found.data, 200, {"Content-Type": "image/webp"}


def _add_actions(app: Flask, session: Session) -> None:
    from flask import request

    @app.get("/<token>/state")
    def state() -> Any:
        return session.state()

    @app.post("/<token>/<any(decide, skip, undo):action>")
    def act(action: str) -> Any:
        # JSON alone: a form of another page cannot send it without being asked first.
        body: Any = None
        with contextlib.suppress(RecursionError):  # Of lists in lists in lists.
            body = request.get_json()
        if not isinstance(body, dict):
            return {"error": "not saved: the request is no JSON object"}, 400
        number: Any = body.get("number")
        label: Any = body.get("label")
        try:
            if action == "undo":
                session.undo()
            elif type(number) is not int or (action == "decide" and not isinstance(label, str)):
                raise InputError("a decision names a picture's number and a label")
            elif action == "skip":
                session.skip(number)
            else:
                session.decide(number, label)
        except (InputError, OSError) as error:
            return {"error": f"not saved: {error}"}, 400
        return session.state()
