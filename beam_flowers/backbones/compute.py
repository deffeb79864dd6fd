"""Reads, hashes, decodes and embeds files in a bounded pool of threads."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from beam_flowers import files
from beam_flowers.backbones.decoders import decode_apart
from beam_flowers.backbones.hardware import cores
from beam_flowers.errors import ImageError
from beam_flowers.images.memory_gate import Gate, memory_limit
from beam_flowers.images.recipe import Limits, PixelRecipe
from beam_flowers.records import (
    READ,
    DecodedImage,
    Embedding,
    Image,
    Reject,
    Result,
    Seconds,
    added,
)


class Engine(Protocol):
    """Computes embeddings of pixels; safe to call from many threads."""

    @property
    def recipe(self) -> PixelRecipe: ...
    @property
    def batch(self) -> int: ...
    def embed(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]: ...


class Hashed(NamedTuple):
    """Holds a file and the digest of its content, without the content."""

    image: Image
    sha256: str


class _Copy(NamedTuple):
    """Marks a file with the same bytes as one that another task of the unit computes."""

    image: Image
    sha256: str


_Outcome = Result | _Copy


class Done(NamedTuple):
    """Holds the outcomes of a task, one a file, and its time."""

    outcomes: list[Any]
    seconds: Seconds


Pending = list["Future[Done]"]


class Tally(NamedTuple):
    """Counts the files that this process has finished, and the rejects among them."""

    files: int = 0
    rejects: int = 0


class Pool(ThreadPoolExecutor):
    """Runs tasks on the threads of this process, and counts the files that they finish.

    Two threads a core: one waits for a disk or a decoder while one computes.
    """

    def __init__(self) -> None:
        super().__init__(2 * cores(), thread_name_prefix="embeddings")
        self._tally = Tally()
        self._counting = threading.Lock()

    @property
    def tally(self) -> Tally:
        """The count since the process began."""
        return self._tally

    def submit_counted(self, function: Callable[..., Done], *arguments: Any) -> Future[Done]:
        """Hands over a task, and counts its outcomes in the tally when it ends."""
        task = self.submit(function, *arguments)
        task.add_done_callback(self._count)
        return task

    def _count(self, task: Future[Done]) -> None:
        if task.cancelled() or task.exception():
            return
        outcomes = task.result().outcomes
        rejects = sum(isinstance(outcome, Reject) for outcome in outcomes)
        with self._counting:
            before = self._tally
            self._tally = Tally(before.files + len(outcomes), before.rejects + rejects)


@lru_cache(maxsize=1)
def pool() -> Pool:
    """Returns the only pool of the process.

    Beam pickles its steps, so that they cannot be handed one.
    """
    return Pool()


def start(images: Sequence[Image], engine: Engine, limits: Limits) -> Pending:
    """Hands the files to the pool, in small batches; equal bytes are computed once."""
    claims: dict[str, str] = {}
    batches = (images[i : i + engine.batch] for i in range(0, len(images), engine.batch))
    return [pool().submit_counted(_compute, batch, engine, limits, claims) for batch in batches]


def collect(pending: Pending) -> list[Result]:
    """Waits for the tasks of `start`; returns one outcome a file, in their order."""
    outcomes = [outcome for future in pending for outcome in future.result().outcomes]
    first = {o.sha256: o for o in outcomes if not isinstance(o, _Copy) and o.sha256}
    return [
        first[o.sha256]._replace(image=o.image) if isinstance(o, _Copy) else o for o in outcomes
    ]


def spent(pending: Pending) -> Seconds:
    """Returns the time of the finished tasks of `start`."""
    return added(future.result().seconds for future in pending)


def compute_embeddings(
    images: Sequence[Image], engine: Engine, limits: Limits | None = None
) -> list[Result]:
    """Returns the embedding or the reject of each file, in their order."""
    return collect(start(images, engine, limits or Limits()))


def hash_files(images: Sequence[Image], limits: Limits | None = None) -> list[Hashed | Reject]:
    """Returns the digest or the reject of each file, in their order."""
    limits = limits or Limits()
    return list(pool().map(lambda image: _hash(image, limits), images))


def _hash(image: Image, limits: Limits) -> Hashed | Reject:
    with _room(image, limits):
        content = read_content(image, limits)
    return content if isinstance(content, Reject) else Hashed(content[0], content[2])


def read_content(image: Image, limits: Limits) -> tuple[Image, bytes, str] | Reject:
    """Returns (the file with its size, its bytes, their sha256 hex), or a reject.

    Of a file above `limits.max_bytes` it reads only the beginning, which shows the format.
    """
    try:
        # One byte above the limit is read, to detect a file that is too large.
        data = files.read_bytes(image.uri, limits.max_bytes + 1)
    except files.MemberError as error:
        return Reject(image, "decode", error.error_class, str(error))
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        return Reject(image, READ, type(error).__name__, reason)
    if image.bytes is None:
        image = image._replace(bytes=len(data))
    return image, data, hashlib.sha256(data).hexdigest()


_SMALL_FILE = 1 << 22
"""Bytes of a file that is read at once: all threads together then hold some megabytes."""


@contextlib.contextmanager
def _room(image: Image, limits: Limits) -> Iterator[None]:
    """Waits until a large file fits into memory beside those of other threads.

    A file of unknown size does not wait.
    """
    size = min(image.bytes or 0, limits.max_bytes)
    if size <= _SMALL_FILE:
        yield
        return
    gate = _files_gate()
    # Twice, as its decoder process has a copy. A file above the bound waits until it is alone;
    # `max_bytes` decides later if it is a reject.
    with gate.hold(min(2 * size, gate.most), "file"):
        yield


@lru_cache(maxsize=1)
def _files_gate() -> Gate:
    return Gate(memory_limit())


def _compute(
    images: Sequence[Image], engine: Engine, limits: Limits, claims: dict[str, str]
) -> Done:
    begun = time.perf_counter()
    outcomes: list[_Outcome | None] = []
    decoded: list[tuple[Image, str, DecodedImage]] = []
    for image in images:
        with _room(image, limits):
            result = _open(image, engine.recipe, limits, claims)
        if isinstance(result, Reject | _Copy):
            outcomes.append(result)
        else:
            outcomes.append(None)
            decoded.append(result)
    opened = time.perf_counter()
    vectors = iter(list(_vectors(decoded, engine)))
    seconds = Seconds(opened - begun, time.perf_counter() - opened)
    return Done([next(vectors) if outcome is None else outcome for outcome in outcomes], seconds)


def _open(
    image: Image, recipe: PixelRecipe, limits: Limits, claims: dict[str, str]
) -> Reject | _Copy | tuple[Image, str, DecodedImage]:
    content = read_content(image, limits)
    if isinstance(content, Reject):
        return content
    image, data, sha = content
    # dict.setdefault is atomic: only one of several threads with the same bytes continues.
    whole = len(data) <= limits.max_bytes
    if whole and claims.setdefault(sha, image.uri) != image.uri:
        return _Copy(image, sha)
    try:
        return image, sha, decode_apart(data, recipe, limits)
    except ImageError as error:
        known = sha if whole else None
        return Reject(image, error.stage, error.error_class, error.message, known)


def _vectors(
    decoded: Sequence[tuple[Image, str, DecodedImage]], engine: Engine
) -> Iterator[Result]:
    if not decoded:
        return
    vectors = engine.embed(np.stack([one.pixels for _, _, one in decoded]))
    for (image, sha, one), vector in zip(decoded, vectors, strict=True):
        if np.isfinite(vector).all():
            size = (one.width, one.height, one.format)
            yield Embedding(image, sha, *size, vector)
        else:
            yield Reject(image, "embed", "NotFinite", "the network gives NaN or infinity", sha)
