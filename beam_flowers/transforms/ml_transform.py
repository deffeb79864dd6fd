"""Computes embeddings inside of Beam's MLTransform, beside its own preprocessing steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import apache_beam as beam
import numpy as np
import numpy.typing as npt
from apache_beam.ml.transforms.base import EmbeddingsManager
from apache_beam.pvalue import PCollection
from apache_beam.utils.windowed_value import WindowedValue

from beam_flowers import files
from beam_flowers.backbones.compute import pool
from beam_flowers.backbones.decoders import decode_apart
from beam_flowers.backbones.engine import Engine, load
from beam_flowers.backbones.hardware import cores
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import InputError
from beam_flowers.images.recipe import Limits
from beam_flowers.transforms.run_inference import EmbeddingModelHandler
from beam_flowers.transforms.start_ahead import StartAhead

# beam.Row has no types; what it becomes in a schema is a named tuple.
Row: TypeAlias = Any


class ImageEmbeddings(EmbeddingsManager):
    """Replaces images in columns by their embeddings, as a step of Beam's `MLTransform`.

    An image is the content of a file as `bytes`, its uri as `str`, or pixels that `decode` gave:
    uint8 [height, width, 3] in the size that the backbone takes. Its embedding is a list of D
    floats. Elements are dicts or `beam.Row`s; their other columns stay.

    An image that has no embedding raises `ImageError` or `InputError`, which ends the pipeline.
    With `MLTransform(...).with_exception_handling()` only its element goes to the errors.

    Args:
        columns: names of the columns that hold images.
        backbone: the pre-trained network.
        limits: size and cost of a file that is read.
        options: of `EmbeddingsManager`.
    """

    def __init__(
        self,
        columns: list[str],
        backbone: ResolvedBackbone,
        *,
        limits: Limits | None = None,
        **options: Any,
    ) -> None:
        super().__init__(columns=columns, **options)
        self._backbone = backbone
        self._limits = limits or Limits()

    def get_model_handler(self) -> EmbeddingModelHandler:
        """Returns the handler for pixels, which Beam's `RunInference` takes alone."""
        return EmbeddingModelHandler(self._backbone)

    def get_ptransform_for_processing(self, **_: Any) -> beam.PTransform:
        """Returns the transform that `MLTransform` applies."""
        return _EmbedColumns(list(self.columns), self._backbone, self._limits)


@dataclass
class _EmbedColumns(beam.PTransform):
    """Embeds the images in columns of dicts or rows."""

    columns: list[str]
    backbone: ResolvedBackbone
    limits: Limits
    handling: dict[str, Any] | None = None

    def with_exception_handling(self, **options: Any) -> _EmbedColumns:
        """Gives a second output, of elements that failed, as `beam.ParDo` has it."""
        return replace(self, handling=options)

    def expand(
        self, rows: PCollection[Row]
    ) -> PCollection[Row] | tuple[PCollection[Row], PCollection[Any]]:
        embedded = rows | "Embed" >> beam.ParDo(_Embed(self.columns, self.backbone, self.limits))
        # Errors are raised by a step of its own: the one before works on several elements at a
        # time, while Beam's handling takes for failed what the step has in hand.
        unwrapped = beam.Map(_result)
        if self.handling is None:
            return embedded | "Result" >> unwrapped
        good, failed = embedded | "Result" >> unwrapped.with_exception_handling(**self.handling)
        return good, failed | "Element" >> beam.MapTuple(lambda pair, error: (pair[0], error))


def _result(pair: tuple[Row, Row | Exception]) -> Row:
    if isinstance(pair[1], Exception):
        raise pair[1]
    return pair[1]


class _Embed(beam.DoFn):
    """Gives (element, element with embeddings or the error), in the order of a bundle."""

    def __init__(self, columns: Sequence[str], backbone: ResolvedBackbone, limits: Limits) -> None:
        self._columns = columns
        self._backbone = backbone
        self._limits = limits

    def setup(self) -> None:
        self._engine = load(self._backbone)

    def start_bundle(self) -> None:
        # Several for each core, so that one slow image does not leave the other threads idle.
        self._work: StartAhead[tuple[WindowedValue, Future[Any]], WindowedValue] = StartAhead(
            _collect, ahead=4 * cores()
        )

    def process(
        self,
        row: Row,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
    ) -> Iterator[WindowedValue]:
        held = WindowedValue(row, timestamp, [window])
        started = pool().submit(_embed, row, self._columns, self._engine, self._limits)
        yield from self._work.add((held, started))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        yield from self._work.rest()


def _collect(started: tuple[WindowedValue, Future[Row | Exception]]) -> WindowedValue:
    held, future = started
    return held.with_value((held.value, future.result()))


def _embed(row: Row, columns: Sequence[str], engine: Engine, limits: Limits) -> Row | Exception:
    try:
        values = row if isinstance(row, dict) else row._asdict()
        absent = [column for column in columns if column not in values]
        if absent:
            raise InputError(f"no column {absent[0]!r}: the columns are {', '.join(values)}")
        pixels = [_pixels(values[column], column, engine, limits) for column in columns]
        embeddings = engine.embed(np.stack(pixels)).tolist()
    except Exception as error:
        # Any error belongs to this element alone; the next step raises it.
        return error
    embedded = values | dict(zip(columns, embeddings, strict=True))
    return embedded if isinstance(row, dict) else beam.Row(**embedded)


def _pixels(value: object, column: str, engine: Engine, limits: Limits) -> npt.NDArray[np.uint8]:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, str):
        try:
            value = files.read_bytes(uri := value, limits.max_bytes + 1)
        except OSError as error:
            raise InputError(f"{uri} cannot be read: {error.strerror or error}") from error
    if not isinstance(value, bytes):
        raise InputError(
            f"column {column!r} holds {type(value).__name__}: give the content of an image file "
            "as bytes, its uri as text, or pixels as uint8 [height, width, 3]"
        )
    return decode_apart(value, engine.recipe, limits).pixels
