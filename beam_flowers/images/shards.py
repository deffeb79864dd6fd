"""Lists images in tars, WebDataset shards, zips and TFRecord files without unpacking."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, BinaryIO

from beam_flowers import files
from beam_flowers.files import tar, tfrecord, zips
from beam_flowers.files.archives import address, kind_of
from beam_flowers.files.paths import FileStat
from beam_flowers.files.tar import Damaged
from beam_flowers.images.labels import are_splits, is_hidden, label_and_split
from beam_flowers.records import HiddenFile, Image, Listed, Reject, RootListed

_SIDECARS = ("cls", "json", "txt")
"""Extensions of WebDataset's labels; the first file with a label counts."""
_LARGEST_SIDECAR = 1 << 20
_LABEL_KEYS = ("label", "class", "class_name", "cls")

Member = tar.Member | zips.Member

DAMAGED = "DamagedShard"
"""`Reject.error_class` of an archive that was read and is incomplete."""


def is_shard(uri: str) -> bool:
    """Tells if a file has the name of a tar, a zip or a TFRecord file."""
    return kind_of(uri) is not None


def find_in_shard(uri: str) -> Iterator[Listed]:
    """Lists the images in an archive; damage of the archive is one reject under its own name.

    In a tar or zip a sibling gives the label (`1.cls`, `1.json` with `label`, or `1.txt` of one
    line, beside `1.jpg`: WebDataset's convention), else the first folder. If one folder holds all
    others, it is the first folder below that. In a TFRecord file the label is `image/class/text`,
    `label` or `image/class/label` of the tf.train.Example whose `image/encoded` or `image` is the
    image. `modified` is the later of the member's time and the archive's.

    Args:
        uri: absolute address; it becomes `Image.root`.
    """
    file_type = kind_of(uri) or "tar"
    itself = Image(uri, uri, posixpath.basename(uri))
    complete = False
    try:
        status = files.stat(uri)
        itself = itself._replace(bytes=status.bytes, modified=status.modified)
        with files.open_read(uri) as file:
            if file_type == "tfrecord":
                yield from _find_in_records(file, uri, status)
            else:
                yield from _find_in_archive(file, uri, status, file_type)
        complete = True
    except Damaged as damage:
        yield Reject(itself, "find", DAMAGED, f"of this file not all is used: {damage}")
    except OSError as error:
        yield Reject(itself, "find", type(error).__name__, error.strerror or str(error))
    yield RootListed(uri, complete)


def _find_in_archive(
    file: BinaryIO, uri: str, status: FileStat, file_type: str
) -> Iterator[Listed]:
    reader: ModuleType = {"tar": tar, "zip": zips}[file_type]
    found: dict[str, Member]
    found, problem = reader.members(file, status.bytes)
    labels = _sibling_labels(found, file, reader)
    by_folder = _folder_rule(found)
    for name, member in found.items():
        if _sample(name) in labels and _extension(name) in _SIDECARS:
            continue
        label, split = by_folder(name)
        modified = max(member.modified, status.modified)
        image = Image(
            files.printable(address(uri, file_type, name)),
            uri,
            files.printable(name),
            labels.get(_sample(name)) or label,
            split,
            member.size,
            modified,
        )
        yield _judge(image, name, member)
    if problem:
        raise Damaged(problem)


def _judge(image: Image, name: str, member: Member) -> Listed:
    if is_hidden(name):
        return HiddenFile(image.uri)
    if not files.is_text(name):
        return Reject(image, "find", "BadName", "the name is not valid UTF-8")
    if member.refusal:
        return Reject(image._replace(bytes=None, modified=None), "find", *member.refusal)
    return image


def _sample(name: str) -> str:
    """Returns WebDataset's key: the path up to the first dot of its last component."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _extension(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[2].lower()


def _sibling_labels(
    found: Mapping[str, Member], file: BinaryIO, reader: ModuleType
) -> dict[str, str | None]:
    """Returns label by sample, for samples that have both a sidecar and another member."""
    sidecars: dict[str, dict[str, Member]] = {}
    for name, member in found.items():
        if _is_sidecar(name, member):
            sidecars.setdefault(_sample(name), {})[_extension(name)] = member
    # The names of a large archive take most of the memory, so that only some are kept.
    others = {
        key
        for name, member in found.items()
        if sidecars
        and (key := _sample(name)) in sidecars
        and not is_hidden(name)
        and not _is_sidecar(name, member)
    }
    return {key: _first_label(sidecars[key], file, reader) for key in sidecars if key in others}


def _is_sidecar(name: str, member: Member) -> bool:
    return _extension(name) in _SIDECARS and not member.refusal and not is_hidden(name)


def _first_label(sidecars: Mapping[str, Member], file: BinaryIO, reader: ModuleType) -> str | None:
    for extension in _SIDECARS:
        member = sidecars.get(extension)
        if member and member.size <= _LARGEST_SIDECAR:
            try:
                label = _label_in(extension, reader.read(file, member.span, None))
            except files.MemberError:
                continue
            if label and "\0" not in label:
                return label
    return None


def _label_in(extension: str, data: bytes) -> str | None:
    try:
        text = data.decode().strip()
        if extension != "json":
            return text if "\n" not in text else None
        cells = json.loads(text)
    except (ValueError, RecursionError):
        return None
    values = [cells.get(key) for key in _LABEL_KEYS] if isinstance(cells, dict) else [cells]
    return next((files.printable(str(v)) for v in values if _is_label(v)), None)


def _is_label(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and value != ""


def _folder_rule(found: Mapping[str, Member]) -> Callable[[str], tuple[str | None, str | None]]:
    """Returns a function from a member's name to label and split, by folder.

    A tar of one folder (`tar -cf x.tar flowers`) counts as that folder.
    """
    firsts, depths, splits = set(), set(), set()
    for name in found:
        if not is_hidden(name):
            path = name.split("/")
            firsts.add(path[0])
            depths.add(len(path))
    root = 1 if len(firsts) == 1 and max(depths) > 2 and min(depths) > 1 else 0
    for name in found:
        path = name.split("/", root + 1)
        if len(path) > root + 1 and not is_hidden(name):
            splits.add(path[root])
    has_splits = are_splits(splits)

    def rule(name: str) -> tuple[str | None, str | None]:
        label, split = label_and_split("/".join(name.split("/")[root:]) or name, has_splits)
        return (files.printable(label) if label else None), split

    return rule


def _find_in_records(file: BinaryIO, uri: str, status: FileStat) -> Iterator[Listed]:
    for number, (offset, length) in enumerate(tfrecord.records(file, status.bytes)):
        bare = Image(address(uri, "tfrecord", str(number)), uri, str(number))
        try:
            encoded, label = tfrecord.read_example(file, offset, length)
        except files.MemberError as error:
            yield Reject(bare, "find", error.error_class, str(error))
            continue
        yield bare._replace(label=label, bytes=len(encoded), modified=status.modified)
