"""Reads and writes `gs://`, `azfs://`, `hdfs://` and other addresses by Beam's file systems.

Failures raise an OSError (Beam's own `BeamIOError` is one). An address whose file system is not
installed raises an InputError. Requests without an answer are repeated, as on S3; before that the
clients have made silent tries of their own.
"""

from __future__ import annotations

import errno
import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, BinaryIO, Concatenate, ParamSpec, TypeVar

import requests
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from beam_flowers.errors import BeamFlowersError, InputError, StoreError, UnreachableError
from beam_flowers.files.options import beam_options
from beam_flowers.files.paths import Entry, FileStat, join, parent, scheme, temporary_name
from beam_flowers.files.retries import Retries

# Beam registers some file systems even without their client library; they then fail by an assert.
_CLIENTS = {
    "gs": ("google.cloud.storage", "beam-flowers[gcp]"),
    "azfs": ("azure.storage.blob", "beam-flowers[azure]"),
    "hdfs": ("hdfs", "beam-flowers[hdfs]"),
}

# Classes that the clients raise, after tries of their own, if no server answers.
_NO_ANSWER = {"RetryError", "ServiceRequestError", "ServiceResponseError", "TransportError"}


_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")
_Request = Callable[Concatenate[str, _Arguments], _Answer]


def _asked(request: _Request[_Arguments, _Answer]) -> _Request[_Arguments, _Answer]:
    """Repeats a request, whose first argument is an address, while its server is away."""

    @functools.wraps(request)
    def ask(uri: str, /, *arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Answer:
        def once() -> _Answer:
            with _as_os_error(uri):
                return request(uri, *arguments, **named)

        return _retries(_server(uri)).ask(uri, once)

    return ask


def has_folders(uri: str) -> bool:
    """Tells if the file system has real folders, as HDFS, and not only names with `/` in them."""
    return bool(_filesystem(uri).has_dirs())


@_asked
def open_read(uri: str) -> BinaryIO:
    """Opens a file for its bytes as stored: `.gz` is not unpacked."""
    return _filesystem(uri).open(uri, compression_type=CompressionTypes.UNCOMPRESSED)


@_asked
def read_bytes(uri: str, limit: int | None) -> bytes:
    """Reads a file, or its first `limit` bytes."""
    with open_read(uri) as file:
        return file.read() if limit is None else file.read(limit)


def exists(uri: str) -> bool:
    """Tells if a file or folder exists."""
    if is_folder(uri):
        return True
    if parent(uri) == uri:  # A bucket is not an object, and its metadata cannot be read.
        return False
    try:
        stat(uri)
    except FileNotFoundError:
        return False
    return True


@_asked
def is_folder(uri: str) -> bool:
    """Tells if `uri` is a folder, or in an object store a prefix of names that precedes a `/`."""
    if scheme(uri) == "hdfs":
        client, path = _hdfs(uri)
        status = client.status(path, strict=False)
        return status is not None and status["type"] == "DIRECTORY"
    return next(iter(_filesystem(uri)._list(uri.rstrip("/") + "/")), None) is not None


@_asked
def stat(uri: str) -> FileStat:
    """Returns size and last change of a file."""
    metadata = _filesystem(uri).metadata(uri)
    return FileStat(metadata.size_in_bytes, round(metadata.last_updated_in_seconds * 1e6))


def list_folder(folder: str) -> Iterator[Entry]:
    """Lists the direct content of a folder.

    In an object store this reads all names below it: Beam's listing knows no folders.
    """
    return _list_hdfs(folder) if scheme(folder) == "hdfs" else _first_level(folder)


def _list_hdfs(folder: str) -> Iterator[Entry]:
    # Beam's own listing does not distinguish folders from files.
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
    """Lists all files at any depth below a folder of an object store, page by page."""
    with _as_os_error(folder):
        for found in _filesystem(folder)._list(folder.rstrip("/") + "/"):
            name = found.path.rpartition("/")[2]
            # Web consoles mark empty folders by names that end with "/".
            if name:
                modified = round(found.last_updated_in_seconds * 1e6)
                yield Entry(found.path, name, "file", found.size_in_bytes, modified)


@_asked
def make_folder(uri: str) -> None:
    """Makes a folder and its parents, if the file system has folders."""
    if not has_folders(uri) or exists(uri):
        return
    try:
        _filesystem(uri).mkdirs(uri)
    except BeamIOError:  # Another writer may have made it since.
        if not exists(uri):
            raise


@_asked
def write_atomic(uri: str, data: bytes) -> None:
    """Writes a whole file or nothing: an object at once, a file on HDFS by a rename."""
    if has_folders(uri):
        move(_write_temporary(uri, data), uri)
    else:
        _write(uri, data)


@_asked
def copy(source: str, target: str) -> None:
    """Copies a file and replaces an older one; object stores copy within the service."""
    if native := _native(source):
        native.copy(source, target)
        return
    make_folder(parent(target))
    write_atomic(target, read_bytes(source, None))


@_asked
def move(source: str, target: str) -> None:
    """Moves a file and replaces an older one; object stores copy and delete."""
    if native := _native(source):
        native.copy(source, target)
        delete(source)  # A request of its own: a repeated copy of a deleted file would fail.
        return
    make_folder(parent(target))
    try:
        FileSystems.rename([source], [target])
    except BeamIOError:
        if not exists(source):
            raise FileNotFoundError(errno.ENOENT, "it is not there", source) from None
        # HDFS does not rename over a file.
        delete(target)
        FileSystems.rename([source], [target])


@_asked
def delete(uri: str) -> None:
    """Deletes a file, if it exists."""
    if native := _native(uri):
        native.delete(uri)
    else:
        _filesystem(uri).delete([uri])


@_asked
def put_if_absent(uri: str, data: bytes) -> bool:
    """Writes a file unless one exists; see `files.put_if_absent`."""
    if native := _native(uri):
        return bool(native.put_if_absent(uri, data))
    if scheme(uri) == "hdfs":
        return _put_hdfs(uri, data)
    raise StoreError(
        f"{uri!r}: no atomic put-if-absent is known for {scheme(uri)}://; put the store in a local "
        f"folder or under {', '.join(f'{name}://' for name in ('s3', *_CLIENTS))}"
    )


def _put_hdfs(uri: str, data: bytes) -> bool:
    # A direct write would show a half file. A rename shows a whole one and fails if one exists.
    temporary = _write_temporary(uri, data)
    try:
        FileSystems.rename([temporary], [uri])
    except BeamIOError:
        delete(temporary)
        if not exists(uri):
            raise
        return False
    return True


def _write(uri: str, data: bytes) -> None:
    filesystem = _filesystem(uri)
    with filesystem.create(uri, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(data)


def _write_temporary(uri: str, data: bytes) -> str:
    temporary = temporary_name(uri)
    make_folder(parent(uri))
    _write(temporary, data)
    return temporary


def _native(uri: str) -> ModuleType | None:
    """Returns the module with functions that Beam's file system lacks, or None."""
    name = {"gs": "gs", "azfs": "azure"}.get(scheme(uri))
    if name is None:
        return None
    _filesystem(uri)  # Raises an InputError if the client is not installed.
    return importlib.import_module(f"beam_flowers.files.{name}")


def _filesystem(uri: str) -> Any:
    """Returns Beam's file system for an address.

    Raises:
        InputError: Beam has none for the scheme, or its library is not installed.
    """
    name = scheme(uri)
    module, extra = _CLIENTS.get(name, ("apache_beam", "apache-beam"))
    try:
        importlib.import_module(module)
        beam_options()
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


def _server(uri: str) -> str:
    """Returns the address of the bucket, the account or the name node."""
    while (above := parent(uri)) != uri:
        uri = above
    return uri


@functools.lru_cache(maxsize=64)
def _retries(server: str) -> Retries:
    def is_there() -> bool:
        try:
            with _as_os_error(server):
                next(iter(_filesystem(server)._list(f"{server}/")), None)
        except (OSError, BeamFlowersError) as error:
            return not _is_passing(error)
        return True

    return Retries(server, _is_passing, lambda error: _reason(error.__cause__ or error), is_there)


def _is_passing(error: Exception) -> bool:
    return isinstance(error, _SilenceError)


def _reason(error: BaseException) -> str:
    texts = (" ".join(str(cause).split()) for cause in _causes(error))
    return "; ".join(dict.fromkeys(texts))


class _SilenceError(UnreachableError):
    """Reports one request without an answer."""


@contextmanager
def _as_os_error(uri: str) -> Iterator[None]:
    """Turns errors into OSErrors: Beam passes on those of the clients, of any class."""
    try:
        yield
    except BeamFlowersError:
        raise
    except Exception as error:
        causes, reason = list(_causes(error)), _reason(error)
        if any(isinstance(cause, _SilenceError) for cause in causes):  # It was repeated already.
            raise
        if any(map(_is_absent, causes)):
            raise FileNotFoundError(errno.ENOENT, "it is not there", uri) from error
        if any(map(_is_silence, causes)):
            raise _SilenceError(f"{uri!r}: no answer: {reason}; run this again") from error
        if isinstance(error, OSError):
            raise
        raise OSError(errno.EIO, f"{type(error).__name__}: {reason}", uri) from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and those that Beam and the clients wrapped in it."""
    yield error
    details = getattr(error, "exception_details", None) or {}
    inner = [e for e in details.values() if isinstance(e, BaseException)]
    for cause in (*inner, error.__cause__):
        if cause is not None:
            yield from _causes(cause)


def _status(error: BaseException) -> int:
    statuses = [getattr(error, name, None) for name in ("status_code", "code")]
    return next((int(status) for status in statuses if isinstance(status, int)), 0)


def _is_absent(error: BaseException) -> bool:
    # On HDFS Beam and its client report it in these two ways.
    if isinstance(error, BeamIOError) and str(error).startswith("File not found"):
        return True
    if getattr(error, "exception", None) == "FileNotFoundException":
        return True
    return _status(error) == 404 or getattr(error, "errno", None) == errno.ENOENT


def _is_silence(error: BaseException) -> bool:
    named = type(error).__name__ in _NO_ANSWER or isinstance(error, requests.ConnectionError)
    return named or _status(error) >= 500 or _status(error) == 429
