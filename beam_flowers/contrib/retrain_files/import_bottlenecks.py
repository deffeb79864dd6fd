"""Imports retrain.py's text files and their images as rows of a store (`import-bottlenecks`).

The names of the files are `<label>/<image>_<module>.txt`, with `~` for `://`, `/`, `:` and `\\` in
the module's address; the first version wrote `<label>/<image>.txt`. They hold decimal numbers with
commas between them.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from beam_flowers import files
from beam_flowers.backbones.catalogue import IMPORTED
from beam_flowers.backbones.compute import pool, read_content
from beam_flowers.backbones.decoders import decode_apart
from beam_flowers.errors import ImageError, InputError
from beam_flowers.images.find import has_splits
from beam_flowers.images.labels import is_hidden, label_and_split
from beam_flowers.images.recipe import DEFAULT_LIMITS, PixelRecipe
from beam_flowers.records import Embedding, Image, Reject, Result
from beam_flowers.store.append import append_parts, store_place
from beam_flowers.store.commits import committed, latest
from beam_flowers.store.parts import Part, Place, RejectRows, open_part, write_part
from beam_flowers.store.plan import stored_rows
from beam_flowers.store.schema import StoreRows, rejects_table
from beam_flowers.workflows.progress import Progress
from beam_flowers.workflows.summary import EmbedSummary

ROWS = 2000
"""Rows of a part: 16 MB of vectors of Inception's 2048 numbers."""

_HIDDEN, _STRAY = "/hidden", "/stray"
"""Keys beside the modules' names, which hold no `/`."""

_SMALL = PixelRecipe(8, 8, None, "bilinear")
"""Recipe that only finds out if a file is an image, and its size; it decodes a JPEG at 1/8."""


@dataclass(frozen=True)
class ImportJob:
    """Folders of one import.

    Attributes:
        bottlenecks: retrain.py's `--bottleneck_dir`.
        images: its `--image_dir`.
        store: folder of the feature store.
        module: name of the network in the files' names; None if they name one only.
    """

    bottlenecks: str
    images: str
    store: str
    module: str | None = None


@dataclass(frozen=True)
class ImportSummary(EmbedSummary):
    """Counts of one import: `reused + rejected + others + hidden = total` files.

    Attributes:
        others: number of text files of other networks.
        backbone: name of the vectors in the store.
    """

    others: int = 0
    backbone: str = ""

    def __str__(self) -> str:
        others = f"of other networks {self.others}, " if self.others else ""
        return (
            f"imported {self.reused}, rejected {self.rejected}, {others}hidden {self.hidden}, "
            f"of {self.total}"
        )


def import_bottlenecks(job: ImportJob, progress: Progress | None = None) -> ImportSummary:
    """Adds the vectors of retrain.py's text files to a store, as a section of their own.

    `ROWS` vectors are in memory at a time. A second import replaces the rows of this folder of
    images and network, and the rejects of this folder of texts.

    Raises:
        InputError: if a folder is missing or empty, or `module` has to be named.
        StoreError: if the store cannot be written.
    """
    progress = progress or Progress()
    progress.begin("listing")
    source, images = (_folder(path) for path in (job.bottlenecks, job.images))
    listed = Counter(progress.counted(_modules(source)))
    hidden, strays = listed.pop(_HIDDEN, 0), listed.pop(_STRAY, 0)
    module = _chosen(job, listed)
    total = sum(listed.values()) + hidden + strays
    progress.begin("reading", listed[module] + strays)
    name, fingerprint = backbone_of(module), fingerprint_of(module)
    place, row_kind = store_place(job.store, name, fingerprint)
    reading = _Reading(images, _stored_length(place, images))
    parts = list(reading.parts(place, row_kind, _chosen_texts(source, module), progress))
    progress.begin("committing")
    about = {"imported": {"tool": "retrain.py", "module": module}}
    append_parts(place, row_kind, about, parts, roots=(source, images))
    rejected = sum(reading.reasons.values())
    return ImportSummary(
        embedded=0,
        reused=sum(part.rows for part in parts if not part.is_rejects),
        rejected=rejected,
        hidden=hidden,
        total=total,
        failures=rejected,
        dataset_hash=committed(latest(place.root), place).dataset_hash,
        reasons=dict(reading.reasons),
        others=sum(listed.values()) - listed[module],
        backbone=name,
    )


