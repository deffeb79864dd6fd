"""Tars and TFRecords made on the spot."""

import io
import struct
import tarfile

from beam_flowers.files import tfrecord


def write_tar(path, contents, **options):
    """A tar of (name, bytes)."""
    with tarfile.open(path, "w", **options) as archive:
        for name, data in contents:
            add(archive, name, data)
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
    made = tfrecord._example_class()()
    for name, value in features.items():
        pair = made.features.pairs.add(key=name.replace("__", "/").encode())
        if isinstance(value, bytes):
            pair.value.bytes.value.append(value)
        else:
            pair.value.integers.value.append(value)
    return made.SerializeToString()
