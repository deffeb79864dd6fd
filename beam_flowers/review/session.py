"""Keeps the queue of images to look at, and the actions to undo."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np

from beam_flowers.errors import InputError
from beam_flowers.images.labels import normalize
from beam_flowers.review.decisions import Decision, Decisions
from beam_flowers.scoring.read_table import ScoreTable

SKIP, TAKE_OUT, UNDO, NEW = "s", "x", "u", "n"
_KEYS = [k for k in "123456789abcdefghijklmnopqrstuvwxyz" if k not in (SKIP, TAKE_OUT, UNDO, NEW)]
_MOST_LABEL_CHARACTERS = 200


class Candidate(NamedTuple):
    """An image to look at.

    Attributes:
        uri: of the image.
        sha256: hex digest of its content.
        ranking: labels with scores, best first.
    """

    uri: str
    sha256: str
    ranking: Sequence[tuple[str, float]]


def least_sure_first(table: ScoreTable) -> list[Candidate]:
    """Returns one image of each content, by margin, the narrowest first."""
    order = np.lexsort((np.array(table.uris), table.margins)).tolist()
    candidates: dict[str, Candidate] = {}
    for row in order:
        sha256 = table.sha256[row]
        candidates.setdefault(sha256, Candidate(table.uris[row], sha256, table.top_k[row]))
    return list(candidates.values())


class _Action(NamedTuple):
    """An action to undo: image `number` was skipped or labelled."""

    number: int
    skipped: bool


class Session:
    """One person's review of the images; safe to call from the server's threads.

    Args:
        candidates: the images, in the order to look at them.
        labels: of the model; those in `decisions` are added.
        decisions: earlier decisions, whose images are not shown again.
    """

    def __init__(
        self, candidates: Sequence[Candidate], labels: Sequence[str], decisions: Decisions
    ) -> None:
        self._candidates = candidates
        self._decisions = decisions
        self._labels = list(dict.fromkeys([*labels, *(d.label for d in decisions if d.label)]))
        number = {candidate.sha256: i for i, candidate in enumerate(candidates)}
        decided = {number[d.sha256]: None for d in decisions if d.sha256 in number}
        self._actions = [_Action(i, skipped=False) for i in decided]
        self._queue = [i for i in range(len(candidates)) if i not in decided]
        self._lock = threading.Lock()

    def candidate(self, number: int) -> Candidate | None:
        """Returns the image of a number, or None."""
        return self._candidates[number] if 0 <= number < len(self._candidates) else None

    def decide(self, number: int, label: str) -> None:
        """Labels an image; an empty label takes it out of the training.

        Raises:
            InputError: if there is no such image or the text cannot be a label.
        """
        label = label.strip()
        candidate = self.candidate(number)
        if candidate is None:
            raise InputError(f"there is no image {number}")
        if len(label) > _MOST_LABEL_CHARACTERS or not label.isprintable():
            raise InputError(f"a label is a line of up to {_MOST_LABEL_CHARACTERS} characters")
        with self._lock:
            self._refuse_second_spelling(label)
            self._decisions.add(Decision(candidate.sha256, candidate.uri, label))
            if label and label not in self._labels:
                self._labels.append(label)
            self._leave(number, skipped=False)

    def _refuse_second_spelling(self, label: str) -> None:
        """Raises InputError for a new label that `train` could not tell from one of the others."""
        same = [other for other in self._labels if normalize(other) == normalize(label)]
        if label and same and label not in self._labels:
            raise InputError(f"the label {label} is there as {same[0]} already; take that one")

    def skip(self, number: int) -> None:
        """Moves an image to the end of the queue."""
        with self._lock:
            if number in self._queue:
                self._leave(number, skipped=True)
                self._queue.append(number)

    def undo(self) -> None:
        """Takes back the last action; its image is the next one."""
        with self._lock:
            if not self._actions:
                return
            action = self._actions[-1]
            if not action.skipped:
                self._decisions.remove(self._candidates[action.number].sha256)
            self._actions.pop()
            self._queue = [action.number, *(i for i in self._queue if i != action.number)]

    def _leave(self, number: int, *, skipped: bool) -> None:
        self._queue = [i for i in self._queue if i != number]
        self._actions.append(_Action(number, skipped))

    def state(self) -> dict[str, Any]:
        """Returns the JSON value that the page shows."""
        with self._lock:
            left = self._queue
            image: dict[str, Any] | None = None
            if left:
                uri, _, ranking = self._candidates[left[0]]
                scores = [{"label": label, "score": score} for label, score in ranking]
                image = {"number": left[0], "uri": uri, "ranking": scores}
            keyed = zip_longest(_KEYS[: len(self._labels)], self._labels, fillvalue="")
            return {
                "image": image,
                "next": left[1] if len(left) > 1 else None,
                "done": len(self._candidates) - len(left),
                "total": len(self._candidates),
                "saved": len(self._decisions),
                "undo": bool(self._actions),
                "labels": [{"key": key, "label": label} for key, label in keyed],
            }
