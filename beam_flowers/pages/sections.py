"""Holds the contents of a page as plain values; the templates alone know HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple


class Tile(NamedTuple):
    """A number at the top of the page.

    Attributes:
        value: as text.
        name: of the number.
        detail: its uncertainty, or the total it is part of.
        target: id of the section about it, or empty.
        attention: True if the reader should look at it.
    """

    value: str
    name: str
    detail: str = ""
    target: str = ""
    attention: bool = False


class Card(NamedTuple):
    """An image and the text below it.

    Attributes:
        uri: of the image.
        head: in a few words.
        detail: the numbers.
    """

    uri: str
    head: str
    detail: str = ""


class Column(NamedTuple):
    """A table's column; a `share` is 0..1 and drawn as a bar too."""

    name: str
    format: Literal["text", "number", "share"] = "text"


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading.

    Attributes:
        layout: name of its part of the template.
        id: its address in the page.
        title: its heading.
        note: a sentence or two that the reader needs to understand it.
    """

    layout: ClassVar[str]
    id: str
    title: str
    note: str


@dataclass(frozen=True)
class Table(Section):
    """Rows to sort by any column, and to filter if they are many.

    Attributes:
        columns: of each row.
        rows: values by column, or None.
        more: a table with the details.
        links: ids of the sections that the rows link to, each may be empty; empty without links.
    """

    layout = "table"
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    more: Table | None = None
    links: Sequence[str] = ()


@dataclass(frozen=True)
class Gallery(Section):
    """Images in an order, to filter.

    Attributes:
        cards: the first images.
        total: number of all images.
        groups: sizes of the runs of cards that belong together, such as copies of one image;
            empty if each stands for itself.
    """

    layout = "gallery"
    cards: Sequence[Card]
    total: int
    groups: Sequence[int] = ()


@dataclass(frozen=True)
class Matrix(Section):
    """Counts of images, each to click through to its images.

    Attributes:
        down: name of what the rows stand for.
        across: name of what the columns stand for.
        rows: names.
        columns: names.
        counts: by row and column.
        cards: some images of a cell, by (row, column).
        diagonal: True if counts off the diagonal are mistakes.
    """

    layout = "matrix"
    down: str
    across: str
    rows: Sequence[str]
    columns: Sequence[str]
    counts: Sequence[Sequence[int]]
    cards: Mapping[tuple[int, int], Sequence[Card]]
    diagonal: bool = True


@dataclass(frozen=True)
class Figure(Section):
    """Charts.

    Attributes:
        charts: SVG with its description for screen readers.
        table: the numbers.
    """

    layout = "figure"
    charts: Sequence[tuple[str, str]]
    table: Table | None = None


@dataclass(frozen=True)
class Map(Section):
    """Points in a plane, one an image, to hover over.

    Attributes:
        svg: a mark for each card, in their order.
        cards: the images.
        groups: index into `labels` of each card; -1 without a label.
        labels: to choose one from.
        colours: True if each label has a colour of its own.
    """

    layout = "map"
    svg: str
    cards: Sequence[Card]
    groups: Sequence[int]
    labels: Sequence[str]
    colours: bool


@dataclass(frozen=True)
class Threshold(Section):
    """A slider that shows how many images become `unknown` below a score.

    Attributes:
        svg: histogram of the scores.
        labels: the predicted labels.
        counts: number of images by label.
        below: by label, number of images with a score below 0.00, 0.01 ... 1.00.
        means: mean score by label.
    """

    layout = "threshold"
    svg: str
    labels: Sequence[str]
    counts: Sequence[int]
    below: Sequence[Sequence[int]]
    means: Sequence[float]


@dataclass(frozen=True)
class Facts(Section):
    """Names with values, by which the page can be made again."""

    layout = "facts"
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Page:
    """Everything on a page.

    Attributes:
        title: of the page.
        lead: the main result in a sentence.
        tiles: the numbers at the top.
        warnings: to read before quoting a number.
        sections: in their order.
        sha256: digest by uri that an image's content must have to be shown.
        problems: by uri, the reason why an image cannot be shown; such files are not read.
    """

    title: str
    lead: str
    tiles: Sequence[Tile]
    warnings: Sequence[str]
    sections: Sequence[Section]
    sha256: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
