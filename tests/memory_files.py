"""An object store in memory behind Beam's own FileSystem interface: `mem://bucket/name`.

Importing this module registers the scheme with Beam. As in S3 there are no folders, names are
listed in order, and the store knows nothing about patterns.
"""

import errno
import io
from collections import Counter

import requests
from apache_beam.io.filesystem import BeamIOError, FileMetadata, FileSystem

OBJECTS: dict[str, bytes] = {}
BUSY: Counter[str] = Counter()
"""How often an object is still not given out."""
MODIFIED = 1_700_000_000.25


class _Upload(io.BytesIO):
    def __init__(self, path):
        super().__init__()
        self.path = path

    def close(self):
        if not self.closed:
            OBJECTS[self.path] = self.getvalue()
        super().close()


class MemoryFileSystem(FileSystem):
    @classmethod
    def scheme(cls):
        return "mem"

    def has_dirs(self):
        return False

    def _list(self, dir_or_prefix):
        if dir_or_prefix.startswith("mem://silent/"):
            raise requests.ConnectionError("Max retries exceeded")
        if dir_or_prefix.startswith("mem://broken/"):
            raise BeamIOError("List operation failed", {dir_or_prefix: "no route"})
        for path in sorted(OBJECTS):
            if path.startswith(dir_or_prefix):
                yield self.metadata(path)

    def metadata(self, path):
        if path not in OBJECTS:
            missing = FileNotFoundError(errno.ENOENT, "no such object", path)
            raise BeamIOError("Metadata operation failed", {path: missing})
        return FileMetadata(path, len(OBJECTS[path]), MODIFIED)

    def exists(self, path):
        return path in OBJECTS

    def open(self, path, mime_type="", compression_type=""):
        if path.startswith("mem://silent/") or BUSY[path]:
            BUSY[path] -= 1
            raise requests.ConnectionError("Max retries exceeded")
        if path not in OBJECTS:
            raise KeyError(path)  # Clients of real stores raise their own classes, too.
        return io.BytesIO(OBJECTS[path])

    def create(self, path, mime_type="", compression_type=""):
        return _Upload(path)

    def rename(self, source_file_names, destination_file_names):
        self.copy(source_file_names, destination_file_names)
        self.delete(source_file_names)

    def copy(self, source_file_names, destination_file_names):
        for source, target in zip(source_file_names, destination_file_names, strict=True):
            if source not in OBJECTS:
                raise BeamIOError("Copy operation failed", {source: "404"})
            OBJECTS[target] = OBJECTS[source]

    def delete(self, paths):
        for path in paths:
            OBJECTS.pop(path, None)

    def join(self, basepath, *paths):
        return "/".join([basepath, *paths])

    def split(self, path):
        return tuple(path.rsplit("/", 1))

    def mkdirs(self, path):
        raise NotImplementedError

    def size(self, path):
        return self.metadata(path).size_in_bytes

    def last_updated(self, path):
        return self.metadata(path).last_updated_in_seconds