def _folder(path: str) -> str:
    uri = files.absolute(path)
    if not files.is_folder(uri):
        raise InputError(f"{path!r} is no folder (looked at {uri!r}); check the spelling")
    return uri


def _modules(source: str) -> Iterator[str]:
    """Yields for every file the network in its name, `_HIDDEN` or `_STRAY`."""
    for image in _texts(source):
        name = parse_name(image.relative_path)
        if is_hidden(image.relative_path):
            yield _HIDDEN
        else:
            yield name.module if name else _STRAY


def _texts(source: str) -> Iterator[Image]:
    for entry in files.walk(source):
        path = files.printable(files.relative(entry.uri, source))
        uri = files.printable(entry.uri)
        yield Image(uri, source, path, None, None, entry.bytes, entry.modified)


def _chosen_texts(source: str, module: str) -> Iterator[tuple[Image, TextName | None]]:
    """Yields the files to import with their parsed names, and stray files with None."""
    for image in _texts(source):
        name = parse_name(image.relative_path)
        if not is_hidden(image.relative_path) and (name is None or name.module == module):
            yield image, name


def _chosen(job: ImportJob, modules: Counter[str]) -> str:
    names = ", ".join(f"{name!r} ({count} files)" for name, count in modules.most_common())
    if not modules:
        raise InputError(
            f"{job.bottlenecks!r} holds no text file of retrain.py, such as "
            "roses/1.jpg_inception_v3.txt; name its --bottleneck_dir"
        )
    if job.module is None and len(modules) > 1:
        raise InputError(
            f"{job.bottlenecks!r} holds vectors of several networks, which do not go together; "
            f"choose one with --module: {names}"
        )
    module = job.module if job.module is not None else next(iter(modules))
    if module not in modules:
        raise InputError(f"no file in {job.bottlenecks!r} is of the module {module!r}; has {names}")
    return module


def _stored_length(place: Place, images: str) -> int | None:
    """Returns the length of this network's vectors in rows of other folders, or None."""
    for stored in committed(latest(place.root), place).rows:
        if any(row.image.root != images for row in stored_rows(place, stored.name)):
            with open_part(place, stored.name) as part:
                return part.schema_arrow.field("vector").type.list_size
    return None


