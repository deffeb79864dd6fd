"""Tars, zips and TFRecords made on the spot."""

import io
import struct
import tarfile
import zipfile
from functools import lru_cache

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from beam_flowers.files import tfrecord

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


def write_tar(path, contents, **options):
    """A tar of (name, bytes)."""
    with tarfile.open(path, "w", **options) as archive:
        for name, data in contents:
            add(archive, name, data)
    return path


def write_zip(path, contents, method=zipfile.ZIP_DEFLATED):
    """A zip of (name, bytes); a `ZipInfo` may stand for the name."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in contents:
            archive.writestr(name, data)
    return path


def add(archive, name, data=b"", **attributes):
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(data), 1_700_000_000
    for key, value in attributes.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(data))


def record(data):
    length = struct.pack("<Q", len(data))
    return (
        length
        + struct.pack("<I", tfrecord._masked_crc32c(length))
        + data
        + struct.pack("<I", tfrecord._masked_crc32c(data))
    )


def example(**features):
    """A serialised tf.train.Example; `__` in a name is `/`."""
    made = _example_class()()
    for name, value in features.items():
        pair = made.features.pairs.add(key=name.replace("__", "/").encode())
        if isinstance(value, bytes):
            pair.value.bytes.value.append(value)
        else:
            pair.value.integers.value.append(value)
    return made.SerializeToString()


@lru_cache(maxsize=1)
def _example_class():
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_SCHEMA, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("beam_flowers.Example"))
