"""Finds the images of a store's rows by content, and reads them in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from beam_flowers import files
from beam_flowers.backbones.compute import hash_files, pool, read_content
from beam_flowers.backbones.decoders import decode_apart
from beam_flowers.errors import ImageError, InputError
from beam_flowers.finetune.training import Classes, Pixels
from beam_flowers.head.examples import Examples
from beam_flowers.head.split import SPLITS
from beam_flowers.head.training import TrainResult
from beam_flowers.images.find import find_images
from beam_flowers.images.recipe import DEFAULT_LIMITS, PixelRecipe
from beam_flowers.records import Image, Reject, Say


class Item(NamedTuple):
    """An image with its label's number; the file may have changed since it was hashed."""

    uri: str
    sha256: str
    class_id: int


def uris_by_content(images: Sequence[str], warn: Say) -> dict[str, str]:
    """Hashes all files and returns the uri of one file by sha256."""
    hashed = hash_files([image for image in find_images(images) if isinstance(image, Image)])
    failed = [result for result in hashed if isinstance(result, Reject)]
    if failed:
        warn(
            f"{len(failed)} files cannot be read, such as {failed[0].image.uri!r}: "
            f"{failed[0].message}"
        )
    uris: dict[str, str] = {}
    for result in hashed:
        if not isinstance(result, Reject):
            uris.setdefault(result.sha256, result.image.uri)
    return uris


def labelled_images(
    examples: Examples, start: TrainResult, uris: Mapping[str, str], warn: Say
) -> dict[str, list[Item]]:
    """Returns the images of each split, one of each content, sorted by content.

    Raises:
        InputError: if a label has no training image in `uris`.
    """
    number = {label: class_id for class_id, label in enumerate(start.labels)}
    rows = {sha: row for row, sha in enumerate(examples.sha256) if start.codes[row] >= 0}
    sides: dict[str, list[Item]] = {name: [] for name in SPLITS}
    for sha, row in sorted(rows.items()):
        if sha in uris:
            item = Item(uris[sha], sha, number[str(examples.labels[row])])
            sides[SPLITS[start.codes[row]]].append(item)
    missing = sorted(examples.uris[row] for sha, row in rows.items() if sha not in uris)
    if len(missing) == len(rows):
        raise InputError(
            f"none of the {len(rows)} labelled images of the store, such as {missing[0]!r}, is"
            " among the images to fine-tune on; they are compared by content: name the folder that"
            " the store was made from"
        )
    if missing:
        warn(f"{len(missing)} images of the store are not among the images: {missing[0]!r}, ...")
    if others := len(set(uris) - set(rows)):
        warn(f"{others} files are passed over: not in the store, no image or without a label")
    present = {item.class_id for item in sides["training"]}
    lacking = [label for class_id, label in enumerate(start.labels) if class_id not in present]
    if lacking:
        raise InputError(
            f"{len(lacking)} of {len(start.labels)} labels, such as {lacking[0]!r}, have no"
            " training image among the images to fine-tune on; name all folders that the store"
            " was made from"
        )
    return sides


class Reader:
    """Decodes batches of images and leaves out those that cannot be used.

    Attributes:
        skipped: reason by uri of the images left out.
    """

    def __init__(self, recipe: PixelRecipe) -> None:
        self._recipe = recipe
        self.skipped: dict[str, str] = {}

    def read(self, items: Sequence[Item]) -> tuple[Pixels, Classes]:
        """Returns pixels uint8 [n, height, width, 3] and classes intp [n] of the usable images."""
        decoded = zip(pool().map(self._open, items), items, strict=True)
        usable = [(pixels, item.class_id) for pixels, item in decoded if pixels is not None]
        pixels = np.empty((len(usable), self._recipe.height, self._recipe.width, 3), np.uint8)
        for row, (of_image, _) in enumerate(usable):
            pixels[row] = of_image
        return pixels, np.array([class_id for _, class_id in usable], np.intp)

    def _open(self, item: Item) -> Pixels | None:
        image = Image(item.uri, files.parent(item.uri), item.uri)
        content = read_content(image, DEFAULT_LIMITS)
        if isinstance(content, Reject):
            self.skipped[item.uri] = f"{content.error_class}: {content.message}"
        elif content[2] != item.sha256:
            self.skipped[item.uri] = "changed since it was listed"
        else:
            try:
                return decode_apart(content[1], self._recipe).pixels
            except ImageError as error:
                self.skipped[item.uri] = str(error)
        return None

    def batches(self, items: Sequence[Item], size: int) -> Iterator[tuple[Pixels, Classes]]:
        """Yields batches of up to `size` items, as `read` returns them, without empty ones."""
        for start in range(0, len(items), size):
            pixels, classes = self.read(items[start : start + size])
            if len(classes):
                yield pixels, classes
