"""Pictures in TFRecord files of tf.train.Example, read without TensorFlow.

The framing is a page long (https://www.tensorflow.org/tutorials/load_data/tfrecord): a record is
its length, that length's checksum, the data and the data's checksum. The examples are parsed by
protobuf, which Beam brings. The data's checksum is not looked at: in Python that would take longer
than decoding the picture, which finds most damage, too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple

from beam_flowers.files.tar import Damaged, refuse_compressed

_PICTURES = (b"image/encoded", b"image", b"image_raw", b"jpg", b"png")
_LABELS = (b"image/class/text", b"label", b"image/class/label", b"class")
_HEADER = struct.Struct("<QI")
_FOOTER = 4

# The wire form of tf.train.Example: a map is a repeated pair of key and value.
_SCHEMA = """
name: "beam_flowers/example.proto" package: "beam_flowers" syntax: "proto2"
message_type { name: "Bytes"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES } }
message_type { name: "Integers"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 } }
message_type { name: "Feature"
  field { name: "bytes" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE
          type_name: ".beam_flowers.Bytes" }
  field { name: "integers" number: 3 label: LABEL_OPTIONAL type: TYPE_MESSAGE
          type_name: ".beam_flowers.Integers" } }
message_type { name: "Pair"
  field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_BYTES }
  field { name: "value" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE
          type_name: ".beam_flowers.Feature" } }
message_type { name: "Features"
  field { name: "pairs" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE
          type_name: ".beam_flowers.Pair" } }
message_type { name: "Example"
  field { name: "features" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE
          type_name: ".beam_flowers.Features" } }
"""


class Example(NamedTuple):
    """A labelled picture.

    Attributes:
        picture: the file as it was encoded.
        label: as text, or None.
    """

    picture: bytes
    label: str | None


def places(file: BinaryIO, size: int) -> Iterator[tuple[str, int, int]]:
    """Number, offset and size of each record; what is behind damage is not there."""
    try:
        for number, (offset, length) in enumerate(records(file, size)):
            yield str(number), offset, length
    except Damaged:
        return


def records(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """Offset and length of the data of each record that is whole.

    Raises:
        Damaged: after the last one, if there is something else behind it.
    """
    refuse_compressed(file)
    at = number = 0
    while at < size:
        file.seek(at)
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            raise Damaged(f"it is cut short within record {number}")
        length, checksum = _HEADER.unpack(header)
        if checksum != _masked_crc32c(header[:8]):
            raise Damaged(f"it is no TFRecord file, or damaged, at byte {at} (record {number})")
        data, at = at + _HEADER.size, at + _HEADER.size + length + _FOOTER
        if at > size:
            raise Damaged(f"it is cut short within record {number}")
        yield data, length
        number += 1


def read(file: BinaryIO, offset: int, size: int) -> bytes:
    """At most `size` bytes of the picture in the record whose data lie at `offset`."""
    file.seek(offset - _HEADER.size)
    (length,) = struct.unpack("<Q", file.read(8))
    file.seek(offset)
    try:
        return parse(file.read(length)).picture[:size]
    except Damaged as error:
        raise OSError(str(error)) from error


def parse(data: bytes) -> Example:
    """The picture and the label of a serialised tf.train.Example.

    Raises:
        Damaged: it is none, or has no picture.
    """
    from google.protobuf.message import DecodeError

    example = _example_class()()
    try:
        example.ParseFromString(data)
    except DecodeError as error:
        raise Damaged("the record is no tf.train.Example") from error
    features = {pair.key: pair.value for pair in example.features.pairs}
    for name in _PICTURES:
        if name in features and features[name].bytes.value:
            return Example(features[name].bytes.value[0], _label(features))
    held = ", ".join(sorted(name.decode("utf-8", "replace") for name in features)) or "nothing"
    raise Damaged(f"the record has no image/encoded; it has {held[:200]}")


def _label(features: dict[bytes, Any]) -> str | None:
    for name in _LABELS:
        feature = features.get(name)
        values = [*feature.bytes.value, *feature.integers.value] if feature else []
        if values:
            first = values[0]
            return first.decode("utf-8", "replace") if isinstance(first, bytes) else str(first)
    return None


@lru_cache(maxsize=1)
def _example_class() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_SCHEMA, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("beam_flowers.Example"))


def _masked_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 & -(crc & 1))
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