class _Reading:
    """Reads text files and images; counts the rejects by reason."""

    def __init__(self, images: str, length: int | None) -> None:
        self.reasons: Counter[str] = Counter()
        self._images, self._splits, self._length = images, has_splits(images), length

    def parts(
        self,
        place: Place,
        row_kind: StoreRows,
        texts: Iterator[tuple[Image, TextName | None]],
        progress: Progress,
    ) -> Iterator[Part]:
        """Writes and yields the parts of all text files."""
        done = 0
        while block := list(islice(texts, ROWS)):
            outcomes = []
            for outcome in pool().map(self._read, block):
                outcomes.append(outcome)
                progress.reach(done + len(outcomes), sum(self.reasons.values()))
            done += len(block)
            rows, rejects = self._sorted([text for text, _ in block], outcomes)
            if rows:
                yield write_part(place, row_kind, row_kind.table(rows))
            if rejects:
                self.reasons.update(reject.error_class for reject in rejects)
                yield write_part(place, RejectRows(), rejects_table(rejects))

    def _sorted(
        self, texts: list[Image], outcomes: list[Result]
    ) -> tuple[list[Embedding], list[Reject]]:
        rows, rejects = [], [o for o in outcomes if isinstance(o, Reject)]
        lengths = Counter(len(o.vector) for o in outcomes if isinstance(o, Embedding))
        if self._length is None and lengths:
            self._length = lengths.most_common(1)[0][0]
        for text, outcome in zip(texts, outcomes, strict=True):
            if not isinstance(outcome, Embedding):
                continue
            if len(outcome.vector) == self._length:
                rows.append(outcome)
            else:
                message = f"{len(outcome.vector)} numbers, where others have {self._length}"
                rejects.append(Reject(text, "read", "WrongLength", message))
        return rows, rejects

    def _read(self, file: tuple[Image, TextName | None]) -> Result:
        text, name = file
        if name is None:
            message = "the name is not IMAGE_MODULE.txt, as retrain.py wrote it"
            return Reject(text, "find", "NotABottleneck", message)
        content = read_content(text, DEFAULT_LIMITS)
        if isinstance(content, Reject):
            return content
        _, data, sha256 = content
        try:
            vector = parse_vector(data)
        except ImageError as error:
            return Reject(text, "read", error.error_class, error.message, sha256)
        row = self._image(name.image, vector)
        return row if isinstance(row, Embedding) else Reject(text, *row, sha256)

    def _image(self, path: str, vector: np.ndarray) -> Embedding | tuple[str, str, str]:
        """Returns the row of an image, or stage, class and message of a reject."""
        label, split = label_and_split(path, self._splits)
        image = Image(files.join(self._images, path), self._images, path, label, split)
        try:
            status = files.stat(image.uri)
        except OSError:
            return "find", "NoImage", f"there is no image {image.uri}"
        image = image._replace(bytes=status.bytes, modified=status.modified)
        content = read_content(image, DEFAULT_LIMITS)
        if isinstance(content, Reject):
            return "read", content.error_class, f"{image.uri}: {content.message}"
        try:
            decoded = decode_apart(content[1], _SMALL)
        except ImageError as error:
            return error.stage, error.error_class, f"{image.uri}: {error.message}"
        size = (decoded.width, decoded.height, decoded.format)
        return Embedding(image, content[2], *size, vector)


# The last such ending counts: an image may be called `a.jpg_copy.jpg`.
_NAME = re.compile(r"(.+\.(?:jpe?g|png|bmp|gif|webp|tiff?))(?:_(.+))?\.txt", re.IGNORECASE)
_SHOWN = 20


class TextName(NamedTuple):
    """Parts of the name of a text file.

    Attributes:
        image: path of the image below the folder of images.
        module: name of the network; empty in the first version's names.
    """

    image: str
    module: str


def parse_name(relative_path: str) -> TextName | None:
    """Parses the path of a text file; returns None for any other file."""
    folder, slash, name = relative_path.rpartition("/")
    match = _NAME.fullmatch(name)
    return TextName(folder + slash + match[1], match[2] or "") if match else None


def backbone_of(module: str) -> str:
    """Returns the store's name for the vectors of a network."""
    slug = re.sub(r"[^A-Za-z0-9._~-]+", "-", module)
    return f"{IMPORTED}-{slug}" if module else IMPORTED


def fingerprint_of(module: str) -> str:
    """Makes a fingerprint that no backbone has: the files do not name weights and pixels."""
    return hashlib.sha256(f"{IMPORTED}\0{module}".encode()).hexdigest()


def parse_vector(data: bytes) -> npt.NDArray[np.float32]:
    """Reads the numbers of a text file, as doubles rounded to float32 [D], as retrain.py did.

    Raises:
        ImageError: `EmptyFile`, `NotNumbers` or `NotFinite`.
    """
    words = data.decode("ascii", "replace").strip().split(",")
    if words == [""]:
        raise ImageError("EmptyFile", "the text file holds no number")
    try:
        numbers = np.array(words, np.float64)
    except ValueError:
        place, word = next((p, w) for p, w in enumerate(words, 1) if not _is_number(w))
        raise ImageError(
            "NotNumbers", f"number {place} of {len(words)} is {word[:_SHOWN]!r}"
        ) from None
    with np.errstate(over="ignore"):
        vector = numbers.astype(np.float32)
    if bad := np.flatnonzero(~np.isfinite(vector)).tolist():
        word = words[bad[0]][:_SHOWN]
        raise ImageError("NotFinite", f"number {bad[0] + 1} of {len(words)} is {word!r}")
    return vector


def _is_number(word: str) -> bool:
    try:
        np.array([word], np.float64)
    except ValueError:
        return False
    return True
