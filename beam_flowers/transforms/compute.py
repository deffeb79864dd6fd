"""Computes embeddings in a pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from warnings import warn

import apache_beam as beam
from apache_beam.pvalue import PCollection, TaggedOutput
from apache_beam.utils.windowed_value import WindowedValue

from beam_flowers import files
from beam_flowers.backbones.joined import Backbones, Started, several, start_each
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.images.recipe import Limits
from beam_flowers.records import Embedding, Image, Reject, Result
from beam_flowers.transforms.find import REJECTS, Source, as_image, require_collection
from beam_flowers.transforms.start_ahead import StartAhead
from beam_flowers.transforms.streaming import Spread

_BLOCK = 128
"""Images that are started together; two blocks are in memory."""


class ComputedImages(NamedTuple):
    """Holds the outputs of `ComputeEmbeddings`."""

    embeddings: PCollection[Embedding]
    rejects: PCollection[Reject]

    @property
    def bottlenecks(self) -> PCollection[Embedding]:
        """Returns `embeddings`, under the name that goes in 0.3."""
        warn("`bottlenecks` is now `embeddings`", DeprecationWarning, stacklevel=2)
        return self.embeddings


@dataclass
class ComputeEmbeddings(beam.PTransform):
    """Computes the vectors of images; one that gives none comes out as a `Reject`.

    Takes `Image`s, uris as text, and `ReadableFile`s or `FileMetadata` of Beam's `fileio`, in any
    mix. There is one network a process, whatever the number of Beam's threads.

    Attributes:
        backbone: one, or several whose vectors are set side by side, as some models take them.
        limits: of what is read.
    """

    backbone: Backbones
    limits: Limits = field(default_factory=Limits)

    def expand(self, images: PCollection[Source]) -> ComputedImages:
        require_collection(images, "ComputeEmbeddings")
        computed = (
            images
            | "Images" >> beam.Map(as_image)
            | "Spread" >> Spread(_key)
            | "Compute"
            >> beam.ParDo(_Compute(several(self.backbone), self.limits)).with_outputs(
                REJECTS, main="embeddings"
            )
        )
        return ComputedImages(computed.embeddings, computed.rejects)


class _Compute(beam.DoFn):
    """Computes blocks of a bundle's images; each result has the window and time of its own."""

    def __init__(self, backbones: Sequence[ResolvedBackbone], limits: Limits) -> None:
        self._backbones = backbones
        self._limits = limits

    def start_bundle(self) -> None:
        self._block: list[WindowedValue] = []
        self._work = StartAhead(_collect)

    def process(
        self,
        image: Image,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
    ) -> Iterator[Any]:
        # Results come elements later, when Beam has another element's time and window at hand.
        held = WindowedValue(image, timestamp, [window])
        if not files.is_text(image.uri):
            yield _given(held, _unnamed(image))
            return
        self._block.append(held)
        if len(self._block) == _BLOCK:
            yield from self._start()

    def finish_bundle(self) -> Iterator[Any]:
        if self._block:
            yield from self._start()
        for results in self._work.rest():
            yield from results

    def _start(self) -> Iterator[Any]:
        block, self._block = self._block, []
        images = [held.value for held in block]
        started = start_each(images, self._backbones, self._limits)
        for results in self._work.add((block, started)):
            yield from results


def _collect(started: tuple[list[WindowedValue], Started]) -> list[Any]:
    block, work = started
    return [_given(held, result) for held, result in zip(block, work.results(), strict=True)]


def _given(held: WindowedValue, result: Result) -> Any:
    value = held.with_value(result)
    return TaggedOutput(REJECTS, value) if isinstance(result, Reject) else value


def _unnamed(image: Image) -> Reject:
    """Rejects an image as `find_images` does: a name that is not UTF-8 cannot be stored."""
    named = image._replace(
        uri=files.printable(image.uri),
        root=files.printable(image.root),
        relative_path=files.printable(image.relative_path),
        bytes=None,
        modified=None,
    )
    return Reject(named, "find", "BadName", "the name is not valid UTF-8; rename the file")


def _key(image: Image) -> str:
    return files.printable(image.uri)
