"""Installs an ONNX network from Hugging Face's Hub, and records in a lock file what it fetched."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote

import msgspec

from beam_flowers import files
from beam_flowers.backbones import hub, onnx_folder, weights
from beam_flowers.backbones.onnx_check import require_usable
from beam_flowers.backbones.onnx_file import data_files, read_graph
from beam_flowers.backbones.preprocessor_config import CONFIG_FILE
from beam_flowers.errors import BackboneError, BackboneFieldError
from beam_flowers.files.private import private_folder
from beam_flowers.files.typed import Count, Form
from beam_flowers.records import Say

LOCK = "beam-flowers.lock.json"
"""File in the folder of an installed network that says what was fetched."""

ENDPOINT = "HF_ENDPOINT"
"""Environment variable with the address of the Hub or of a mirror, as Hugging Face's own programs
read it."""

_HUB = "https://huggingface.co"
_FOLDER = "huggingface"
_SCHEME = "hf://"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_ADDRESS = re.compile(
    rf"hf://(?P<owner>{_NAME})/(?P<repo>{_NAME})@(?P<revision>{_NAME})"
    rf"(?:/(?P<graph>(?:{_NAME}/)*{_NAME}\.onnx))?"
)

_Hex = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Commit = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{40}$")]


class _Fetched(msgspec.Struct):
    """Holds digest and size of a file."""

    sha256: _Hex
    bytes: Count


class _Lock(msgspec.Struct):
    """Holds what was fetched: the document `LOCK`."""

    source: str
    commit: _Commit
    licence: str
    files: dict[str, _Fetched]


class _Lfs(msgspec.Struct):
    sha256: _Hex


class _Sibling(msgspec.Struct):
    rfilename: str
    size: Count | None = None
    lfs: _Lfs | None = None


class _Info(msgspec.Struct):
    """Holds the keys of the Hub's description of a revision that are read."""

    sha: _Commit
    siblings: Annotated[list[_Sibling], msgspec.Meta(max_length=100_000)]
    tags: Annotated[list[str], msgspec.Meta(max_length=10_000)] = []


_LOCK_FORM = Form(_Lock, BackboneFieldError, "delete it and install again", most=1 << 20)
_INFO_FORM = Form(_Info, BackboneFieldError, "try again, or another revision", most=64 << 20)


class Address(NamedTuple):
    """Names a network on the Hub.

    Attributes:
        text: `hf://OWNER/REPO@REVISION`, with the path of a graph where one was named.
        owner: of the repository.
        repo: its name.
        revision: branch, tag or commit.
        graph: path of the graph in it; empty for the usual one.
    """

    text: str
    owner: str
    repo: str
    revision: str
    graph: str


def is_address(name: str) -> bool:
    """Tells if a backbone is named by an address of the Hub."""
    return name.startswith(_SCHEME)


