"""Compares an export with its model: runs the same images through both."""

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
    """An image that the model has scored.

    Attributes:
        content: bytes of the file.
        pixels: uint8 [height, width, 3], as decoded for the backbone.
        scores: float32 [C].
    """

    content: bytes
    pixels: npt.NDArray[np.uint8]
    scores: npt.NDArray[np.float32]


class Agreement(NamedTuple):
    """Differences between the scores of an export and of the model.

    Attributes:
        images: number of images.
        labels: share of images with the same best label, 0..1. It has no tolerance: of two
            labels with almost equal scores either may be best.
        largest: largest absolute difference of a score.
        mean: mean over the images of the largest difference of each.
    """

    images: int
    labels: float
    largest: float
    mean: float

    def __str__(self) -> str:
        return (
            f"same label on {self.labels:.1%} of {self.images} images; an image's scores "
            f"differ by at most {self.mean:.2g} on average, {self.largest:.2g} in the worst"
        )


class Tolerance(NamedTuple):
    """Largest allowed values of the fields of `Agreement`."""

    largest: float
    mean: float


# Measured on 500 flowers with EfficientNet-Lite0; all labels were equal each time. The same
# pixels with float32 sums in another order: 2e-6 at most. SavedModel's own decoder, ±1 level a
# pixel: 0.002 on average, 0.04 at most. 8-bit integers: 0.014 on average, 0.19 at most. For the
# last two `largest` allows anything: one odd image is no reason to refuse an export.
_EXACT = Tolerance(largest=1e-3, mean=1e-4)
TOLERANCES = {
    "savedmodel": Tolerance(largest=1.0, mean=0.03),
    "tflite": _EXACT,
    "keras": _EXACT,
    "onnx": _EXACT,
    "tflite-int8": Tolerance(largest=1.0, mean=0.1),
}


def measure(
    export_format: str, path: str, examples: Sequence[Example], labels: Sequence[str]
) -> Agreement:
    """Runs the export at `path` over the images of `examples`, in a fresh process.

    Args:
        export_format: a key of `TOLERANCES`.
        path: the export.
        examples: at least one.
        labels: of the scores, in class order.

    Raises:
        ModelError: if it cannot be run.
    """
    with tempfile.TemporaryDirectory(prefix="beam-flowers-") as folder:
        np.save(Path(folder, "pixels.npy"), np.stack([e.pixels for e in examples]))
        for number, example in enumerate(examples):
            Path(folder, str(number)).write_bytes(example.content)
        _run([sys.executable, str(_RUNNER), export_format, path, folder], path)
        with np.load(Path(folder, "answers.npz"), allow_pickle=False) as answers:
            return compare(answers["labels"], answers["scores"], examples, labels)


def compare(
    names: npt.NDArray[np.str_],
    scores: npt.NDArray[np.float32],
    examples: Sequence[Example],
    labels: Sequence[str],
) -> Agreement:
    """Compares ranked labels and scores, both [N, k], with those of `examples`.

    An image that the export cannot read has the label '' and differs by 1.
    """
    number = {label: i for i, label in enumerate(labels)}
    same, differences = [], []
    for row, values, example in zip(names, scores, examples, strict=True):
        if not all(name in number for name in row):
            same.append(False)
            differences.append(1.0)
            continue
        own = example.scores[[number[name] for name in row]]
        # Of equal scores either may be best.
        same.append(bool(own[0] >= example.scores.max()))
        differences.append(np.abs(own - values).max())
    return Agreement(
        len(examples), float(np.mean(same)), float(max(differences)), float(np.mean(differences))
    )


def require_agreement(export_format: str, agreement: Agreement) -> None:
    """Checks an agreement against the format's tolerance.

    Raises:
        ModelError: if it is worse.
    """
    wanted = TOLERANCES[export_format]
    if agreement.largest > wanted.largest or agreement.mean > wanted.mean:
        raise ModelError(
            f"the {export_format} export does not give what the model gives: {agreement}; "
            f"allowed are {wanted.mean:g} and {wanted.largest:g}. Nothing was kept"
        )


def _run(command: list[str], path: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"the export {path!r} ran for more than {_SECONDS} seconds") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelError(f"the export {path!r} cannot be loaded and run: {last}")
