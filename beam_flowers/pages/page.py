"""Draws a page as one HTML file: it fetches nothing, and no text of a user is markup."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files as resources
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from beam_flowers import files
from beam_flowers.errors import InputError
from beam_flowers.images.outputs import HEAD
from beam_flowers.pages.format import percent, short_name
from beam_flowers.pages.sections import Card, Gallery, Map, Matrix, Page, Section, Threshold
from beam_flowers.pages.thumbnails import Thumbnail, read_thumbnails

if TYPE_CHECKING:
    from jinja2 import Environment

_SIDE, _MAP_SIDE = 160, 96
"""Pixels of a thumbnail's longer side, in galleries and on the map."""

ENDINGS = (".html", ".htm")
"""Endings of the files that pages are written to."""

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
"""Beginning of a page of ours: with its generator, or as in versions that did not name it."""

_INSTALL = "reports need further packages: pip install 'beam-flowers[report]'"


@dataclass(frozen=True)
class Rendered:
    """A finished page.

    Attributes:
        html: the file.
        images: number of images on the page.
        thumbnails: number of thumbnails in it.
        unavailable: number of images that should be shown and cannot be.
    """

    html: str
    images: int
    thumbnails: int
    unavailable: int


def environment(package: str) -> Environment:
    """Returns the templates of a package, in which every value is escaped.

    Raises:
        InputError: if Jinja is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise InputError(_INSTALL) from error
    templates = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["percent"] = percent
    return templates


def require_packages() -> None:
    """Raises InputError if a package that draws pages is missing, before the work begins."""
    try:
        import jinja2  # noqa: F401
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise InputError(_INSTALL) from error


def asset(name: str, package: str = "beam_flowers.pages") -> str:
    """Returns a style sheet or script of a package."""
    return resources(package).joinpath("templates", name).read_text("utf-8")


def script_hash(script: str) -> str:
    """Returns the source of a content security policy that allows this script alone."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def is_page(path: str) -> bool:
    """Tells if a file is a page that this program drew, in this version or an earlier one."""
    return bool(_OURS.match(files.read_bytes(path, HEAD).decode("utf-8", "replace")))


def render(page: Page, most: int) -> Rendered:
    """Draws a page.

    Args:
        page: what to draw.
        most: most thumbnails in galleries and matrices; the map's small ones come on top.
    """
    sides = _sides(page, most)
    thumbnails = read_thumbnails(sides, page.sha256)
    uris = list(dict.fromkeys(card.uri for s in page.sections for card in cards_of(s)))
    number = {uri: i for i, uri in enumerate(uris)}
    script = asset("report.js")
    # Keyed by size, as the footer counts large and small ones apart.
    made = Counter(side for uri, side in sides.items() if thumbnails[uri].data is not None)
    images = [_image(uri, thumbnails.get(uri), page.problems.get(uri), most) for uri in uris]
    template = environment("beam_flowers.pages").get_template("report.html")
    html = template.render(
        page=page,
        generator=_GENERATOR,
        style=asset("base.css") + asset("report.css"),
        script=script,
        script_hash=script_hash(script),
        data={"images": images, "sections": {s.id: _data(s, number) for s in page.sections}},
        thumbnails=made,
        map_side=_MAP_SIDE,
        side=_SIDE,
        most=most,
    )
    return Rendered(html, len(uris), made.total(), len(thumbnails) - made.total())


def cards_of(section: Section) -> Iterator[Card]:
    """Yields all images of a section; of a matrix those off the diagonal first."""
    if isinstance(section, Gallery | Map):
        yield from section.cards
    if isinstance(section, Matrix):
        for cell in sorted(section.cards, key=lambda cell: (cell[0] == cell[1], cell)):
            yield from section.cards[cell]


def _sides(page: Page, most: int) -> dict[str, int]:
    """Returns pixels by uri, large in galleries and matrices, small on the map alone.

    Galleries come first, as the number of large thumbnails is limited.
    """
    order = sorted(page.sections, key=lambda s: isinstance(s, Matrix))
    large = dict.fromkeys(c.uri for s in order if not isinstance(s, Map) for c in cards_of(s))
    small = [c.uri for s in order if isinstance(s, Map) for c in cards_of(s)] if most else []
    shown = [uri for uri in large if uri not in page.problems]
    return {**dict.fromkeys(small, _MAP_SIDE), **dict.fromkeys(shown[:most], _SIDE)}


def _image(uri: str, thumbnail: Thumbnail | None, problem: str | None, most: int) -> dict[str, Any]:
    if problem is None:
        problem = f"no thumbnail: only {most} are made" if thumbnail is None else thumbnail.problem
    return {
        "uri": uri,
        "name": short_name(uri),
        # Browsers let a page that is opened from disk link to files.
        "href": "file://" + quote(uri, errors="surrogateescape") if files.is_local(uri) else None,
        "thumb": thumbnail.url if thumbnail else None,
        "problem": problem,
    }


def _data(section: Section, number: Mapping[str, int]) -> dict[str, Any]:
    """Returns the values of a section that the page's script reads."""

    def rows(cards: Iterable[Card]) -> list[list[Any]]:
        return [[number[card.uri], card.head, card.detail] for card in cards]

    if isinstance(section, Gallery | Map):
        return {"cards": rows(section.cards), "groups": list(section.groups)}
    if isinstance(section, Matrix):
        return {"cells": {f"{r},{c}": rows(cards) for (r, c), cards in section.cards.items()}}
    if isinstance(section, Threshold):
        return {"below": section.below, "counts": section.counts}
    return {}
