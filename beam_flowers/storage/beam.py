"""`gs://`, `azfs://`, `hdfs://` and other addresses through Beam's file systems.

What fails raises an OSError (Beam's own `BeamIOError` is one), an address whose file system is
not installed an InputError.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.options.value_provider import RuntimeValueProvider

from beam_flowers.errors import InputError, StoreError
from beam_flowers.paths import Entry, FileStat, join, parent, scheme, temporary_name

# Beam registers some file systems without their client library, which then fail by an assert.
_CLIENTS = {
    "gs": ("google.cloud.storage", "beam-flowers[gcp]"),
    "azfs": ("azure.storage.blob", "beam-flowers[azure]"),
    "hdfs": ("hdfs", "beam-flowers[hdfs]"),
}

_CONFLICT, _PRECONDITION_FAILED = 409, 412  # HTTP statuses, RFC 9110.


def has_folders(uri: str) -> bool:
    """Whether the file system has folders of its own, as HDFS, or only names with `/` in them."""
    return bool(_filesystem(uri).has_dirs())


def open_read(uri: str) -> BinaryIO:
    """The bytes as they are: `.gz` is not unpacked."""
    with _as_os_error(uri):
        filesystem = _filesystem(uri)
        file: BinaryIO = filesystem.open(uri, compression_type=CompressionTypes.UNCOMPRESSED)
        return file


def read_bytes(uri: str, limit: int | None) -> bytes:
    """The file's content, or its first `limit` bytes."""
    with _as_os_error(uri), open_read(uri) as file:
        return file.read() if limit is None else file.read(limit)


def exists(uri: str) -> bool:
    """Whether a file or a folder is there."""
    return is_folder(uri) or _has_object(uri)


def is_folder(uri: str) -> bool:
    """Whether `uri` is a folder, or in an object store the beginning of a name before a `/`."""
    with _as_os_error(uri):
        if scheme(uri) == "hdfs":
            client, path = _hdfs(uri)
            status = client.status(path, strict=False)
            return status is not None and status["type"] == "DIRECTORY"
        return next(iter(_filesystem(uri)._list(uri.rstrip("/") + "/")), None) is not None


def stat(uri: str) -> FileStat:
    """Size and last change of a file."""
    with _as_os_error(uri):
        found = _filesystem(uri).metadata(uri)
        return FileStat(found.size_in_bytes, round(found.last_updated_in_seconds * 1e6))


def list_folder(folder: str) -> Iterator[Entry]:
    """What lies directly in a folder.

    Of an object store all below is gone through: Beam's listing knows no folders.
    """
    return _list_hdfs(folder) if scheme(folder) == "hdfs" else _first_level(folder)


def _list_hdfs(folder: str) -> Iterator[Entry]:
    # Beam's own listing does not tell a folder from a file.
    kinds = {"FILE": "file", "DIRECTORY": "folder"}
    with _as_os_error(folder):
        client, path = _hdfs(folder)
        for name, status in client.list(path, status=True):
            kind, modified = kinds.get(status["type"], "other"), status["modificationTime"] * 1000
            yield Entry(join(folder, name), name, kind, status["length"], modified)


def _first_level(folder: str) -> Iterator[Entry]:
    previous = ""
    for entry in list_objects(folder):
        name, slash, _ = entry.uri.removeprefix(folder.rstrip("/") + "/").partition("/")
        if not slash:
            yield entry
        elif name != previous:  # Object stores list in the order of names.
            previous = name
            yield Entry(join(folder, name), name, "folder")


def list_objects(folder: str) -> Iterator[Entry]:
    """All files at any depth below a folder of an object store, page by page."""
    with _as_os_error(folder):
        for found in _filesystem(folder)._list(folder.rstrip("/") + "/"):
            name = found.path.rpartition("/")[2]
            # Names that end with "/" are markers that consoles make for empty folders.
            if name:
                modified = round(found.last_updated_in_seconds * 1e6)
                yield Entry(found.path, name, "file", found.size_in_bytes, modified)


def make_folder(uri: str) -> None:
    """Makes a folder and those above it where there are such things."""
    with _as_os_error(uri):
        if has_folders(uri) and not exists(uri):
            _filesystem(uri).mkdirs(uri)


def write_atomic(uri: str, data: bytes) -> None:
    """Writes a whole file or nothing: one object is whole by itself, on HDFS it is renamed."""
    with _as_os_error(uri):
        if has_folders(uri):
            move(_write_temporary(uri, data), uri)
        else:
            _write(uri, data)


