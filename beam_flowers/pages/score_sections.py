"""Makes the sections about a score table: predicted labels, scores and samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from beam_flowers.head.softmax import Indices
from beam_flowers.pages import charts
from beam_flowers.pages.format import counted, percent, shown
from beam_flowers.pages.model_sections import MOST_LABELS
from beam_flowers.pages.sections import Card, Gallery, Matrix, Section, Threshold, Tile
from beam_flowers.scoring.read_table import ScoreTable

BANDS = (0.0, 0.5, 0.7, 0.9, 0.99)
"""Lowest score of each band; the last one ends at 1."""

_CELL_CARDS = 8
_BINS = 50
_LEVELS = 101
_LEAST_SURE = 48


def score_tiles(table: ScoreTable, rejected: int) -> list[Tile]:
    """Returns the numbers at the top of the page."""
    scores = table.scores
    low = int((scores < 0.5).sum())
    tiles = [
        Tile(f"{len(table.uris):,}", "images labelled", "", "threshold"),
        Tile(f"{len(set(table.given)):,}", "labels predicted", "", "bands"),
        Tile(
            percent(float(np.median(scores))),
            "median score",
            "not an accuracy: that needs known labels",
            "threshold",
        ),
        Tile(f"{low:,}", "scored below 50 %", "look at these", "unsure", bool(low)),
    ]
    if rejected:
        tiles.append(Tile(f"{rejected:,}", "files rejected", "", "rejects"))
    return tiles


def score_sections(table: ScoreTable) -> list[Section]:
    """Returns the threshold, the least sure images and samples by label and score."""
    return [threshold(table), least_sure(table), bands(table)]


def threshold(table: ScoreTable) -> Threshold:
    """Counts the images of each label below each threshold."""
    labels, ids = _numbered(table.given)
    # A score in float32 such as 0.29 must not fall below the threshold 0.29.
    floors = np.floor(np.round(table.scores.astype(np.float64) * (_LEVELS - 1), 4)).astype(np.intp)
    cells = np.zeros((len(labels), _LEVELS + 1), np.intp)
    np.add.at(cells, (ids, floors.clip(0, _LEVELS - 1) + 1), 1)
    below = cells.cumsum(axis=1)[:, :_LEVELS]
    counts = np.bincount(ids, minlength=len(labels))
    means = np.bincount(ids, weights=table.scores, minlength=len(labels)) / counts.clip(min=1)
    order = np.argsort(-counts, kind="stable")
    histogram, _ = np.histogram(table.scores, _BINS, (0, 1))
    return Threshold(
        "threshold",
        "Labels and threshold",
        "Images whose score lies below the threshold would become unknown. Move it to see how "
        "many that are.",
        charts.histogram(histogram.tolist()),
        [labels[i] for i in order],
        counts[order].tolist(),
        below[order].tolist(),
        means[order].tolist(),
    )


def least_sure(table: ScoreTable) -> Gallery:
    """Lists the images with the narrowest margins, the narrowest first."""
    order = np.lexsort((np.array(table.uris), table.margins))[:_LEAST_SURE].tolist()
    cards = [
        Card(
            table.uris[row],
            " or ".join(label for label, _ in table.top_k[row][:2]) + "?",
            " against ".join(percent(score) for _, score in table.top_k[row][:2]),
        )
        for row in order
    ]
    note = (
        "Where the two best scores lie nearest. beam-flowers review shows them one by one, to be "
        f"labelled by key.{shown(len(cards), len(table.uris), 'the narrowest')}"
    )
    return Gallery("unsure", "Least sure", note, cards, len(table.uris))


def bands(table: ScoreTable) -> Matrix:
    """Counts images by label and score band, with samples."""
    labels, ids = _numbered(table.given)
    counts = np.bincount(ids, minlength=len(labels))
    frequent = np.argsort(-counts, kind="stable")[:MOST_LABELS].tolist()
    row_of = {label: row for row, label in enumerate(frequent)}
    columns = np.searchsorted(BANDS, table.scores, side="right") - 1
    matrix = np.zeros((len(frequent), len(BANDS)), np.intp)
    cards: dict[tuple[int, int], list[Card]] = defaultdict(list)
    # In the order of the contents' hashes, the first ones are a sample, whatever the names.
    for row in np.argsort(table.sha256, kind="stable").tolist():
        if ids[row] not in row_of:
            continue
        cell = (row_of[int(ids[row])], int(columns[row]))
        matrix[cell] += 1
        if len(cards[cell]) < _CELL_CARDS:
            detail = percent(float(table.scores[row]))
            cards[cell].append(Card(table.uris[row], table.given[row], detail))
    return Matrix(
        "bands",
        "By label and score",
        "Images by predicted label and score. Open a number to see a sample of "
        f"{counted(_CELL_CARDS, 'image')}."
        f"{shown(len(frequent), len(labels), 'the most frequent')}",
        "predicted",
        "score",
        [labels[i] for i in frequent],
        [
            f"{low * 100:g} to {high * 100:g} %"
            for low, high in zip(BANDS, (*BANDS[1:], 1.0), strict=True)
        ],
        matrix.tolist(),
        dict(cards),
        diagonal=False,
    )


def _numbered(given: Sequence[str]) -> tuple[list[str], Indices]:
    """Returns the distinct labels, sorted, and the number of each row's, intp [n]."""
    labels = sorted(set(given))
    number = {label: i for i, label in enumerate(labels)}
    return labels, np.array([number[label] for label in given], dtype=np.intp)
