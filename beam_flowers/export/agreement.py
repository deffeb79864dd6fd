"""Whether an export gives what the model gives: the same pictures through both."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from beam_flowers.errors import ModelError

_RUNNER = Path(__file__).with_name("run_exported.py")
_SECONDS = 600


class Example(NamedTuple):
    """A picture that the model has scored.

    Attributes:
        content: the file.
        pixels: uint8 [height, width, 3], as decoded for the network.
        scores: float32 [C].
    """

    content: bytes
    pixels: npt.NDArray[np.uint8]
    scores: npt.NDArray[np.float32]


class Agreement(NamedTuple):
    """How an export's answers compare with the model's.

    Attributes:
        pictures: N.
        labels: share with the same best label, 0..1.
        largest: absolute difference of a score.
        mean: likewise, over the scores that the export gives.
    """

    pictures: int
    labels: float
    largest: float
    mean: float

    def __str__(self) -> str:
        return (
            f"same label on {self.labels:.1%} of {self.pictures} pictures; scores differ by "
            f"{self.mean:.2g} on average, {self.largest:.2g} at most"
        )


class Tolerance(NamedTuple):
    """What an export may differ by; the fields are those of `Agreement`."""

    labels: float
    largest: float
    mean: float

    def __str__(self) -> str:
        return (
            f"{self.labels:.0%} of the labels, scores within {self.mean:g} on average and "
            f"{self.largest:g} at most"
        )


# Measured on 500 flowers with EfficientNet-Lite0. Same pixels, float32 in another order: all
# labels, 1e-6 at most. A decoder of its own, ±1 level a pixel: all labels, 0.0009 on average,
# 0.04 at most. 8-bit integers: all labels, 0.006 on average, 0.19 at most. One odd picture is no
# reason to refuse the last two, hence no bound on the largest.
_EXACT = Tolerance(labels=0.99, largest=1e-3, mean=1e-4)
TOLERANCES = {
    "savedmodel": Tolerance(labels=0.95, largest=1.0, mean=0.01),
    "tflite": _EXACT,
    "keras": _EXACT,
    "onnx": _EXACT,
    "tflite-int8": Tolerance(labels=0.9, largest=1.0, mean=0.05),
}


def measure(kind: str, path: str, examples: Sequence[Example], labels: Sequence[str]) -> Agreement:
    """Runs the export at `path` in a fresh process over the pictures of `examples`.

    Args:
        kind: a key of `TOLERANCES`.
        path: the export.
        examples: at least one.
        labels: of the scores, in class order.

    Raises:
        ModelError: it cannot be run.
    """
    with tempfile.TemporaryDirectory(prefix="beam-flowers-") as folder:
        np.save(Path(folder, "pixels.npy"), np.stack([e.pixels for e in examples]))
        for number, example in enumerate(examples):
            Path(folder, str(number)).write_bytes(example.content)
        _run([sys.executable, str(_RUNNER), kind, path, folder], path)
        with np.load(Path(folder, "answers.npz"), allow_pickle=False) as answers:
            return compare(answers["labels"], answers["scores"], examples, labels)


def compare(
    names: npt.NDArray[np.str_],
    scores: npt.NDArray[np.float32],
    examples: Sequence[Example],
    labels: Sequence[str],
) -> Agreement:
    """The agreement of ranked labels and scores, both [N, k], with those of `examples`.

    A picture that the export cannot read has the label '' and counts as wrong throughout.
    """
    number = {label: i for i, label in enumerate(labels)}
    same, differences = [], []
    for row, values, example in zip(names, scores, examples, strict=True):
        if unread := [name for name in row if name not in number]:
            same.append(False)
            differences.extend([1.0] * len(unread))
            continue
        own = example.scores[[number[name] for name in row]]
        # Of equal scores either is best.
        same.append(bool(own[0] >= example.scores.max()))
        differences.extend(np.abs(own - values).tolist())
    return Agreement(
        len(examples), float(np.mean(same)), float(np.max(differences)), float(np.mean(differences))
    )


def require_agreement(kind: str, agreement: Agreement) -> None:
    """Checks an agreement against the format's tolerance; one label may always differ.

    Raises:
        ModelError: it is worse.
    """
    wanted = TOLERANCES[kind]
    # Of a few pictures one between two labels would be too many.
    others = max(1.0, (1 - wanted.labels) * agreement.pictures)
    same = (1 - agreement.labels) * agreement.pictures < others + 0.5
    if not (same and agreement.largest <= wanted.largest and agreement.mean <= wanted.mean):
        raise ModelError(
            f"the {kind} export does not give what the model gives: {agreement}; wanted are "
            f"{wanted}. Nothing was kept"
        )


def _run(command: list[str], path: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"the export {path!r} ran for more than {_SECONDS} seconds") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelError(f"the export {path!r} cannot be loaded and run: {last}")
