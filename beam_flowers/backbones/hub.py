"""Downloads the SavedModel of a TF-Hub handle, a .tar.gz behind https, once, on the driver."""

from __future__ import annotations

import atexit
import contextlib
import gzip
import hashlib
import http.client
import ipaddress
import logging
import os
import re
import shutil
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from beam_flowers.backbones import weights
from beam_flowers.errors import BackboneError
from beam_flowers.files.private import private_folder

FOLDER = "hub"
"""Folder of our cache, with one folder a handle: the SavedModel and the digest of its archive."""

_MODULE, _DIGEST = "module", "archive-sha256"
_MOST_BYTES = 8 * 2**30
_MOST_ENTRIES = 10_000
_MOST_HEADER = 2**24
_PIECE = 2**20
_TIMEOUT = 60.0

_LOG = logging.getLogger(__name__)


class Module(NamedTuple):
    """Holds a downloaded SavedModel.

    Attributes:
        path: path of its folder.
        archive_sha256: hex digest of its archive.
    """

    path: str
    archive_sha256: str


def is_handle(name: str) -> bool:
    """Tells if a backbone is named by a web address."""
    return re.match(r"https?://", name, re.IGNORECASE) is not None


_SIZES = (
    (r"inception_(v3|resnet_v2)\b", 299),
    (r"inception_v[12]\b|nasnet_mobile|resnet_v[12]_\d+|efficientnet[/_](v2_\w+_)?b0\b", 224),
    (r"p?nasnet_large", 331),
    (r"efficientnet[/_](v2_\w+_)?b1\b", 240),
    (r"efficientnet[/_](v2_\w+_)?b2\b", 260),
    (r"efficientnet[/_](v2_\w+_)?b3\b", 300),
    (r"efficientnet[/_]b4\b", 380),
    (r"efficientnet[/_]b5\b", 456),
    (r"efficientnet[/_]b6\b", 528),
    (r"efficientnet[/_]b7\b", 600),
    (r"efficientnet_v2_\w+_s\b", 384),
    (r"efficientnet_v2_\w+_[ml]\b", 480),
)
"""Sides of the square images in pixels, as the modules' pages on TF-Hub say them."""

_SIZE_IN_NAME = re.compile(r"mobilenet_v[123](_\w+?)?_\d{3}_(\d{2,3})(?=/|_|$)")
"""Mobilenets name their width in percent, then their size."""


def documented_size(handle: str) -> int | None:
    """Returns the side of the images that a well-known module takes; None for any other."""
    name = urlsplit(handle).path.lower().replace("-", "_")
    if found := _SIZE_IN_NAME.search(name):
        return int(found[2])
    return next((size for pattern, size in _SIZES if re.search(pattern, name)), None)


def fetch(handle: str, sha256: str | None = None) -> Module:
    """Returns the SavedModel of a handle; downloads and unpacks it unless the cache has it.

    Args:
        handle: web address of the SavedModel.
        sha256: expected digest of the archive, or `weights.sha256` of its content. It is compared
            before anything is unpacked.

    Raises:
        BackboneError: the download fails, or has another digest.
    """
    require_secure(handle)
    folder = _folder()
    kept = folder / hashlib.sha256(handle.encode()).hexdigest()[:32]
    try:
        if not (kept / _MODULE / "saved_model.pb").exists():
            _download(handle, kept, sha256)
        module = Module(str(kept / _MODULE), (kept / _DIGEST).read_text())
    except (OSError, http.client.HTTPException, tarfile.TarError, EOFError, ValueError) as error:
        raise BackboneError(
            f"{handle!r} cannot be downloaded: {type(error).__name__}: {error}; download the "
            "module where there is a network, unpack it, and give the folder instead, or use "
            "efficientnet-lite0, which needs no download"
        ) from error
    if sha256 is not None and not _is_meant(sha256, module.archive_sha256):
        _require_digest(handle, sha256, module.archive_sha256, _files_digest(module.path))
    return module


def _folder() -> Path:
    folder = private_folder(FOLDER, make=True)
    return folder if folder and os.access(folder, os.W_OK) else _folder_of_this_run()