def parse_address(text: str) -> Address:
    """Returns the parts of an address.

    Raises:
        BackboneError: it has another form.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or ".." in text:
        raise BackboneError(
            f"{text!r} is no address of a network: give hf://ORG/REPO@REVISION, where the revision "
            "is a commit, a tag or a branch as main; with /onnx/model_fp16.onnx after it, or so, "
            "for another file than the usual"
        )
    return Address(text, match["owner"], match["repo"], match["revision"], match["graph"] or "")


def installed(text: str) -> str:
    """Returns the path of an installed network: its folder, or the graph that was named.

    Raises:
        BackboneError: it is not installed, or the address has another form.
    """
    address = parse_address(text)
    folder = private_folder(_FOLDER)
    target = _target(folder, address) if folder else None
    path = target / address.graph if target else None
    if target is None or path is None or not (target / LOCK).exists() or not path.exists():
        raise BackboneError(
            f"{text!r} is not on this machine: beam-flowers backbones --install {text} fetches it"
        )
    return str(path)


def install(text: str, folder: str | None, say: Say) -> str:
    """Fetches a network, unless it is there, and checks it; returns its path as `installed` does.

    A folder with a lock file gets that commit and these bytes, whatever the revision is by now.

    Args:
        text: address of the network.
        folder: local folder to write; by default one in the user's cache.
        say: takes lines for the user.

    Raises:
        BackboneError: it cannot be fetched, is not what the lock file or the Hub says, or is a
            network that is refused. Nothing is written then.
    """
    address = parse_address(text)
    target = Path(folder) if folder else _own_target(address)
    lock = _read_lock(target, address)
    if lock and all(_is_there(target, name, one) for name, one in lock.files.items()):
        say(f"{text} is there already, as its lock file says: {target}")
        return str(target / address.graph)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as made:
            found = _fetch(address, lock, Path(made), say)
            _place(Path(made), target, found)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _unreachable(address, error) from error
    return str(target / address.graph)


def _own_target(address: Address) -> Path:
    folder = private_folder(_FOLDER, make=True)
    if folder is None:
        raise BackboneError(
            "there is no folder of our own to install into: give one as --output, and its path as "
            "--backbone later"
        )
    return _target(folder, address)


def _target(folder: Path, address: Address) -> Path:
    # The last folder gives the backbone its name.
    return folder / address.owner / address.revision / address.repo


def _read_lock(target: Path, address: Address) -> _Lock | None:
    path = str(target / LOCK)
    if not files.exists(path):
        return None
    lock = _LOCK_FORM.read(files.read_document(path, _LOCK_FORM), path)
    theirs = parse_address(lock.source)
    if theirs._replace(text="", revision="") != address._replace(text="", revision=""):
        raise BackboneError(
            f"{target} has the lock file of {lock.source}: give another --output for {address.text}"
        )
    return lock


def _is_there(target: Path, name: str, one: _Fetched) -> bool:
    path = target / name
    if not path.is_file():
        return False
    if path.stat().st_size == one.bytes:
        digest = weights.file_digest(str(path), "sha256")
        if digest == one.sha256:
            return True
    raise BackboneError(
        f"{str(path)!r} is not what its lock file says (sha256 {one.sha256}): it is damaged or "
        "was changed. Delete it and install again"
    )


def _fetch(address: Address, lock: _Lock | None, made: Path, say: Say) -> _Lock:
    """Downloads all files of a network into an empty folder, checks them, and writes its lock."""
    info = _describe(address, lock.commit if lock else address.revision)
    there = {sibling.rfilename: sibling for sibling in info.siblings}
    graph = address.graph or _graph_among(there, address)
    say(f"fetching {address.owner}/{address.repo} at commit {info.sha}, from {_endpoint()}")
    fetched: dict[str, _Fetched] = {}
    names = [CONFIG_FILE, graph]
    while names:
        name = names.pop(0)
        if name not in there:
            raise BackboneError(f"{address.text!r} has no file {name!r}, which the network needs")
        fetched[name] = _fetch_file(address, info.sha, there[name], made)
        say(f"{name}: {fetched[name].bytes:,} bytes, sha256 {fetched[name].sha256}")
        if lock and lock.files.get(name) != fetched[name]:
            raise BackboneError(
                f"{name!r} of {address.text!r} is not what the lock file says: nothing was written"
            )
        if name == graph:
            data = data_files(read_graph(str(made / graph)), f"{address.text}/{graph}")
            names += [f"{graph.rpartition('/')[0]}/{one}".lstrip("/") for one in data]
    described = read_graph(str(made / graph))
    require_usable(described, f"{address.text}/{graph}", str((made / graph).parent))
    licence = next((tag[8:] for tag in info.tags if tag.startswith("license:")), "unknown")
    say(f"licence, as its page says: {licence}")
    found = _Lock(address.text, info.sha, licence, fetched)
    document = msgspec.json.format(msgspec.json.encode(found), indent=2)
    (made / LOCK).write_bytes(document + b"\n")
    return found


def _graph_among(there: Mapping[str, _Sibling], address: Address) -> str:
    if found := next((name for name in onnx_folder.GRAPHS if name in there), None):
        return found
    variants = sorted(name for name in there if name.endswith(onnx_folder.SUFFIX))
    raise BackboneError(
        f"{address.text!r} has no {' or '.join(onnx_folder.GRAPHS)}"
        + (f": name one of {', '.join(variants[:8])} after the revision" if variants else "")
    )


def _endpoint() -> str:
    endpoint = os.environ.get(ENDPOINT, _HUB).rstrip("/")
    hub.require_secure(endpoint)
    return endpoint


def _describe(address: Address, revision: str) -> _Info:
    place = f"{_endpoint()}/api/models/{address.owner}/{address.repo}/revision/{revision}"
    with tempfile.TemporaryDirectory(prefix="beam-flowers-") as folder:
        path = Path(folder, "info.json")
        hub.save(f"{place}?blobs=true", path)
        return _INFO_FORM.read(files.read_document(str(path), _INFO_FORM), place)


def _fetch_file(address: Address, commit: str, sibling: _Sibling, made: Path) -> _Fetched:
    target = made / sibling.rfilename
    target.parent.mkdir(parents=True, exist_ok=True)
    name = quote(sibling.rfilename)
    place = f"{_endpoint()}/{address.owner}/{address.repo}/resolve/{commit}/{name}"
    digest = hub.save(place, target)
    size = target.stat().st_size
    if sibling.size not in (None, size):
        raise ValueError(f"{name} ended after {size:,} of {sibling.size:,} bytes")
    if sibling.lfs and sibling.lfs.sha256 != digest:
        raise ValueError(f"{name} has the sha256 {digest}, and the Hub says {sibling.lfs.sha256}")
    return _Fetched(digest, size)


def _place(made: Path, target: Path, found: _Lock) -> None:
    """Moves what was fetched to where it stays; replaces nothing."""
    for name, one in found.files.items():
        _is_there(target, name, one)
    for name in (*found.files, LOCK):
        path = target / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(made / name, path)


def _unreachable(address: Address, error: Exception) -> BackboneError:
    why = f"{type(error).__name__}: {error}"
    if isinstance(error, HTTPError) and error.code in (401, 403):
        why = "its page asks for a login, or it does not exist"
    return BackboneError(
        f"{address.text!r} cannot be fetched: {why}. Nothing was written. Where there is no "
        "network, or a login is wanted, download its files elsewhere and give their folder as "
        "--backbone"
    )
