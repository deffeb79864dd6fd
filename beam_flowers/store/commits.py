"""Commits: which parts a table consists of, one JSON file a version, put if absent."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from beam_flowers import files
from beam_flowers.errors import PartLostError, StoreError
from beam_flowers.store.parts import REJECTS, WORK, Part, Place
from beam_flowers.store.schema import ENCODINGS

T = TypeVar("T")

COMMITS = "__commits"
AUGMENTED = "__augmented"
"""Folder of a store that is a table of its own: the distorted copies of its pictures."""

_LAYOUT = 1
_REMEMBERED = 8
_AT_ONCE = 16


@dataclass(frozen=True)
class Section:
    """One backbone's rows and rejects, or those of a score table.

    Attributes:
        fingerprint: of what computed the rows.
        about: description of it, JSON values only.
        parts: the row parts and the reject parts.
        roots: roots listed so far, sorted.
    """

    fingerprint: str
    about: dict[str, Any]
    parts: tuple[Part, ...] = ()
    roots: tuple[str, ...] = ()

    @property
    def rows(self) -> list[Part]:
        return [p for p in self.parts if not p.is_rejects]

    @property
    def rejects(self) -> list[Part]:
        return [p for p in self.parts if p.is_rejects]

    @property
    def dataset_hash(self) -> str:
        """Hash of all rows and rejects, whatever parts they lie in; hex."""
        rows = sum(int(p.digest, 16) for p in self.rows) % 2**256
        rejects = sum(int(p.digest, 16) for p in self.rejects) % 2**256
        return hashlib.sha256(f"{rows:064x}{rejects:064x}".encode()).hexdigest()


def encoding_in(section: Section) -> str:
    """How its vectors are encoded, one of `ENCODINGS`."""
    return str(section.about.get("encoding", ENCODINGS[0]))


@dataclass(frozen=True)
class Manifest:
    """One version of a table.

    Attributes:
        version: 0 for a table that has no commit yet.
        run: id of the run that made it.
        sections: by folder name.
        counts: what that run did; outside `dataset_hash`.
    """

    version: int = 0
    run: str = ""
    sections: dict[str, Section] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)

    def names(self, root: str) -> dict[Place, set[str]]:
        """Names of every part of the table in folder `root`, by place."""
        return {
            Place(root, key, s.fingerprint): {part.name for part in s.parts}
            for key, s in self.sections.items()
        }

    def with_section(self, key: str, section: Section) -> Manifest:
        return replace(self, sections={**self.sections, key: section})


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as JSON."""
    sections = {
        key: {
            "fingerprint": s.fingerprint,
            "about": s.about,
            "dataset_hash": s.dataset_hash,
            "rows": sum(p.rows for p in s.rows),
            "rejects": sum(p.rows for p in s.rejects),
            "roots": list(s.roots),
            "parts": [p.as_dict() for p in s.parts],
        }
        for key, s in sorted(manifest.sections.items())
    }
    document = {
        "layout": _LAYOUT,
        "version": manifest.version,
        "run": manifest.run,
        "counts": manifest.counts,
        "sections": sections,
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode()


def decode_manifest(data: bytes, uri: str) -> Manifest:
    """The manifest in `data`.

    Raises:
        StoreError: if it is no manifest of this layout; `uri` is named.
    """
    try:
        document = json.loads(data)
        if document["layout"] != _LAYOUT:
            raise StoreError(
                f"{uri} has layout {document['layout']!r}; this version reads {_LAYOUT}"
            )
        sections = {
            key: Section(
                s["fingerprint"],
                s["about"],
                tuple(Part(**p) for p in s["parts"]),
                tuple(s["roots"]),
            )
            for key, s in document["sections"].items()
        }
        return Manifest(document["version"], document["run"], sections, document["counts"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{uri} is damaged ({error!r}); delete it to fall back on the commit before it"
        ) from error


def versions(root: str) -> list[int]:
    """Committed versions, ascending."""
    folder = files.join(root, COMMITS)
    if not files.is_folder(folder):
        return []
    stems = (e.name.removesuffix(".json") for e in files.list_folder(folder))
    return sorted(int(stem) for stem in stems if stem.isdigit())


def read_manifest(root: str, version: int) -> Manifest:
    """Version `version` of the table."""
    uri = _commit_uri(root, version)
    return decode_manifest(files.read_bytes(uri), uri)


def latest(root: str) -> Manifest:
    """The newest version; version 0 for a table that does not exist yet."""
    known = versions(root)
    return read_manifest(root, known[-1]) if known else Manifest()


def read_steadily(opened: Callable[[], Manifest], read: Callable[[Manifest], T]) -> T:
    """What `read` makes of the version that `opened` gives: parts may be replaced under its hands.

    Raises:
        PartLostError: a part is gone, and there is no newer version that would do without it.
    """
    while True:
        manifest = opened()
        try:
            return read(manifest)
        except PartLostError:
            if opened().version == manifest.version:
                raise


def open_table(root: str) -> Manifest:
    """The newest version of a table that has to exist.

    Raises:
        StoreError: if there is none at `root`.
    """
    manifest = latest(root) if files.is_folder(root) else Manifest()
    if not manifest.version:
        raise StoreError(
            f"no store at {root!r}; `beam-flowers embed IMAGES --store {root}` makes one"
        )
    return manifest


def require_table_place(root: str) -> None:
    """Raises StoreError unless `root` can become a table or is one."""
    if files.exists(root) and not files.is_folder(root):
        raise StoreError(f"{root!r} is a file; a store is a folder: give another path")
    if not files.is_folder(root) or files.is_folder(files.join(root, COMMITS)):
        return
    foreign = next((e.name for e in files.list_folder(root) if e.name != WORK), None)
    if foreign is not None:
        raise StoreError(
            f"{root!r} holds other things ({foreign!r}) and is no store; give a new or empty folder"
        )


def commit(root: str, manifest: Manifest) -> bool:
    """Makes `manifest` the newest version, unless another writer took its number.

    Returns:
        True if it is committed now, by this call or by an earlier try of the same run.
    """
    uri = _commit_uri(root, manifest.version)
    files.make_folder(files.parent(uri))
    if files.put_if_absent(uri, encode_manifest(manifest)):
        return True
    return decode_manifest(files.read_bytes(uri), uri).run == manifest.run


def publish(root: str) -> None:
    """Moves the newest commit's parts to where plain readers look and deletes replaced ones.

    Idempotent: whoever was killed in the middle of it is finished by the next caller. A part
    that is lost is left to the next plan, which computes its rows again.
    """
    while True:
        manifest = latest(root)
        named = manifest.names(root)
        for place, names in named.items():
            _move_parts(place, names)
        for version in [v for v in versions(root) if v < manifest.version][-_REMEMBERED:]:
            for place, names in read_manifest(root, version).names(root).items():
                _delete_parts(place, names - named.get(place, set()))
        if versions(root)[-1:] in ([], [manifest.version]):
            return


def _move_parts(place: Place, names: set[str]) -> None:
    def move(name: str) -> None:
        files.make_folder(files.parent(place.published(name)))
        # Another publisher of the same commit may be faster.
        with contextlib.suppress(FileNotFoundError):
            files.move(place.work(name), place.published(name))

    _for_each(move, _present(place.work, names), place.root)


def _delete_parts(place: Place, names: set[str]) -> None:
    for locate in (place.published, place.work):

        def delete(name: str, locate: Callable[[str], str] = locate) -> None:
            with contextlib.suppress(FileNotFoundError):
                files.delete(locate(name))

        _for_each(delete, _present(locate, names), place.root)


def _for_each(act: Callable[[str], None], names: list[str], root: str) -> None:
    """Object stores answer each request slowly, but many at a time."""
    with ThreadPoolExecutor(1 if files.is_local(root) else _AT_ONCE) as pool:
        list(pool.map(act, names))


def _present(locate: Callable[[str], str], names: set[str]) -> list[str]:
    """Those of the parts that lie where `locate` says; asked folder by folder."""
    uris = {locate(name): name for name in names}
    folders = [f for f in sorted({files.parent(uri) for uri in uris}) if files.is_folder(f)]
    there = (entry.uri for folder in folders for entry in files.list_folder(folder))
    return sorted(uris[uri] for uri in there if uri in uris)


def vacuum(root: str) -> list[str]:
    """Deletes what the newest commit does not name; returns the deleted paths.

    Not to be called while another run writes to the table: its unfinished work goes too.
    """
    open_table(root)
    copies = files.join(root, AUGMENTED)
    return [*_vacuum(root), *(_vacuum(copies) if files.is_folder(copies) else [])]


def _vacuum(root: str) -> list[str]:
    publish(root)
    manifest = latest(root)
    keep = {place.published(n) for place, names in manifest.names(root).items() for n in names}
    keep.add(_commit_uri(root, manifest.version))
    doomed = [uri for uri in _table_files(root) if uri not in keep]
    for uri in doomed:
        files.delete(uri)
    files.remove_empty_folders(files.join(root, WORK))
    return doomed


def _table_files(root: str) -> list[str]:
    """Files that belong to the table: never anything that somebody else put there."""
    ours = (WORK, COMMITS, REJECTS)
    found = []
    for uri in (entry.uri for entry in files.walk(root)):
        top = uri[len(root) :].lstrip("/").split("/", 1)[0]
        is_part = uri.rsplit("/", 1)[-1].startswith(("part-", ".part-")) and uri.endswith(
            ".parquet"
        )
        if top in ours or (is_part and top != AUGMENTED):
            found.append(uri)
    return found


def _commit_uri(root: str, version: int) -> str:
    return files.join(root, COMMITS, f"{version:08d}.json")
