"""Transforms that read and write stores and score tables; they open them when the pipeline runs."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import apache_beam as beam
from apache_beam.pvalue import AsSingleton, PBegin, PCollection
from apache_beam.utils.windowed_value import WindowedValue

from beam_flowers import files
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import InputError, OutputError
from beam_flowers.images.outputs import Writing
from beam_flowers.records import Embedding, Reject, Score
from beam_flowers.scoring.decision import AcceptanceRule
from beam_flowers.scoring.ranking import TOP_K, Models, bundles_of
from beam_flowers.scoring.table import ScoreLayout, ScoreRows
from beam_flowers.scoring.table_folder import check_table_folder
from beam_flowers.scoring.write_table import require_kind, suffix
from beam_flowers.store.append import append_window, store_place
from beam_flowers.store.commits import latest, require_table_place
from beam_flowers.store.features import choose_section, open_store
from beam_flowers.store.parts import Part, Place, RejectRows, read_part, write_part
from beam_flowers.store.schema import StoreRows, embeddings_of, rejects_table
from beam_flowers.transforms.streaming import values

# A pipeline does not know how many rows will come, so that parts have a fixed size.
_PART_ROWS = 4096

Rows: TypeAlias = StoreRows | ScoreRows


class StoredPart(NamedTuple):
    """Names a part of a store to read."""

    place: Place
    name: str


@dataclass
class ListParts(beam.PTransform):
    """Lists the parts of a store, as the newest commit names them, over all workers.

    Attributes:
        store: folder.
        backbone: its name; may be left out where the store has only one.
    """

    store: str
    backbone: str | None = None

    def expand(self, pbegin: PBegin) -> PCollection[StoredPart]:
        return (
            pbegin
            | "Once" >> beam.Impulse()
            | "OpenStore" >> beam.FlatMap(_list_parts, store=self.store, backbone=self.backbone)
            | "Spread" >> beam.GroupByKey()
            | "Parts" >> beam.FlatMap(values)
        )


@dataclass
class ReadStore(beam.PTransform):
    """Reads the `Embedding`s of a store, as the newest commit names them when this runs.

    Attributes:
        store: folder.
        backbone: its name; may be left out where the store has only one.

    Raises:
        StoreError: when the pipeline runs: there is no such store, or none of the backbone's
            vectors in it.
    """

    store: str
    backbone: str | None = None

    def expand(self, pbegin: PBegin) -> PCollection[Embedding]:
        parts = pbegin | "ListParts" >> ListParts(self.store, self.backbone)
        return parts | "ReadParts" >> beam.FlatMap(_read_part)


@dataclass
class WriteStore(beam.PTransform):
    """Writes `Embedding`s and `Reject`s into a feature store, in one commit.

    Takes a collection or a tuple of collections, with either kind of element or both. Stored rows
    and rejects of the same uris are replaced, with their labels; all others stay.

    In windows and without an end each window is a commit, and of several rows of one uri that of
    the file modified last is kept, of files of unknown time any one; elsewhere they are an error.

    Gives the number of rows written, once, after the commit.

    Attributes:
        store: folder; made if absent.
        backbone: the one that the vectors were computed with.
    """

    store: str
    backbone: ResolvedBackbone

    def expand(self, elements: PCollection[Any] | tuple[PCollection[Any], ...]) -> PCollection[int]:
        backbone = self.backbone
        about = {**backbone.about(), "engine": backbone.engine}
        row_kind = StoreRows(backbone.fingerprint, backbone.row.name, backbone.vectors)
        settings = {"store": self.store, "backbone": backbone}
        return elements | "Write" >> _WriteTable(_open_store, settings, row_kind, about)


@dataclass
class WriteScores(beam.PTransform):
    """Writes `Score`s and `Reject`s into a score table, in one commit.

    Takes a collection or a tuple of collections, with either kind of element or both. The table is
    a folder of Parquet parts, as `beam-flowers score` writes it: rows of the same uris are
    replaced, all others stay.

    Gives the number of rows written, once, after the commit.

    Attributes:
        output: folder; new, empty, or a table by the same models and rule.
        models: those that gave the scores.
        top_k: labels a row; those of the scores beyond it are left out.
        rule: by which the labels were given.
        formats: a column `format`, see `DecodedImage.format`; rows of images that
            `Limits.salvage` took say so there.

    Raises:
        OutputError: `output` is named like a file. When the pipeline runs: something else is
            there, or a table by other models.
        InputError: when the pipeline runs: a score is by another model.
    """

    output: str
    models: Models
    top_k: int = TOP_K
    rule: AcceptanceRule | None = None
    formats: bool = False

    def expand(self, elements: PCollection[Any] | tuple[PCollection[Any], ...]) -> PCollection[int]:
        require_kind(self.output)
        if suffix(self.output):
            raise OutputError(
                f"{self.output!r} is named like a file, and a pipeline writes a folder of parts: "
                "name a folder, or use `beam-flowers score` for one file"
            )
        layout = ScoreLayout(self.top_k, formats=self.formats)
        row_kind = ScoreRows.of(self.models, self.rule, layout).unweighted()
        about = {**row_kind.about(), "backbone": bundles_of(self.models)[0].backbone}
        if row_kind.rows_each > 1:
            elements = _flat(elements) | "Together" >> _ByUri()
        settings = {"output": self.output, "fingerprint": row_kind.fingerprint}
        return elements | "Write" >> _WriteTable(_open_table, settings, row_kind, about)


class _Target(NamedTuple):
    """Holds the table as the first step of the pipeline found it."""

    place: Place
    encoding: str


@dataclass
class _WriteTable(beam.PTransform):
    """Writes rows and rejects as parts, then commits those of each window."""

    opened: Callable[..., _Target]
    settings: Mapping[str, Any]
    row_kind: Rows
    about: dict[str, Any]

    def expand(self, elements: PCollection[Any] | tuple[PCollection[Any], ...]) -> PCollection[int]:
        elements = _flat(elements)
        # Drawn once a run, not when the pipeline is built: a graph may be submitted twice. Behind
        # the grouping it stays what it is when a later step is repeated.
        target = AsSingleton(
            elements.pipeline
            | "Once" >> beam.Impulse()
            | "Open" >> beam.Map(self.opened, **self.settings)
            | "Key" >> beam.Map(_one_key)
            | "Settle" >> beam.GroupByKey()
            | "Target" >> beam.FlatMap(values)
        )
        # A window may hold two listings of one file; in one listing two rows are a fault.
        newest = not elements.is_bounded or not elements.windowing.is_default()
        return (
            elements
            | "WriteParts" >> beam.ParDo(_WriteParts(self.row_kind), target)
            | "OneKey" >> beam.Map(_one_key)
            | "Gather" >> beam.GroupByKey()
            | "Commit" >> beam.Map(_append, target, self.row_kind, self.about, newest)
        )


class _WriteParts(beam.DoFn):
    """Writes parts of rows or rejects, each of one window: a window is a commit."""

    def __init__(self, row_kind: Rows) -> None:
        self._row_kind = row_kind
        self._wanted = (Score if isinstance(row_kind, ScoreRows) else Embedding, Reject)

    def start_bundle(self) -> None:
        self._blocks: defaultdict[Any, list[Any]] = defaultdict(list)

    def process(
        self, element: Any, target: _Target, window: Any = beam.DoFn.WindowParam
    ) -> Iterator[WindowedValue]:
        self._target = target  # finish_bundle() has no side inputs.
        if not isinstance(element, self._wanted):
            names = " and ".join(sorted(wanted.__name__ for wanted in self._wanted))
            raise InputError(
                f"this step writes elements that are {names}, not {type(element).__name__}"
            )
        block = self._blocks[window, isinstance(element, Reject)]
        block.append(element)
        # Rows of one image stand together, and in one part.
        if len(block) >= _PART_ROWS and len(block) % self._row_kind.rows_each == 0:
            yield self._flush(window, isinstance(element, Reject))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for window, is_reject in list(self._blocks):
            yield self._flush(window, is_reject)

    def _flush(self, window: Any, is_reject: bool) -> WindowedValue:
        place, elements = self._target.place, self._blocks.pop((window, is_reject))
        if is_reject:
            part = write_part(place, RejectRows(), rejects_table(elements))
        else:
            own = _encoded(self._row_kind, self._target)
            rows = own.scored(elements) if isinstance(own, ScoreRows) else own.table(elements)
            part = write_part(place, own, rows)
        # A part has no time of its own: it gets the end of its window, as grouped elements do.
        return WindowedValue(part, window.max_timestamp(), [window])


class _ByUri(beam.PTransform):
    """Puts the scores of one image by several models next to each other."""

    def expand(self, elements: PCollection[Any]) -> PCollection[Any]:
        return (
            elements
            | "AddKey" >> beam.Map(_keyed)
            | "Group" >> beam.GroupByKey()
            | "DropKey" >> beam.FlatMap(values)
        )


def _flat(elements: PCollection[Any] | tuple[PCollection[Any], ...]) -> PCollection[Any]:
    several = isinstance(elements, tuple | list)
    return tuple(elements) | beam.Flatten() if several else elements


def _encoded(row_kind: Rows, target: _Target) -> Rows:
    if isinstance(row_kind, StoreRows):
        return replace(row_kind, encoding=target.encoding)
    return row_kind


def _open_store(once: bytes, store: str, backbone: ResolvedBackbone) -> _Target:
    name = backbone.row.name
    place, row_kind = store_place(store, name, backbone.fingerprint, backbone.vectors)
    return _Target(place, row_kind.encoding)


def _open_table(once: bytes, output: str, fingerprint: str) -> _Target:
    root = files.absolute(output)
    check_table_folder(output, Writing())
    require_table_place(root)
    held = latest(root).sections.get("")
    if held and held.fingerprint != fingerprint:
        raise OutputError(
            f"{output!r} has scores by other models, another rule, top_k or layout: name a new "
            "folder, or give those that it was written with"
        )
    return _Target(Place(root, "", fingerprint, secrets.token_hex(8)), "")


def _append(
    keyed: tuple[int, Iterable[Part]],
    target: _Target,
    row_kind: Rows,
    about: dict[str, Any],
    newest: bool,
) -> int:
    # Sorted, as a window's commit is found again by the names of its parts.
    parts = sorted(keyed[1], key=lambda part: part.name)
    return append_window(target.place, _encoded(row_kind, target), about, parts, newest)


def _list_parts(once: bytes, store: str, backbone: str | None) -> Iterator[tuple[str, StoredPart]]:
    root = files.absolute(store)
    key, section = choose_section(root, open_store(root), backbone)
    place = Place(root, key, section.fingerprint)
    for part in section.rows:
        yield part.name, StoredPart(place, part.name)


def _read_part(part: StoredPart) -> Iterator[Embedding]:
    yield from embeddings_of(read_part(part.place, part.name))


def _one_key(element: Any) -> tuple[int, Any]:
    return 0, element


def _keyed(element: Any) -> tuple[str, Any]:
    if not isinstance(element, Score | Reject):
        return "", element  # Refused by the next step.
    return element.image.uri if isinstance(element, Reject) else element.uri, element
