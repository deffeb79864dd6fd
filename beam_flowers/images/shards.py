"""Pictures in tars, WebDataset shards and TFRecord files, listed without unpacking."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from beam_flowers import files
from beam_flowers.files import tfrecord
from beam_flowers.files.archives import address, kind_of
from beam_flowers.files.paths import FileStat
from beam_flowers.files.tar import Damaged, Member, members
from beam_flowers.images.labels import are_splits, is_hidden, label_and_split
from beam_flowers.records import Hidden, Image, Reject, RootListed

_SIDECARS = ("cls", "json", "txt")
"""What WebDataset keeps a label in, the first that has one counts."""
_LARGEST_SIDECAR = 1 << 20
_LABEL_KEYS = ("label", "class", "class_name", "cls")

DAMAGED = "DamagedShard"
"""`Reject.error_class` of a file that was read and is not whole."""

Listed = Image | Reject | Hidden | RootListed


def is_shard(uri: str) -> bool:
    """Whether a file's name says that it is a tar or a TFRecord file."""
    return kind_of(uri) is not None


def find_in_shard(uri: str) -> Iterator[Listed]:
    """The pictures in a file; whatever is wrong with it is one reject, under its own name.

    In a tar the label is what a sibling says (`1.cls`, `1.json` with `label`, or `1.txt` of one
    line, beside `1.jpg`: WebDataset's convention), else the first folder; where all lies in one
    folder that holds others, the first folder below that. In a TFRecord file it is
    `image/class/text`, `label` or `image/class/label` of the tf.train.Example whose
    `image/encoded` or `image` is the picture. `modified` is the later one of the member's time
    and the file's.

    Args:
        uri: absolute; it becomes `Image.root`.
    """
    listing = {"tar": _find_in_tar, "tfrecord": _find_in_records}[kind_of(uri) or "tar"]
    itself = Image(uri, uri, posixpath.basename(uri))
    complete = False
    try:
        status = files.stat(uri)
        itself = itself._replace(bytes=status.bytes, modified=status.modified)
        with files.open_read(uri) as file:
            yield from listing(file, uri, status)
        complete = True
    except Damaged as damage:
        yield Reject(itself, "find", DAMAGED, f"of this file not all is used: {damage}")
    except OSError as error:
        yield Reject(itself, "find", type(error).__name__, error.strerror or str(error))
    yield RootListed(uri, complete)


def _find_in_tar(file: BinaryIO, uri: str, status: FileStat) -> Iterator[Listed]:
    found, problem = members(file, status.bytes)
    labels = _sibling_labels(found, file)
    by_folder = _folder_rule(found)
    for name, member in found.items():
        if _sample(name) in labels and _extension(name) in _SIDECARS:
            continue
        label, split = by_folder(name)
        modified = max(member.modified, status.modified)
        image = Image(
            files.printable(address(uri, "tar", name)),
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
        return Hidden(image.uri)
    if not files.is_text(name):
        return Reject(image, "find", "BadName", "the name is not valid UTF-8")
    if member.link is not None:
        bare = image._replace(bytes=None, modified=None)
        return Reject(bare, "find", "NotARegularFile", "a link, a device or a file with holes")
    return image


def _sample(name: str) -> str:
    """WebDataset's key: the path up to the first dot of its last component."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _extension(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[2].lower()


def _sibling_labels(found: Mapping[str, Member], file: BinaryIO) -> dict[str, str | None]:
    """Sample → label, of those samples that have a sidecar and something beside it."""
    sidecars: dict[str, dict[str, Member]] = {}
    others = set()
    for name, member in found.items():
        if is_hidden(name):
            continue
        if _extension(name) in _SIDECARS and member.link is None:
            sidecars.setdefault(_sample(name), {})[_extension(name)] = member
        else:
            others.add(_sample(name))
    return {key: _first_label(sidecars[key], file) for key in sidecars if key in others}


def _first_label(sidecars: Mapping[str, Member], file: BinaryIO) -> str | None:
    for extension in _SIDECARS:
        member = sidecars.get(extension)
        if member and member.size <= _LARGEST_SIDECAR:
            file.seek(member.offset)
            label = _label_in(extension, file.read(member.size))
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
    """Label and split by folder. A tar made of one folder (`tar -cf x.tar flowers`) is that
    folder."""
    paths = [name.split("/") for name in found if not is_hidden(name)]
    firsts = {path[0] for path in paths}
    nested = any(len(path) > 2 for path in paths) and all(len(path) > 1 for path in paths)
    root = 1 if len(firsts) == 1 and nested else 0
    splits = are_splits({path[root] for path in paths if len(path) > root + 1})

    def rule(name: str) -> tuple[str | None, str | None]:
        label, split = label_and_split("/".join(name.split("/")[root:]) or name, splits)
        return (files.printable(label) if label else None), split

    return rule


def _find_in_records(file: BinaryIO, uri: str, status: FileStat) -> Iterator[Listed]:
    for number, (offset, length) in enumerate(tfrecord.records(file, status.bytes)):
        bare = Image(address(uri, "tfrecord", str(number)), uri, str(number))
        file.seek(offset)
        try:
            picture, label = tfrecord.parse(file.read(length))
        except Damaged as damage:
            yield Reject(bare, "find", "BadRecord", str(damage))
            continue
        yield bare._replace(label=label, bytes=len(picture), modified=status.modified)
