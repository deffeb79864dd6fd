"""Transforms for pipelines of one's own; each does one step of the way.

    FindImages → ComputeBottlenecks → WriteStore, ReadStore → ScoreBottlenecks

This module only wires. Elements are the records of `beam_flowers.records` and `Score`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.ml.inference.base import ModelHandler
from apache_beam.pvalue import PBegin, PCollection
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from beam_flowers import files
from beam_flowers.backbones.compute import read_content
from beam_flowers.backbones.engine import Engine, load
from beam_flowers.backbones.joined import Backbones, collect_joined, several, start_each
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.images.find import find_images
from beam_flowers.images.recipe import Limits
from beam_flowers.records import Bottleneck, Image, Reject
from beam_flowers.scores.ranking import TOP_K, Models, Score
from beam_flowers.scores.rows import Layout, ScoreRows
from beam_flowers.scores.rule import Rule
from beam_flowers.store.append import append_parts, store_place
from beam_flowers.store.features import choose_section, open_store
from beam_flowers.store.parts import Part, Place, read_part, write_part
from beam_flowers.store.schema import StoreRows, bottlenecks_of

REJECTS = "rejects"
_BLOCK = 256


@dataclass
class FindImages(beam.PTransform):
    """Sources → `Image`s; files that the listing rejects come out as `Reject`s.

    Attributes:
        sources: folders, globs, list files, manifests or pictures.

    Returns of `expand`: outputs `images` (main) and `rejects`.
    """

    sources: Sequence[str]

    def expand(self, pbegin: PBegin) -> Any:
        return (
            pbegin
            | "Sources" >> beam.Create([list(self.sources)], reshuffle=False)
            | "List" >> beam.FlatMap(_find).with_outputs(REJECTS, main="images")
        )


@dataclass
class ReadImages(beam.PTransform):
    """`Image`s → (`Image`, its bytes); unreadable ones come out as `Reject`s.

    Keep what follows in the same stage: contents should not cross a shuffle.
    Outputs: `contents` (main) and `rejects`.
    """

    limits: Limits = field(default_factory=Limits)

    def expand(self, images: PCollection[Image]) -> Any:
        return images | "Read" >> beam.FlatMap(_read, limits=self.limits).with_outputs(
            REJECTS, main="contents"
        )


@dataclass
class ComputeBottlenecks(beam.PTransform):
    """`Image`s → `Bottleneck`s; a picture that gives none comes out as a `Reject`.

    One network a process, whatever the number of Beam's threads. Outputs: `bottlenecks` (main)
    and `rejects`.

    Attributes:
        backbone: one, or several whose vectors are set side by side, as some models take them.
        limits: of what is read.
    """

    backbone: Backbones
    limits: Limits = field(default_factory=Limits)

    def expand(self, images: PCollection[Image]) -> Any:
        return (
            images
            | "AddKey" >> beam.Map(_by_uri)
            | "Spread" >> beam.GroupByKey()
            | "DropKey" >> beam.FlatMap(_values)
            | "Compute"
            >> beam.ParDo(_Compute(several(self.backbone), self.limits)).with_outputs(
                REJECTS, main="bottlenecks"
            )
        )


@dataclass
class WriteStore(beam.PTransform):
    """`Bottleneck`s → rows of a feature store, in one commit; rows of the same uri are replaced.

    Returns of `expand`: the number of rows written, once, after the commit.
    """

    store: str
    backbone: ResolvedBackbone

    def expand(self, bottlenecks: PCollection[Bottleneck]) -> PCollection[int]:
        place, kind = store_place(
            self.store, self.backbone.row.name, self.backbone.fingerprint, self.backbone.vectors
        )
        return (
            bottlenecks
            | "WriteParts" >> beam.ParDo(_WriteParts(place, kind))
            | "OneKey" >> beam.Map(_one_key)
            | "Gather" >> beam.GroupByKey()
            | "Commit" >> beam.Map(_append, place=place, kind=kind, about=self.backbone.about())
        )


@dataclass
class ReadStore(beam.PTransform):
    """A store → its `Bottleneck`s, as the newest commit names them.

    Attributes:
        store: folder.
        backbone: its name; may be left out where the store has only one.
    """

    store: str
    backbone: str | None = None

    def expand(self, pbegin: PBegin) -> PCollection[Bottleneck]:
        store = files.absolute(self.store)
        key, section = choose_section(store, open_store(store), self.backbone)
        names = [(part.name, part.name) for part in section.rows]
        return (
            pbegin
            | "Parts" >> beam.Create(names, reshuffle=False)
            | "Spread" >> beam.GroupByKey()
            | "ReadParts" >> beam.FlatMap(_read_part, place=Place(store, key, section.fingerprint))
        )


@dataclass
class ScoreBottlenecks(beam.PTransform):
    """`Bottleneck`s → `Score`s, one for each model.

    Attributes:
        models: the model, or several of one backbone.
        top_k: labels a score.
        rule: when a label is given.
    """

    models: Models
    top_k: int = TOP_K
    rule: Rule | None = None

    def expand(self, bottlenecks: PCollection[Bottleneck]) -> PCollection[Score]:
        kind = ScoreRows.of(self.models, self.rule, Layout(self.top_k))
        return bottlenecks | "Score" >> beam.FlatMap(_score, kind=kind)


class BottleneckModelHandler(ModelHandler[np.ndarray, np.ndarray, Engine]):
    """For Beam's RunInference: uint8 [H, W, 3] pixels → float32 [D] vectors.

    The pixels are those that `decode(data, engine.recipe)` gives.
    """

    def __init__(self, backbone: ResolvedBackbone) -> None:
        super().__init__()
        self._backbone = backbone

    def load_model(self) -> Engine:
        return load(self._backbone)

    def run_inference(
        self,
        batch: Sequence[np.ndarray],
        model: Engine,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[np.ndarray]:
        return list(model.embed(np.stack(batch)))

    def batch_elements_kwargs(self) -> dict[str, Any]:
        # Beam's own limit of 10,000 pictures a batch would be gigabytes of pixels.
        return {"min_batch_size": 1, "max_batch_size": 32}


class _Compute(beam.DoFn):
    def __init__(self, backbones: Sequence[ResolvedBackbone], limits: Limits) -> None:
        self._backbones = backbones
        self._limits = limits

    def start_bundle(self) -> None:
        self._block: list[Image] = []

    def process(self, image: Image) -> Iterator[Any]:
        self._block.append(image)
        if len(self._block) >= _BLOCK:
            yield from self._flush()

    def finish_bundle(self) -> Iterator[Any]:
        yield from _in_global_window(self._flush())

    def _flush(self) -> Iterator[Any]:
        block, self._block = self._block, []
        if block:
            results = collect_joined(start_each(block, self._backbones, self._limits))
            yield from (_tagged(r) for r in results)


class _WriteParts(beam.DoFn):
    def __init__(self, place: Place, kind: StoreRows) -> None:
        self._place = place
        self._kind = kind

    def start_bundle(self) -> None:
        self._block: list[Bottleneck] = []

    def process(self, bottleneck: Bottleneck) -> Iterator[Part]:
        self._block.append(bottleneck)
        if len(self._block) >= 16 * _BLOCK:
            yield self._flush()

    def finish_bundle(self) -> Iterator[Any]:
        if self._block:
            yield from _in_global_window([self._flush()])

    def _flush(self) -> Part:
        block, self._block = self._block, []
        return write_part(self._place, self._kind, self._kind.table(block))


def _in_global_window(elements: Iterable[Any]) -> Iterator[Any]:
    window = [GlobalWindow()]
    for element in elements:
        if isinstance(element, beam.pvalue.TaggedOutput):
            value = WindowedValue(element.value, MIN_TIMESTAMP, window)
            yield beam.pvalue.TaggedOutput(element.tag, value)
        else:
            yield WindowedValue(element, MIN_TIMESTAMP, window)


def _tagged(result: Any) -> Any:
    return beam.pvalue.TaggedOutput(REJECTS, result) if isinstance(result, Reject) else result


def _find(sources: list[str]) -> Iterator[Any]:
    yield from (_tagged(f) for f in find_images(sources) if isinstance(f, Image | Reject))


def _read(image: Image, limits: Limits) -> Iterator[Any]:
    content = read_content(image, limits)
    yield _tagged(content) if isinstance(content, Reject) else content[:2]


def _by_uri(image: Image) -> tuple[str, Image]:
    return image.uri, image


def _values(keyed: tuple[str, Iterable[Image]]) -> Iterator[Image]:
    yield from keyed[1]


def _one_key(part: Part) -> tuple[int, Part]:
    return 0, part


def _append(
    keyed: tuple[int, Iterable[Part]], place: Place, kind: StoreRows, about: dict[str, Any]
) -> int:
    return append_parts(place, kind, about, list(keyed[1]))


def _read_part(keyed: tuple[str, Iterable[str]], place: Place) -> Iterator[Bottleneck]:
    yield from bottlenecks_of(read_part(place, keyed[0]))


def _score(bottleneck: Bottleneck, kind: ScoreRows) -> Iterator[Score]:
    yield from kind.scores([bottleneck])
