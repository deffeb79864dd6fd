"""Which picture comes next, and what was decided of those before it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from beam_flowers.errors import InputError
from beam_flowers.review.decisions import Decision, Decisions
from beam_flowers.scoring.read_table import ScoreTable

SKIP, TAKE_OUT, UNDO, NEW = "s", "x", "u", "n"
_KEYS = [k for k in "123456789abcdefghijklmnopqrstuvwxyz" if k not in (SKIP, TAKE_OUT, UNDO, NEW)]
_MOST_LABEL_CHARACTERS = 200


class Candidate(NamedTuple):
    """A picture to look at.

    Attributes:
        uri: where it lies.
        sha256: hex digest of its content.
        ranking: labels with scores, best first.
    """

    uri: str
    sha256: str
    ranking: Sequence[tuple[str, float]]


def least_sure_first(table: ScoreTable) -> list[Candidate]:
    """The pictures by margin, narrowest first; of equal contents one, as labels go by content."""
    order = np.lexsort((np.array(table.uris), table.margins)).tolist()
    found: dict[str, Candidate] = {}
    for row in order:
        sha256 = table.sha256[row]
        found.setdefault(sha256, Candidate(table.uris[row], sha256, table.top_k[row]))
    return list(found.values())


@dataclass(frozen=True)
class _Action:
    """Something that can be undone: a picture was labelled, or skipped."""

    number: int
    skipped: bool


class Session:
    """One person's way through the pictures; safe to call from the server's threads.

    Args:
        candidates: the pictures, in the order to look at them.
        labels: of the model; those in `decisions` are added.
        decisions: what is decided already is not asked again.
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
        """The picture of that number."""
        return self._candidates[number] if 0 <= number < len(self._candidates) else None

    def decide(self, number: int, label: str) -> None:
        """Labels a picture; an empty label takes it out of the training.

        Raises:
            InputError: if there is no such picture or the text is no label.
        """
        label = label.strip()
        candidate = self.candidate(number)
        if candidate is None:
            raise InputError(f"there is no picture {number}")
        if len(label) > _MOST_LABEL_CHARACTERS or not label.isprintable():
            raise InputError(f"a label is a line of up to {_MOST_LABEL_CHARACTERS} characters")
        with self._lock:
            self._decisions.add(Decision(candidate.sha256, candidate.uri, label))
            if label and label not in self._labels:
                self._labels.append(label)
            self._leave(number, skipped=False)

    def skip(self, number: int) -> None:
        """Puts a picture at the end."""
        with self._lock:
            if number in self._queue:
                self._leave(number, skipped=True)
                self._queue.append(number)

    def undo(self) -> None:
        """Takes the last action back; its picture is the next one."""
        with self._lock:
            if not self._actions:
                return
            action = self._actions[-1]
            if not action.skipped:
                self._decisions.remove(self._candidates[action.number].sha256)
            self._actions.pop()
            self._queue = [action.number, *(i for i in self._queue if i != action.number)]

    def _leave(self, number: int, skipped: bool) -> None:
        self._queue = [i for i in self._queue if i != number]
        self._actions.append(_Action(number, skipped))

    def state(self) -> dict[str, Any]:
        """What the page shows, JSON."""
        with self._lock:
            left = self._queue
            keys = [*_KEYS, *([""] * max(0, len(self._labels) - len(_KEYS)))]
            return {
                "picture": self._describe(left[0]) if left else None,
                "next": left[1] if len(left) > 1 else None,
                "done": len(self._candidates) - len(left),
                "total": len(self._candidates),
                "saved": len(self._decisions),
                "undo": bool(self._actions),
                "labels": [
                    {"key": key, "label": label}
                    for key, label in zip(keys, self._labels, strict=False)
                ],
            }

    def _describe(self, number: int) -> dict[str, Any]:
        candidate = self._candidates[number]
        return {
            "number": number,
            "uri": candidate.uri,
            "ranking": [{"label": label, "score": score} for label, score in candidate.ranking],
        }
