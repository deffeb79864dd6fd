"""Defines the elements that travel between steps: small, immutable, without behaviour."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Say = Callable[[str], None]
"""Callback for a line of text for the user."""

OnProgress = Callable[[int, int], None]
"""Callback for the number of things that are done, and of all."""

NOT_AN_IMAGE = "NotAnImage"
"""`Reject.error_class` of a file that does not look like an image. It is skipped, not a failure."""

READ = "read"
"""`Reject.stage` of a file that could not be read: no verdict on what it holds."""


class Image(NamedTuple):
    """Names one file that may hold an image, before it is read.

    Attributes:
        uri: absolute path, scheme kept (`s3://...`), not percent-encoded; local paths bare.
        root: the folder, manifest or pattern's fixed part it was found under, absolute.
        relative_path: path below `root`, with `/`.
        label: class name, verbatim, or None.
        split: `training`, `validation` or `testing` where the source fixes it, or None.
        bytes: file size, or None where it could not be asked.
        modified: last change in microseconds since the epoch (UTC), or None.
        etag: tag of an object's content by S3; None where it is unknown, as for other files.
    """

    uri: str
    root: str
    relative_path: str
    label: str | None = None
    split: str | None = None
    bytes: int | None = None
    modified: int | None = None
    etag: str | None = None


class Reject(NamedTuple):
    """Names one file that gives no row, and the reason.

    Attributes:
        image: the file.
        stage: `find`, `read`, `decode` or `embed`.
        error_class: stable name of the failure; `NOT_AN_IMAGE` does not count as one.
        message: one line for people, free of memory addresses and temporary paths.
        sha256: hex digest of the content where it could be read.
    """

    image: Image
    stage: str
    error_class: str
    message: str
    sha256: str | None = None


class HiddenFile(NamedTuple):
    """Names a file that is skipped: a path component below the root starts with a dot."""

    uri: str


class RootListed(NamedTuple):
    """Marks the end of one root's listing.

    Attributes:
        root: as in `Image.root`.
        complete: True if all of it was seen, so that a stored row of this root which was not
            listed belongs to a file that is gone.
        is_tree: True if it is a folder that was gone through. Then `complete` says so of each
            address below it, whatever root its row has, but for hidden files, files behind links
            to folders and members of archives.
    """

    root: str
    complete: bool
    is_tree: bool = False


Listed = Image | Reject | HiddenFile | RootListed
"""One element of a listing."""


class DecodedImage(NamedTuple):
    """Holds the pixels of a decoded image.

    Attributes:
        pixels: uint8 [height, width, 3], RGB, at the size the recipe asks for.
        width: of the file's image after EXIF orientation, in pixels.
        height: likewise.
        format: one of `images.formats.FORMATS`, such as `JPEG`. Of a JPEG that was cut and taken
            by `Limits.salvage` also the share of rows that are not there, such as
            `JPEG, 3.1% missing`.
    """

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int
    format: str


class Seconds(NamedTuple):
    """Holds the seconds that threads were busy, summed over all of them.

    Attributes:
        read: reading, hashing and decoding images.
        network: computing vectors.
        write: writing them.
    """

    read: float = 0.0
    network: float = 0.0
    write: float = 0.0


class Embedding(NamedTuple):
    """Holds the embedding of an image.

    Attributes:
        image: the file.
        sha256: hex digest of its bytes.
        width: see `DecodedImage`.
        height: see `DecodedImage`.
        format: see `DecodedImage`.
        vector: float32 [D], the layer before the classifier.
    """

    image: Image
    sha256: str
    width: int
    height: int
    format: str
    vector: npt.NDArray[np.float32]


Result = Embedding | Reject
"""The outcome of one image."""


class Ranked(NamedTuple):
    """Holds one label and its score between 0 and 1."""

    label: str
    score: float


class Score(NamedTuple):
    """Holds the labels of an image by one model, best first.

    Attributes:
        uri: of the image.
        sha256: hex digest of its bytes.
        label: the best label that is given, or `unknown`.
        score: of that label; of the best one where it is unknown. A softmax probability, of a
            multi-label model a sigmoid's.
        top_k: the k best, best first, given or not.
        model_id: of the model that gave them.
        labels: all that are given, best first: at most one, of a multi-label model any number.
        bytes: of the image's file, see `Image`.
        modified: likewise.
        format: see `DecodedImage`.
    """

    uri: str
    sha256: str
    label: str
    score: float
    top_k: tuple[Ranked, ...]
    model_id: str
    labels: tuple[str, ...] = ()
    bytes: int | None = None
    modified: int | None = None
    format: str | None = None


def added(several: Iterable[Seconds]) -> Seconds:
    """Returns the sum of each attribute."""
    return Seconds(*(sum(column) for column in zip(Seconds(), *several, strict=True)))
