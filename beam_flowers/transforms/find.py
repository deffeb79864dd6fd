"""Transforms that find and read images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Any, NamedTuple, TypeAlias

import apache_beam as beam
from apache_beam.io.fileio import ReadableFile
from apache_beam.io.filesystem import FileMetadata
from apache_beam.pvalue import PBegin, PCollection, TaggedOutput

from beam_flowers import files
from beam_flowers.backbones.compute import read_content
from beam_flowers.errors import InputError
from beam_flowers.images.find import find_images
from beam_flowers.images.recipe import Limits
from beam_flowers.records import Image, Reject
from beam_flowers.transforms.streaming import Spread

REJECTS = "rejects"

Source: TypeAlias = Image | str | ReadableFile | FileMetadata
"""An element that names one image."""


class FoundImages(NamedTuple):
    """Holds the outputs of `FindImages`."""

    images: PCollection[Image]
    rejects: PCollection[Reject]


class ImageContents(NamedTuple):
    """Holds the outputs of `ReadImages`."""

    contents: PCollection[tuple[Image, bytes]]
    rejects: PCollection[Reject]


@dataclass
class FindImages(beam.PTransform):
    """Lists images, each file once; files that the listing rejects come out as `Reject`s.

    Takes the beginning of a pipeline and `sources`, or a collection of such sources. Of one file
    that several sources list, the first listing with a label counts, as in the commands; in a
    collection the sources are ordered by name. In windows and without an end, nothing is merged.

    Attributes:
        sources: folders, globs, list files, manifests or images; None where they are elements.
        manifest_schemes: that rows of manifests and lists may name besides local files and the
            scheme of the manifest; rows of others are rejects.

    Raises:
        InputError: both, or neither, are given. When the pipeline runs: a source is missing, or
            gives one file two labels.
    """

    sources: Sequence[str | PathLike[str]] | str | PathLike[str] | None = None
    manifest_schemes: Sequence[str] = ()

    def expand(self, start: PBegin | PCollection[str]) -> FoundImages:
        found = self._listed(start)
        # Listings of one file can only be compared where all of them come together some time.
        if found.is_bounded and found.windowing.is_default():
            found = found | "ByUri" >> beam.GroupByKey() | "Merge" >> beam.Map(_first)
        else:
            found = found | "Each" >> beam.MapTuple(_found)
        tagged = found | "Sort" >> beam.Map(_tagged).with_outputs(REJECTS, main="images")
        return FoundImages(tagged.images, tagged.rejects)

    def _listed(self, start: PBegin | PCollection[str]) -> PCollection[Any]:
        if isinstance(start, PBegin) == (self.sources is None):
            raise InputError(
                "FindImages takes sources, or a collection of them: `pipeline | "
                "FindImages(['photos'])` or `sources | FindImages()`"
            )
        if self.sources is None:
            listed = beam.FlatMap(_list_one, schemes=self.manifest_schemes)
            return start | "Spread" >> Spread(str) | "List" >> listed
        named = self.sources
        sources = [fspath(s) for s in ([named] if isinstance(named, str | PathLike) else named)]
        # One element, as `find_images` checks all sources before it lists the first. A reshuffle of
        # it would only add a stage.
        return (
            start
            | "Sources" >> beam.Create([sources], reshuffle=False)
            | "List" >> beam.FlatMap(_list, schemes=self.manifest_schemes)
        )


@dataclass
class ReadImages(beam.PTransform):
    """Reads images: gives (`Image`, its bytes); unreadable ones come out as `Reject`s.

    Takes what `ComputeEmbeddings` takes. Keep what follows in the same stage: contents should not
    cross a shuffle.
    """

    limits: Limits = field(default_factory=Limits)

    def expand(self, images: PCollection[Source]) -> ImageContents:
        require_collection(images, "ReadImages")
        read = (
            images
            | "Images" >> beam.Map(as_image)
            | "Read"
            >> beam.FlatMap(_read, limits=self.limits).with_outputs(REJECTS, main="contents")
        )
        return ImageContents(read.contents, read.rejects)


def require_collection(images: Any, step: str) -> None:
    """Raises InputError for the outputs of a step in place of one of them."""
    if isinstance(images, tuple):
        raise InputError(
            f"{step} takes one collection, not all outputs of a step: `found.images | {step}(...)`"
        )


def as_image(source: Source) -> Image:
    """Makes an `Image` of what names one; only an `Image` has a label.

    Raises:
        InputError: it is something else.
    """
    if isinstance(source, Image):
        return source
    found = source.metadata if isinstance(source, ReadableFile) else source
    if isinstance(found, FileMetadata):
        return _described(found)
    if not isinstance(found, str) or not found:
        raise InputError(
            f"an image is named by an Image, a uri or a ReadableFile, not by {found!r}: map the "
            "elements to one of them first"
        )
    uri = files.absolute(found)
    root = files.parent(uri)
    image = Image(uri, root, files.relative(uri, root))
    if files.is_local(uri):
        # Elsewhere this would be a request for each image. One that is not there is a reject later.
        with contextlib.suppress(OSError, ValueError):
            status = files.stat(uri)
            return image._replace(bytes=status.bytes, modified=status.modified)
    return image


def _described(found: FileMetadata) -> Image:
    """Makes an `Image` with size and time as `find_images` has them."""
    image = as_image(found.path)
    if image.modified is not None:
        return image
    # Beam's are fractions of a second; `files.s3` has whole ones.
    seconds = found.last_updated_in_seconds
    whole = int(seconds) if found.path.startswith("s3://") else seconds
    return image._replace(bytes=found.size_in_bytes, modified=int(whole * 1_000_000) or None)


_Listed = tuple[str, tuple[str, int, Image | Reject]]
"""Uri; then the source, the position in its listing, and what was listed."""


def _list(sources: Sequence[str], name: str = "", schemes: Sequence[str] = ()) -> Iterator[_Listed]:
    every = find_images(sources, schemes)
    listed = (found for found in every if isinstance(found, Image | Reject))
    for position, found in enumerate(listed):
        image = found if isinstance(found, Image) else found.image
        yield image.uri, (name, position, found)


def _list_one(source: str, schemes: Sequence[str] = ()) -> Iterator[_Listed]:
    return _list([source], source, schemes)


def _found(uri: str, listed: tuple[str, int, Image | Reject]) -> Image | Reject:
    return listed[2]


def _first(keyed: tuple[str, Iterable[tuple[str, int, Image | Reject]]]) -> Image | Reject:
    """Chooses of the listings of one file, by the rule of `store.ledger_sql.LISTED`."""
    uri, listings = keyed
    ordered = sorted(listings, key=lambda listed: listed[:2])
    images = [found if isinstance(found, Image) else found.image for _, _, found in ordered]
    labels: dict[str, set[str]] = {}
    for image in images:
        if image.label is not None:
            labels.setdefault(image.root, set()).add(image.label)
    for root, names in labels.items():
        if len(names) > 1:
            first, second, *_ = sorted(names)
            raise InputError(
                f"{root} gives {uri} two labels, {first!r} and {second!r}; keep one of them"
            )
    # Stable: the first with a label, else the first.
    return min(zip(images, ordered, strict=True), key=lambda pair: pair[0].label is None)[1][2]


def _tagged(found: Any) -> Any:
    return TaggedOutput(REJECTS, found) if isinstance(found, Reject) else found


def _read(image: Image, limits: Limits) -> Iterator[Any]:
    content = read_content(image, limits)
    yield _tagged(content) if isinstance(content, Reject) else content[:2]
