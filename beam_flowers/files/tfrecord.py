"""Reads images in TFRecord files of tf.train.Example without TensorFlow.

A record (https://www.tensorflow.org/tutorials/load_data/tfrecord) is its length, the checksum of
that, the data and the checksum of the data. The data are a message of protobuf
(https://protobuf.dev/programming-guides/encoding), of which two features are read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO, NamedTuple

import google_crc32c

from beam_flowers.files.paths import MemberError
from beam_flowers.files.tar import Damaged, refuse_compressed

_IMAGES = (b"image/encoded", b"image", b"image_raw", b"jpg", b"png")
_LABELS = (b"image/class/text", b"label", b"image/class/label", b"class")
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_LARGEST_RECORD = 1 << 29
"""Bytes. A sparse file may claim any size, and protobuf accepts less than twice this."""


_NOTHING = memoryview(b"")
_MOST_FIELDS = 10_000


class Example(NamedTuple):
    """Holds a labelled image.

    Attributes:
        image: bytes of the encoded file.
        label: the given label as text, or None.
    """

    image: bytes
    label: str | None


def places(file: BinaryIO, size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields number and span of each record up to the first damage."""
    with suppress(Damaged):
        for number, span in enumerate(records(file, size)):
            yield str(number), span


def records(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """Yields offset and length of the data of each complete record.

    Raises:
        Damaged: after the last one, if other bytes follow it.
    """
    at = number = 0
    while at < size:
        file.seek(at)
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            raise Damaged(f"it is cut short within record {number}")
        length, checksum = _HEADER.unpack(header)
        if checksum != _masked_crc32c(header[:8]):
            if number == 0:
                # Only now: a valid length may begin as a compressed file does.
                file.seek(0)
                refuse_compressed(file)
            raise Damaged(f"it is no TFRecord file, or damaged, at byte {at} (record {number})")
        data, at = at + _HEADER.size, at + _HEADER.size + length + _FOOTER.size
        if at > size:
            raise Damaged(f"it is cut short within record {number}")
        yield data, length
        number += 1


def read(file: BinaryIO, span: tuple[int, ...], limit: int | None) -> bytes:
    """Reads the image in a record, or its first `limit` bytes.

    Raises:
        MemberError: the record is damaged or has no image.
    """
    return read_example(file, *span).image[:limit]


def read_example(file: BinaryIO, offset: int, size: int) -> Example:
    """Reads the example in the record of `size` bytes at `offset`.

    Raises:
        MemberError: the record is damaged or has no image.
    """
    if size > _LARGEST_RECORD:
        raise MemberError("BadRecord", f"the record has {size} bytes, above {_LARGEST_RECORD}")
    file.seek(offset)
    data = file.read(size)
    (checksum,) = _FOOTER.unpack(file.read(_FOOTER.size).ljust(_FOOTER.size, b"\0"))
    if len(data) < size or checksum != _masked_crc32c(data):
        raise MemberError("BadChecksum", "the record's bytes are not those that were written")
    return parse(data)


def parse(data: bytes) -> Example:
    """Returns the image and the label of a serialised tf.train.Example.

    Raises:
        MemberError: it is not an Example, or has no image.
    """
    try:
        features = _features(memoryview(data))
        for name in _IMAGES:
            image = _first(features.get(name, _NOTHING))[0]
            if image is not None:
                return Example(bytes(image), _label(features))
    except ValueError as error:
        raise MemberError("BadRecord", f"the record is no tf.train.Example: {error}") from error
    held = ", ".join(sorted(name.decode("utf-8", "replace") for name in features)) or "nothing"
    raise MemberError("BadRecord", f"the record has no image/encoded; it has {held[:200]}")


def _label(features: dict[bytes, memoryview]) -> str | None:
    for name in _LABELS:
        text, number = _first(features.get(name, _NOTHING))
        if text is not None:
            return bytes(text).decode("utf-8", "replace")
        if number is not None:
            return str(number - (1 << 64) if number >> 63 else number)
    return None


def _features(example: memoryview) -> dict[bytes, memoryview]:
    """Returns each tf.train.Feature by its name; the later of two equal names, as protobuf does."""
    by_name = {}
    # A map is a repeated pair of key and value.
    for features in _messages(example, 1, most=100):
        for pair in _messages(features, 1):
            key = value = _NOTHING
            for number, field in _fields(pair):
                if isinstance(field, memoryview):
                    key, value = (field, value) if number == 1 else (key, field)
            by_name[bytes(key)] = value
    return by_name


def _first(feature: memoryview) -> tuple[memoryview | None, int | None]:
    """Returns the first text of a feature and its first integer, each None if missing."""
    text = integer = None
    for number, values in _fields(feature):
        if not isinstance(values, memoryview):
            continue
        _, value = next(_fields(values), (0, None))
        if number == 1 and text is None and isinstance(value, memoryview):
            text = value
        elif number == 3 and integer is None and value is not None:
            # A list of integers is one field with all of them.
            integer = value if isinstance(value, int) else _varint(value, 0)[0]
    return text, integer


def _messages(data: memoryview, wanted: int, most: int = _MOST_FIELDS) -> Iterator[memoryview]:
    for number, value in _fields(data, most):
        if number == wanted and isinstance(value, memoryview):
            yield value


def _fields(data: memoryview, most: int = _MOST_FIELDS) -> Iterator[tuple[int, int | memoryview]]:
    """Yields number and value of each field of a protobuf message without copies.

    Protobuf itself takes thirty times the memory of a message of empty fields.

    Raises:
        ValueError: it is not such a message, or has more fields.
    """
    at = count = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire_type = tag & 7
        value: int | memoryview
        if wire_type == 0:
            value, at = _varint(data, at)
        else:
            if wire_type == 2:
                length, at = _varint(data, at)
            elif wire_type in (1, 5):
                length = 8 if wire_type == 1 else 4
            else:
                raise ValueError(f"a field of kind {wire_type}")
            value, at = data[at : at + length], at + length
        count += 1
        if at > len(data) or count > most:
            raise ValueError("it is cut short" if at > len(data) else f"above {most} fields")
        yield tag >> 3, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Reads an integer of seven bits a byte, lowest first; returns it and the byte behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value & (1 << 64) - 1, at
    raise ValueError("an integer has no end")


def _masked_crc32c(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
