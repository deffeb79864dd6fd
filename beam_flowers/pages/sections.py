"""What a page consists of. Plain values: the templates alone know HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple


class Tile(NamedTuple):
    """A number that is seen first.

    Attributes:
        value: as text.
        name: what it is.
        detail: how sure, of how many.
        target: id of the section that tells more, or empty.
        attention: whether there is something to look at.
    """

    value: str
    name: str
    detail: str = ""
    target: str = ""
    attention: bool = False


class Card(NamedTuple):
    """A picture and what is said of it.

    Attributes:
        uri: of the picture.
        head: in a few words.
        detail: the numbers.
    """

    uri: str
    head: str
    detail: str = ""


class Column(NamedTuple):
    """A table's column; `share` is 0..1 and drawn as a bar too."""

    name: str
    kind: Literal["text", "number", "share"] = "text"


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading.

    Attributes:
        id: its address in the page.
        title: its heading.
        note: what to know to read it, a sentence or two.
    """

    kind: ClassVar[str]
    id: str
    title: str
    note: str


@dataclass(frozen=True)
class Table(Section):
    """Rows to sort by any column, and to filter where they are many.

    Attributes:
        columns: of each row.
        rows: values by column; None where there is none.
        more: a table that goes into the details.
        links: ids of the sections that the rows lead to, empty for none; empty where no row does.
    """

    kind = "table"
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    more: Table | None = None
    links: Sequence[str] = ()


@dataclass(frozen=True)
class Gallery(Section):
    """Pictures in an order, to filter.

    Attributes:
        cards: the first of them.
        total: how many there are.
        groups: how many of the cards at a time belong together, such as copies of one picture;
            empty where each stands for itself.
    """

    kind = "gallery"
    cards: Sequence[Card]
    total: int
    groups: Sequence[int] = ()


@dataclass(frozen=True)
class Matrix(Section):
    """Counts of pictures, each to click through to its pictures.

    Attributes:
        down: what the rows are.
        across: what the columns are.
        rows: names.
        columns: names.
        counts: by row and column.
        cards: some pictures of a cell, by (row, column).
        diagonal: whether counts off the diagonal are the ones to look at.
    """

    kind = "matrix"
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
        charts: SVG with its description for those who do not see it.
        table: the numbers.
    """

    kind = "figure"
    charts: Sequence[tuple[str, str]]
    table: Table | None = None


@dataclass(frozen=True)
class Map(Section):
    """Points in a plane, one a picture, to hover over.

    Attributes:
        svg: a mark for each card, in their order.
        cards: the pictures; `head` is what is shown first.
        groups: index into `labels` of each card, -1 for none.
        labels: to choose one from.
        colours: whether each label has a colour of its own.
    """

    kind = "map"
    svg: str
    cards: Sequence[Card]
    groups: Sequence[int]
    labels: Sequence[str]
    colours: bool


@dataclass(frozen=True)
class Threshold(Section):
    """How many pictures would become `unknown` below a score.

    Attributes:
        svg: histogram of the scores.
        labels: that were given.
        counts: by label.
        below: by label, pictures whose score is below 0.00, 0.01 ... 1.00.
        means: mean score by label.
    """

    kind = "threshold"
    svg: str
    labels: Sequence[str]
    counts: Sequence[int]
    below: Sequence[Sequence[int]]
    means: Sequence[float]


@dataclass(frozen=True)
class Facts(Section):
    """Names with values, for whoever wants to do it again."""

    kind = "facts"
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Page:
    """Everything on a page.

    Attributes:
        title: what it is about.
        lead: the answer in a sentence.
        tiles: the numbers.
        warnings: what to know before quoting a number.
        sections: in their order.
        sha256: content that pictures must have to be shown, by uri.
        problems: why there is nothing to show, by uri: such files are not read.
    """

    title: str
    lead: str
    tiles: Sequence[Tile]
    warnings: Sequence[str]
    sections: Sequence[Section]
    sha256: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
