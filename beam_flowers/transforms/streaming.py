"""Watches folders for new images, in pipelines without an end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.io.fileio import EmptyMatchTreatment, MatchContinuously
from apache_beam.io.filesystem import FileMetadata
from apache_beam.options.pipeline_options import PortableOptions
from apache_beam.pvalue import PBegin, PCollection
from apache_beam.runners.direct.direct_runner import SwitchingDirectRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.portability.portable_runner import PortableRunner

from beam_flowers import files
from beam_flowers.errors import InputError
from beam_flowers.images.find import has_splits
from beam_flowers.images.labels import SPLITS, is_hidden, label_and_split
from beam_flowers.records import Image


@dataclass
class WatchImages(beam.PTransform):
    """Gives the `Image`s of a folder and those that arrive while the pipeline runs.

    A file that changes comes again. Hidden files are skipped: write under a name that starts with a
    dot, then rename, so that no image is read half written. The event time of an `Image` is that of
    the look that found it. Labels and splits are those of `FindImages`; the folders are tested for
    names of splits once, when the pipeline is made.

    Attributes:
        folder: an existing folder, local or not, without `*`, `?` and `[` in its path; all below it
            is watched.
        interval: seconds between two looks.
    """

    folder: str
    interval: float = 10.0

    def expand(self, pbegin: PBegin) -> PCollection[Image]:
        root = files.absolute(self.folder)
        if not files.is_folder(root):
            raise InputError(f"{root!r} is no folder that could be watched; make it first")
        if set("*?[") & set(root):
            raise InputError(
                f"{root!r} cannot be watched: Beam would take the *, ? or [ in it for a pattern; "
                "rename the folder, or watch one above it that has none of them"
            )
        matches = MatchContinuously(
            files.join(root, "**"),
            interval=self.interval,
            match_updated_files=True,
            empty_match_treatment=EmptyMatchTreatment.ALLOW,
        )
        found = pbegin | "Watch" >> matches
        require_streaming(found)
        return found | "Arrived" >> beam.FlatMap(arrived, root=root, splits=has_splits(root))


def arrived(match: FileMetadata, root: str, splits: bool = False) -> Iterator[Image]:
    """Yields the `Image` of a file below `root`, unless it is hidden."""
    uri = files.printable(match.path)
    path = files.relative(uri, root)
    if not is_hidden(path):
        # A folder that came later may be no split, whatever the others are.
        label, split = label_and_split(path, splits and path.split("/")[0] in SPLITS)
        modified = int(match.last_updated_in_seconds * 1_000_000)
        yield Image(uri, root, path, label, split, match.size_in_bytes, modified)


def require_streaming(found: PCollection[Any]) -> None:
    """Refuses a collection without an end on a runner that would stop after its first elements.

    Raises:
        InputError: names a runner that will do.
    """
    runner = found.pipeline.runner
    options = found.pipeline.options.view_as(PortableOptions)
    embedded = isinstance(runner, PortableRunner) and options.job_endpoint == "embed"
    in_process = isinstance(runner, FnApiRunner | SwitchingDirectRunner)
    if not found.is_bounded and (embedded or in_process):
        raise InputError(
            f"{type(runner).__name__} stops after the first look at a source without an end: run "
            "with --runner=PrismRunner --streaming (a program that Beam downloads, or that "
            "--prism_location names), or on a cluster that streams"
        )


@dataclass
class Spread(beam.PTransform):
    """Elements → the same on all workers, windows and times kept.

    Attributes:
        key: element → what tells it from others.
    """

    key: Callable[[Any], str]

    def expand(self, elements: PCollection[Any]) -> PCollection[Any]:
        # A group without an end would never be complete.
        if not elements.is_bounded or not elements.windowing.is_default():
            require_streaming(elements)
            return elements | "Reshuffle" >> beam.Reshuffle()
        # Flink's batch jobs ignore Reshuffle (apache/beam#30621).
        return (
            elements
            | "AddKey" >> beam.Map(_keyed, key=self.key)
            | "Group" >> beam.GroupByKey()
            | "DropKey" >> beam.FlatMap(values)
        )


def _keyed(element: Any, key: Callable[[Any], str]) -> tuple[str, Any]:
    return key(element), element


def values(keyed: tuple[Any, Iterable[Any]]) -> Iterator[Any]:
    """Yields what was grouped."""
    yield from keyed[1]