def move(source: str, target: str) -> None:
    """Moves a file over one that may be there; in object stores a copy and a deletion."""
    with _as_os_error(target):
        make_folder(parent(target))
        try:
            FileSystems.rename([source], [target])
        except BeamIOError:
            if not exists(source):
                raise FileNotFoundError(f"{source!r} is not there") from None
            # HDFS does not rename over a file.
            delete(target)
            FileSystems.rename([source], [target])


def delete(uri: str) -> None:
    """Deletes a file; nothing there is no error."""
    with _as_os_error(uri):
        _filesystem(uri).delete([uri])


def put_if_absent(uri: str, data: bytes) -> bool:
    """See `files.put_if_absent`."""
    put = _PUTS.get(scheme(uri))
    if put is None:
        raise StoreError(
            f"{uri!r}: no atomic put-if-absent is known for {scheme(uri)}://; put the store "
            f"in a local folder or under {', '.join(f'{name}://' for name in _PUTS)}"
        )
    with _as_os_error(uri):
        _filesystem(uri)
        return put(uri, data)


def _put_gs(uri: str, data: bytes) -> bool:
    from apache_beam.io.gcp.gcsio import GcsIO, parse_gcs_path

    bucket, name = parse_gcs_path(uri)
    blob = GcsIO(pipeline_options=beam_options()).client.bucket(bucket).blob(name)
    try:
        blob.upload_from_string(data, if_generation_match=0)
    except Exception as error:
        if getattr(error, "code", None) != _PRECONDITION_FAILED:
            raise
        return False
    return True


def _put_azure(uri: str, data: bytes) -> bool:
    from apache_beam.io.azure.blobstorageio import BlobStorageIO, parse_azfs_path

    container, name = parse_azfs_path(uri)
    client = BlobStorageIO(pipeline_options=beam_options()).client
    try:
        client.get_blob_client(container, name).upload_blob(data, overwrite=False)
    except Exception as error:
        if getattr(error, "status_code", None) != _CONFLICT:
            raise
        return False
    return True


def _put_hdfs(uri: str, data: bytes) -> bool:
    # A write that does not replace would show a half file; a rename is whole, and fails if late.
    temporary = _write_temporary(uri, data)
    try:
        FileSystems.rename([temporary], [uri])
    except BeamIOError:
        delete(temporary)
        if not exists(uri):
            raise
        return False
    return True


_PUTS: dict[str, Callable[[str, bytes], bool]] = {
    "gs": _put_gs,
    "azfs": _put_azure,
    "hdfs": _put_hdfs,
}


def _write(uri: str, data: bytes) -> None:
    filesystem = _filesystem(uri)
    with filesystem.create(uri, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(data)


def _write_temporary(uri: str, data: bytes) -> str:
    temporary = temporary_name(uri)
    make_folder(parent(uri))
    _write(temporary, data)
    return temporary


def _has_object(uri: str) -> bool:
    if parent(uri) == uri:  # A bucket is no object, and asking for it fails.
        return False
    with _as_os_error(uri):
        return bool(_filesystem(uri).exists(uri))


def beam_options() -> Any:
    """Beam's options as this process knows them: PipelineOptions, a dict, or None."""
    return FileSystems._pipeline_options or RuntimeValueProvider.runtime_options


def _filesystem(uri: str) -> Any:
    """Beam's file system for an address; InputError if there is none or its library is absent."""
    name = scheme(uri)
    module, extra = _CLIENTS.get(name, ("apache_beam", "apache-beam"))
    try:
        importlib.import_module(module)
        if beam_options() is None:
            FileSystems.set_options(PipelineOptions([]))
        return FileSystems.get_filesystem(uri)
    except ImportError:
        raise InputError(
            f"{uri!r}: {name}:// needs a library that is missing: pip install '{extra}'"
        ) from None
    except ValueError as error:
        raise InputError(f"{uri!r}: no file system for {name}://: {error}") from error


def _hdfs(uri: str) -> tuple[Any, str]:
    filesystem = _filesystem(uri)
    return filesystem._hdfs_client, filesystem._parse_url(uri)[1]


@contextmanager
def _as_os_error(uri: str) -> Iterator[None]:
    """Beam lets through what the clients of object stores raise, whatever its class."""
    try:
        yield
    except (OSError, InputError, StoreError):
        raise
    except Exception as error:
        raise OSError(f"{uri!r}: {type(error).__name__}: {error}") from error
