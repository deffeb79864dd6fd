"""Copies images into a folder for each label; moves, deletes and overwrites nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from beam_flowers import files
from beam_flowers.scoring.folders import label_folder


class Labelled(NamedTuple):
    """An image with its labels.

    Attributes:
        uri: address of the file.
        sha256: hex digest of the content that was scored.
        labels: labels that the image is copied for.
    """

    uri: str
    sha256: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class CopiedImages:
    """Counts of one copying run.

    Attributes:
        copied: number of files written.
        present: number of files that existed with the same content.
        failed: (uri, reason) of each file that could not be copied.
    """

    copied: int = 0
    present: int = 0
    failed: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"copied {self.copied}, there already {self.present}, failed {len(self.failed)}"


def copy_images(images: Iterable[Labelled], folder: str) -> CopiedImages:
    """Copies each image to `folder/<label>/<its name>`, once for each of its labels.

    Another image of the same name gets 8 digits of its digest, `x-1f0c9a2b.jpg`, the same in each
    run. Equal content under an equal name is one file.

    Args:
        images: images; the first of a name keeps it.
        folder: absolute path or address of an object store; made if absent.
    """
    counts, failed = {True: 0, False: 0}, []
    for image in images:
        for label in image.labels:
            try:
                counts[_copy(image, files.join(folder, label_folder(label)))] += 1
            except OSError as error:
                failed.append((image.uri, error.strerror or str(error)))
    return CopiedImages(counts[True], counts[False], tuple(failed))


def _copy(image: Labelled, folder: str) -> bool:
    """Copies a file; returns False if it was there already."""
    data = files.read_bytes(image.uri)
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise OSError("it was changed since it was scored; run this again")
    name = image.uri.rpartition("/")[2]
    stem, dot, ending = name.rpartition(".")
    named_apart = f"{stem or name}-{image.sha256[:8]}{dot}{ending if dot else ''}"
    for target in (files.join(folder, name), files.join(folder, named_apart)):
        # `exists` saves an upload; only `put_if_absent` is safe beside another run.
        if not files.exists(target) and files.put_if_absent(target, data):
            return True
        if hashlib.sha256(files.read_bytes(target)).hexdigest() == image.sha256:
            return False
    raise OSError(f"{target!r} is there and is another file")
