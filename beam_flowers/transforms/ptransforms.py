"""Transforms for pipelines of one's own; each does one step of the way.

    FindImages → ComputeBottlenecks → WriteStore, ReadStore → ScoreBottlenecks

This module only wires. Elements are the records of `beam_flowers.records` and `Score`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import PBegin, PCollection, TaggedOutput
from apache_beam.utils.windowed_value import WindowedValue

from beam_flowers import files
from beam_flowers.backbones.compute import read_content
from beam_flowers.backbones.joined import Backbones, collect_joined, several, start_each
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.head.networks import networks_of, require_networks
from beam_flowers.images.find import find_images
from beam_flowers.images.recipe import Limits
from beam_flowers.records import Bottleneck, Image, Reject, Score
from beam_flowers.scoring.decision import Rule
from beam_flowers.scoring.ranking import TOP_K, Models, bundles_of
from beam_flowers.scoring.table import Layout, ScoreRows
from beam_flowers.store.append import append_window, store_place
from beam_flowers.store.features import choose_section, open_store
from beam_flowers.store.parts import Part, Place, read_part, write_part
from beam_flowers.store.schema import StoreRows, bottlenecks_of
from beam_flowers.transforms.streaming import Spread

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
            | "Spread" >> Spread(_uri)
            | "Compute"
            >> beam.ParDo(_Compute(several(self.backbone), self.limits)).with_outputs(
                REJECTS, main="bottlenecks"
            )
        )


@dataclass
class WriteStore(beam.PTransform):
    """`Bottleneck`s → rows of a feature store, in one commit; rows of the same uri are replaced.

    In windows and without an end, of several rows of one uri that of the file modified last is
    kept; elsewhere they are an error.

    Returns of `expand`: the number of rows written, once, after the commit.
    """

    store: str
    backbone: ResolvedBackbone

    def expand(self, bottlenecks: PCollection[Bottleneck]) -> PCollection[int]:
        place, kind = store_place(
            self.store, self.backbone.row.name, self.backbone.fingerprint, self.backbone.vectors
        )
        newest = not bottlenecks.is_bounded or not bottlenecks.windowing.is_default()
        return (
            bottlenecks
            | "WriteParts" >> beam.ParDo(_WriteParts(place, kind))
            | "OneKey" >> beam.Map(_one_key)
            | "Gather" >> beam.GroupByKey()
            | "Commit" >> beam.Map(_append, place, kind, self.backbone.about(), newest)
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


class Scored(NamedTuple):
    """What `ScoreImages` gives."""

    scores: PCollection[Score]
    rejects: PCollection[Reject]


@dataclass
class ScoreImages(beam.PTransform):
    """`Image`s → `Score`s, one for each model; a picture that gives none comes out as a `Reject`.

    Attributes:
        models: the model, or several of one backbone.
        backbone: the one that they were trained on, or those whose vectors they take side by
            side; by default, what this machine has under their names.
        top_k: labels a score.
        rule: when a label is given.
        limits: of what is read.
    """

    models: Models
    backbone: Backbones | None = None
    top_k: int = TOP_K
    rule: Rule | None = None
    limits: Limits = field(default_factory=Limits)

    def expand(self, images: PCollection[Image]) -> Scored:
        bundle = bundles_of(self.models)[0]
        networks = several(self.backbone) if self.backbone else networks_of(bundle)
        require_networks(networks, bundle)
        computed = images | "Compute" >> ComputeBottlenecks(networks, self.limits)
        scoring = ScoreBottlenecks(self.models, self.top_k, self.rule)
        scores = computed.bottlenecks | "Label" >> scoring
        return Scored(scores, computed.rejects)


class _Compute(beam.DoFn):
    """Elements wait for one another in a bundle; each result has the window and time of its own."""

    def __init__(self, backbones: Sequence[ResolvedBackbone], limits: Limits) -> None:
        self._backbones = backbones
        self._limits = limits

    def start_bundle(self) -> None:
        self._block: list[WindowedValue] = []

    def process(
        self,
        image: Image,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
    ) -> Iterator[Any]:
        self._block.append(WindowedValue(image, timestamp, [window]))
        if len(self._block) >= _BLOCK:
            yield from self._flush()

    def finish_bundle(self) -> Iterator[Any]:
        yield from self._flush()

    def _flush(self) -> Iterator[Any]:
        block, self._block = self._block, []
        if not block:
            return
        images = [held.value for held in block]
        results = collect_joined(start_each(images, self._backbones, self._limits))
        for held, result in zip(block, results, strict=True):
            value = held.with_value(result)
            yield TaggedOutput(REJECTS, value) if isinstance(result, Reject) else value


class _WriteParts(beam.DoFn):
    """Rows → parts, of one window each: a window is a commit."""

    def __init__(self, place: Place, kind: StoreRows) -> None:
        self._place = place
        self._kind = kind

    def start_bundle(self) -> None:
        self._blocks: defaultdict[Any, list[Bottleneck]] = defaultdict(list)

    def process(
        self, bottleneck: Bottleneck, window: Any = beam.DoFn.WindowParam
    ) -> Iterator[WindowedValue]:
        self._blocks[window].append(bottleneck)
        if len(self._blocks[window]) >= 16 * _BLOCK:
            yield self._flush(window)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for window in list(self._blocks):
            yield self._flush(window)

    def _flush(self, window: Any) -> WindowedValue:
        rows = self._kind.table(self._blocks.pop(window))
        part = write_part(self._place, self._kind, rows)
        return WindowedValue(part, window.max_timestamp(), [window])


def _tagged(result: Any) -> Any:
    return TaggedOutput(REJECTS, result) if isinstance(result, Reject) else result


def _find(sources: list[str]) -> Iterator[Any]:
    yield from (_tagged(f) for f in find_images(sources) if isinstance(f, Image | Reject))


def _read(image: Image, limits: Limits) -> Iterator[Any]:
    content = read_content(image, limits)
    yield _tagged(content) if isinstance(content, Reject) else content[:2]


def _uri(image: Image) -> str:
    return image.uri


def _one_key(part: Part) -> tuple[int, Part]:
    return 0, part


def _append(
    keyed: tuple[int, Iterable[Part]],
    place: Place,
    kind: StoreRows,
    about: dict[str, Any],
    newest: bool,
) -> int:
    return append_window(place, kind, about, sorted(keyed[1], key=lambda part: part.name), newest)


def _read_part(keyed: tuple[str, Iterable[str]], place: Place) -> Iterator[Bottleneck]:
    yield from bottlenecks_of(read_part(place, keyed[0]))


def _score(bottleneck: Bottleneck, kind: ScoreRows) -> Iterator[Score]:
    yield from kind.scores([bottleneck])
