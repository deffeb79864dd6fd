"""A page as one HTML file: nothing in it is fetched, and nothing of a user's text is markup."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files as resources
from typing import TYPE_CHECKING, Any

from beam_flowers import files
from beam_flowers.errors import InputError
from beam_flowers.images.outputs import HEAD
from beam_flowers.pages.format import percent, short_name
from beam_flowers.pages.sections import Card, Gallery, Map, Matrix, Page, Section, Threshold
from beam_flowers.pages.thumbnails import Thumbnail, read_thumbnails

if TYPE_CHECKING:
    from jinja2 import Environment

_SIDE, _MAP_SIDE = 160, 96
"""Pixels of a thumbnail's longer side, in galleries and on the map alone."""

ENDINGS = (".html", ".htm")
"""Of the files that pages are written to."""

_GENERATOR = "beam_flowers"
_OURS = re.compile(
    r'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    r'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    r"style-src 'unsafe-inline'; script-src 'sha256-[^']+'; base-uri 'none'; "
    r"form-action 'none'\">\n"
    rf'(<meta name="generator" content="{_GENERATOR}">\n|<meta name="viewport" '
    r'content="width=device-width, initial-scale=1">\n<meta name="color-scheme" '
    r'content="light dark">\n<meta name="referrer" content="no-referrer">\n'
    r'<link rel="icon" href="data:,">\n<title>)'
)
"""The beginning of a page: with its generator, or as all were before they named it."""

_INSTALL = "reports need further packages: pip install 'beam-flowers[report]'"


@dataclass(frozen=True)
class Rendered:
    """A finished page.

    Attributes:
        html: the file.
        pictures: that the page speaks of.
        thumbnails: that are in it.
        unavailable: pictures that should be shown and cannot be.
    """

    html: str
    pictures: int
    thumbnails: int
    unavailable: int


def environment(package: str) -> Environment:
    """The templates of a package, where every value is escaped.

    Raises:
        InputError: if Jinja is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise InputError(_INSTALL) from error
    made = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["percent"] = percent
    return made


def require_packages() -> None:
    """Raises InputError where a page cannot be drawn, before anything long is begun."""
    try:
        import jinja2  # noqa: F401
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise InputError(_INSTALL) from error


def asset(name: str, package: str = "beam_flowers.pages") -> str:
    """A style sheet or script of a package."""
    return resources(package).joinpath("templates", name).read_text("utf-8")


def script_hash(script: str) -> str:
    """What a content security policy calls the only script that may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def is_page(path: str) -> bool:
    """True for a page that this program drew, in this version or an earlier one."""
    return bool(_OURS.match(files.read_bytes(path, HEAD).decode("utf-8", "replace")))


def render(page: Page, most: int) -> Rendered:
    """Draws a page.

    Args:
        page: what to draw.
        most: thumbnails in galleries and matrices; the map's small ones come on top.
    """
    sides = _sides(page, most)
    found = read_thumbnails(sides, page.sha256)
    uris = list(dict.fromkeys(card.uri for s in page.sections for card in cards_of(s)))
    number = {uri: i for i, uri in enumerate(uris)}
    script = asset("report.js")
    html = (
        environment("beam_flowers.pages")
        .get_template("report.html")
        .render(
            page=page,
            generator=_GENERATOR,
            style=asset("base.css") + asset("report.css"),
            script=script,
            script_hash=script_hash(script),
            data={
                "pictures": [
                    _picture(uri, found.get(uri), page.problems.get(uri), most) for uri in uris
                ],
                "sections": {s.id: _data(s, number) for s in page.sections},
            },
            thumbnails=_count(sides, found),
            map_side=_MAP_SIDE,
            side=_SIDE,
            most=most,
        )
    )
    made = sum(thumbnail.data is not None for thumbnail in found.values())
    return Rendered(html, len(uris), made, len(found) - made)


def cards_of(section: Section) -> Iterator[Card]:
    """All pictures of a section; of a matrix those off the diagonal first."""
    if isinstance(section, Gallery | Map):
        yield from section.cards
    if isinstance(section, Matrix):
        for cell in sorted(section.cards, key=lambda cell: (cell[0] == cell[1], cell)):
            yield from section.cards[cell]


def _sides(page: Page, most: int) -> dict[str, int]:
    """Pixels by uri: large ones in galleries, matrices after them, small ones on the map."""
    order = sorted(page.sections, key=lambda s: isinstance(s, Matrix))
    large = dict.fromkeys(c.uri for s in order if not isinstance(s, Map) for c in cards_of(s))
    small = [c.uri for s in order if isinstance(s, Map) for c in cards_of(s)] if most else []
    shown = [uri for uri in large if uri not in page.problems]
    return {**dict.fromkeys(small, _MAP_SIDE), **dict.fromkeys(shown[:most], _SIDE)}


def _picture(
    uri: str, thumbnail: Thumbnail | None, problem: str | None, most: int
) -> dict[str, Any]:
    if problem is None:
        problem = f"no thumbnail: only {most} are made" if thumbnail is None else thumbnail.problem
    return {
        "uri": uri,
        "name": short_name(uri),
        # A page opened from a disk may link to it; percent-encoding keeps `#` and `?` in names.
        "href": _file_url(uri) if files.is_local(uri) else None,
        "thumb": thumbnail.url if thumbnail else None,
        "problem": problem,
    }


def _file_url(path: str) -> str:
    from urllib.parse import quote

    return "file://" + quote(path.encode("utf-8", "surrogateescape"))


def _data(section: Section, number: Mapping[str, int]) -> dict[str, Any]:
    """What the page's script needs of a section."""

    def rows(cards: Any) -> list[list[Any]]:
        return [[number[card.uri], card.head, card.detail] for card in cards]

    if isinstance(section, Gallery):
        return {"cards": rows(section.cards), "groups": list(section.groups)}
    if isinstance(section, Matrix):
        return {"cells": {f"{r},{c}": rows(cards) for (r, c), cards in section.cards.items()}}
    if isinstance(section, Map):
        return {"cards": rows(section.cards), "groups": list(section.groups)}
    if isinstance(section, Threshold):
        return {"below": section.below, "counts": section.counts}
    return {}


def _count(sides: Mapping[str, int], found: Mapping[str, Thumbnail]) -> dict[int, int]:
    """Thumbnails made, by size."""
    return {
        side: sum(found[uri].data is not None for uri, own in sides.items() if own == side)
        for side in (_SIDE, _MAP_SIDE)
    }