@lru_cache(maxsize=1)
def _folder_of_this_run() -> Path:
    folder = tempfile.mkdtemp(prefix="beam-flowers-hub-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def require_secure(address: str) -> None:
    """Checks that a web address is https, or of this machine.

    Raises:
        BackboneError: it is another.
    """
    parts = urlsplit(address)
    if parts.scheme.lower() == "https" or (parts.scheme == "http" and _is_here(parts.hostname)):
        return
    raise BackboneError(
        f"{address!r} is not read: a network is a program, and over anything but https everybody "
        "on the way could change it. Give an https address, or download the module yourself, "
        "unpack it, and give the folder"
    )


def _is_here(host: str | None) -> bool:
    """Tells if a host is this machine itself, which needs no encryption."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host or "").is_loopback
    return host == "localhost"


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects only to addresses that are allowed themselves."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Any,
        url: str,
    ) -> urllib.request.Request | None:
        require_secure(url)
        if _is_here(urlsplit(url).hostname) and not _is_here(urlsplit(req.full_url).hostname):
            raise BackboneError(f"{req.full_url!r} leads to this machine, to {url!r}: not followed")
        return super().redirect_request(req, fp, code, msg, headers, url)


def _download(handle: str, kept: Path, sha256: str | None) -> None:
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".") as made:
        archive = Path(made, "archive")
        digest = save(_address(handle), archive)
        if sha256 is not None and not _is_meant(sha256, digest):
            _require_digest(handle, sha256, digest, _digest_within(archive))
        whole = Path(made, "whole")
        _unpack(archive, whole / _MODULE)
        (whole / _DIGEST).write_text(digest)
        with contextlib.suppress(OSError):
            # Another process may have been faster.
            shutil.rmtree(kept, ignore_errors=True)
            whole.rename(kept)
    _LOG.info("downloaded %s to %s", handle, kept)
    if sha256 is None:
        _LOG.warning(
            "%s was downloaded for the first time; its sha256 is %s. To be sure to get the same "
            "network elsewhere, give it as --backbone-sha256",
            handle,
            digest,
        )


def _address(handle: str) -> str:
    parts = urlsplit(handle)
    query = [*parse_qsl(parts.query), ("tf-hub-format", "compressed")]
    return urlunsplit(parts._replace(query=urlencode(query)))


def save(address: str, target: Path) -> str:
    """Downloads a web address into a file; returns its sha256 in hex.

    Raises:
        BackboneError: a redirect leads to an address that is not read.
        OSError, http.client.HTTPException, ValueError: the download fails, or is too large.
    """
    digest, size = hashlib.sha256(), 0
    opener = urllib.request.build_opener(_SecureRedirects())
    with opener.open(address, timeout=_TIMEOUT) as answer, target.open("wb") as file:
        while piece := answer.read(_PIECE):
            size += len(piece)
            if size > _MOST_BYTES:
                raise ValueError(f"it is larger than {_MOST_BYTES >> 30} GiB")
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


class _Bounded:
    """Raises an error if more bytes of a stream are read than was announced.

    Headers of a tar have no bound, and are read into memory in one piece.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.left = _MOST_HEADER

    def read(self, size: int) -> bytes:
        piece = self._stream.read(size)
        self.left -= len(piece)
        if self.left < 0:
            raise ValueError(f"it has a header of more than {_MOST_HEADER >> 20} MiB")
        return piece


def _members(archive: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yields a tar's members as a stream, up to limits of number and size."""
    size = 0
    with archive.open("rb") as packed, contextlib.ExitStack() as stack:
        is_gzip = packed.read(2) == b"\x1f\x8b"
        packed.seek(0)
        stream = stack.enter_context(gzip.open(packed)) if is_gzip else packed
        bounded = _Bounded(cast(IO[bytes], stream))
        tar = stack.enter_context(tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r|"))
        for count, member in enumerate(tar):
            size += max(0, member.size)
            if count >= _MOST_ENTRIES or size > _MOST_BYTES:
                raise ValueError(
                    f"it holds more than {_MOST_ENTRIES} files or {_MOST_BYTES >> 30} GiB"
                )
            bounded.left = member.size + _MOST_HEADER
            yield tar, member


def _unpack(archive: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    for tar, member in _members(archive):
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts:
            raise ValueError(f"it holds {member.name!r}, which leads out of its folder")
        if member.isdir():
            (folder / name).mkdir(parents=True, exist_ok=True)
            continue
        file = tar.extractfile(member) if member.isfile() else None
        # Readers of the SavedModel would follow links.
        if file is None:
            raise ValueError(f"it holds {member.name!r}, which is neither a file nor a folder")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("xb") as target:
            shutil.copyfileobj(file, target, _PIECE)
    if not (folder / "saved_model.pb").exists():
        raise ValueError("it holds no saved_model.pb")


def _digest_within(archive: Path) -> str | None:
    """Returns `weights.sha256` of the SavedModel in an archive, without unpacking it."""
    digests = {}
    try:
        for tar, member in _members(archive):
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None:
                digest = hashlib.sha256()
                while piece := file.read(_PIECE):
                    digest.update(piece)
                digests[member.name.removeprefix("./")] = digest.hexdigest()
    except (OSError, tarfile.TarError, EOFError, ValueError):
        return None
    return weights.listed_digest(digests)


def _files_digest(folder: str) -> str:
    return weights.sha256(folder, "saved-model")


def _is_meant(sha256: str, digest: str | None) -> bool:
    return sha256.strip().lower() == digest


def _require_digest(handle: str, sha256: str, archive: str, files: str | None) -> None:
    if not _is_meant(sha256, files):
        within = f", the files in it {files}" if files else ""
        raise BackboneError(
            f"what lies at {handle!r} has the sha256 {archive}{within}, not {sha256!r}: it is "
            "damaged or others than were asked for, and was not loaded. If you expect it, give "
            f"--backbone-sha256 {archive}"
        )
