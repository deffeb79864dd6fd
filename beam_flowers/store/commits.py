"""Reads, writes and publishes commits: JSON manifests that name the parts of each version."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Annotated, Any, TypeVar

import msgspec

from beam_flowers import files
from beam_flowers.errors import BeamFlowersError, PartLostError, StoreError, StoreFieldError
from beam_flowers.files.typed import MOST_FREE_BYTES, Count, Form, Items, read_free
from beam_flowers.store.names import (
    COMMITS,
    LEASES,
    RESERVED,
    RETIRED,
    WORK,
    commit_name,
    commit_version,
    is_digest,
    is_reserved_file,
    is_run,
    is_section,
    published_name,
)
from beam_flowers.store.parts import Part, PartFields, Place, checked_parts, foreign
from beam_flowers.store.schema import ENCODINGS

T = TypeVar("T")

NEWEST_LAYOUT = 4
"""Layout of every new manifest; a program refuses layouts that it does not know. From 2 on there
may be a table `__scored`, which the `vacuum` of a program that only knows 1 would delete. From 3 on
parts have the size and sha256 of their files, and may be `lost`. From 4 on unpublished parts are in
the folders of their runs, and runs have leases."""
RETENTION = 7 * 24 * 60 * 60.0
"""Seconds that a version can still be read after another one has replaced it."""
MOST_VERSIONS = 1000
FEWEST_VERSIONS = 2
"""Number of versions that stay at any age, as a reader may be at the one before the newest."""
_LATEST = 253_402_214_400
"""Seconds from the epoch to the last day that Python's dates can hold, in the year 9999."""
_REMEMBERED = 8
_AT_ONCE = 16


@dataclass(frozen=True)
class Section:
    """Rows and rejects of one backbone, or of a score table.

    Attributes:
        fingerprint: of the model and recipe that computed the rows, hex.
        about: description of the section, JSON values only.
        parts: the row parts and the reject parts.
        roots: roots listed so far, sorted.
        lost: parts that were gone or damaged when a run needed them. `rows` and `dataset_hash`
            leave them out, and readers skip them. `fsck --repair` and `forget` clear them.
    """

    fingerprint: str
    about: dict[str, Any]
    parts: tuple[Part, ...] = ()
    roots: tuple[str, ...] = ()
    lost: tuple[Part, ...] = ()

    @property
    def rows(self) -> list[Part]:
        return [p for p in self.parts if not p.is_rejects]

    @property
    def rejects(self) -> list[Part]:
        return [p for p in self.parts if p.is_rejects]

    @property
    def dataset_hash(self) -> str:
        """Hash of all rows and rejects, hex; it does not depend on how parts divide them."""
        rows = sum(int(p.digest, 16) for p in self.rows) % 2**256
        rejects = sum(int(p.digest, 16) for p in self.rejects) % 2**256
        return hashlib.sha256(f"{rows:064x}{rejects:064x}".encode()).hexdigest()


def encoding_in(section: Section) -> str:
    """Returns the encoding of a section's vectors, one of `ENCODINGS`."""
    return str(section.about.get("encoding", ENCODINGS[0]))


@dataclass(frozen=True)
class Manifest:
    """Version of a table.

    Attributes:
        version: its number; 0 for a table that has no commit yet.
        run: id of the run that made it.
        sections: by folder name.
        counts: numbers of that run; outside `dataset_hash`.
        made: `time` in seconds since the epoch, `program` and its version, `command` and those of
            its options that hold no secret.
        layout: of the file that it was read from; new files always get `NEWEST_LAYOUT`.
    """

    version: int = 0
    run: str = ""
    sections: dict[str, Section] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)
    layout: int = NEWEST_LAYOUT

    @property
    def time(self) -> float:
        """Seconds since the epoch at which it was committed; 0 before layout 3."""
        return float(self.made.get("time", 0.0))

    def places(self, root: str, run: str = "") -> Iterator[tuple[Place, Section]]:
        """Yields the sections of the table in folder `root` with their places, for one run."""
        for key, section in self.sections.items():
            yield Place(root, key, section.fingerprint, run), section

    def part_names(self, root: str) -> dict[Place, set[str]]:
        """Returns the names of all parts of the table in folder `root`, by place."""
        return {place: {part.name for part in s.parts} for place, s in self.places(root)}

    def lost_parts(self, root: str) -> dict[Place, tuple[Part, ...]]:
        """Returns the lost parts of the table in folder `root`, by place."""
        return {place: s.lost for place, s in self.places(root) if s.lost}


def committed(manifest: Manifest, place: Place) -> Section:
    """Returns the section at `place`; an empty one if it is absent or of another fingerprint."""
    section = manifest.sections.get(place.section)
    if section and section.fingerprint == place.fingerprint:
        return section
    return Section(place.fingerprint, {})


def encode_manifest(manifest: Manifest) -> bytes:
    """Returns the manifest as JSON."""
    sections = {
        key: {
            "fingerprint": s.fingerprint,
            "about": s.about,
            "dataset_hash": s.dataset_hash,
            "rows": sum(p.rows for p in s.rows),
            "rejects": sum(p.rows for p in s.rejects),
            "roots": list(s.roots),
            "parts": [p.as_dict() for p in s.parts],
            **({"lost": [p.as_dict() for p in s.lost]} if s.lost else {}),
        }
        for key, s in sorted(manifest.sections.items())
    }
    document = {
        "layout": NEWEST_LAYOUT,
        "version": manifest.version,
        "run": manifest.run,
        **({"made": manifest.made} if manifest.made else {}),
        "counts": manifest.counts,
        "sections": sections,
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode()


class _Layout(msgspec.Struct):
    layout: Annotated[int, msgspec.Meta(ge=1)]


class _Fields(msgspec.Struct):
    """Types of the fields of a manifest; its sections are read one by one, so errors name them."""

    version: Count
    run: str
    counts: msgspec.Raw
    sections: Annotated[dict[str, msgspec.Raw], Items]
    made: msgspec.Raw = msgspec.Raw(b"{}")


class _SectionFields(msgspec.Struct):
    fingerprint: str
    about: msgspec.Raw
    parts: Annotated[list[PartFields], Items]
    roots: Annotated[list[str], Items]
    lost: Annotated[list[PartFields], Items] = []


class _Made(msgspec.Struct):
    """Types of the fields of `Manifest.made` that this program reads."""

    time: Annotated[float, msgspec.Meta(ge=0, le=_LATEST)] = 0.0
    program: str = ""
    command: str = ""
    options: dict[str, Any] = {}


class _About(msgspec.Struct):
    """Types of the fields of `Section.about` that this program reads."""

    name: str = ""
    encoding: str | None = None
    backbone: str | None = None
    pixels: dict[str, Any] = {}
    copies: Annotated[int, msgspec.Meta(ge=1, le=1 << 31)] = 1
    distortions: dict[str, Any] = {}


_ADVICE = "delete it to fall back on the commit before it"
_LAYOUT = Form(_Layout, StoreFieldError, _ADVICE)
_MANIFEST = Form(_Fields, StoreFieldError, _ADVICE)
_SECTION = Form(_SectionFields, StoreFieldError, _ADVICE)
_FREE = Form(dict[str, Any], StoreFieldError, _ADVICE, most=MOST_FREE_BYTES)
_MADE = Form(_Made, StoreFieldError, _ADVICE)
_ABOUT = Form(_About, StoreFieldError, _ADVICE)


def decode_manifest(data: bytes | msgspec.Raw, uri: str, where: str = "") -> Manifest:
    """Reads a manifest and checks that its names have the form that this program writes.

    An unchecked name could become a path outside of the table.

    Args:
        data: content of the file.
        uri: address of the file, for errors.
        where: field of the file that holds the manifest; empty if the file is the manifest.

    Raises:
        StoreFieldError: a field is not as this program writes it; the file and field are named.
        StoreError: a newer program wrote it.
    """
    layout = _LAYOUT.read(data, uri, where).layout
    if layout > NEWEST_LAYOUT:
        raise StoreError(
            f"{uri} has layout {layout}, this version of beam-flowers reads 1 to {NEWEST_LAYOUT}: "
            "a newer one wrote it; update beam-flowers"
        )
    found = _MANIFEST.read(data, uri, where)
    within = f"{where}." if where else ""
    if not found.version:
        raise foreign(uri, f"{within}version", found.version)
    sections = {}
    for key, raw in found.sections.items():
        place = f"{within}sections[{key!r}]"
        if not is_section(key):
            raise foreign(uri, f"a key of {within}sections", key)
        section = _SECTION.read(raw, uri, place)
        if not is_digest(section.fingerprint):
            raise foreign(uri, f"{place}.fingerprint", section.fingerprint)
        _ABOUT.read(section.about, uri, f"{place}.about")
        sections[key] = Section(
            section.fingerprint,
            read_free(_FREE, section.about, uri, f"{place}.about"),
            checked_parts(section.parts, uri, f"{place}.parts"),
            tuple(section.roots),
            checked_parts(section.lost, uri, f"{place}.lost"),
        )
    counts = read_free(_FREE, found.counts, uri, f"{within}counts")
    made = read_free(_FREE, found.made, uri, f"{within}made")
    _MADE.read(found.made, uri, f"{within}made")
    return Manifest(found.version, found.run, sections, counts, made, layout)


def versions(root: str) -> list[int]:
    """Lists the committed versions, ascending.

    Raises:
        StoreError: one of the table's own folders is a link.
    """
    inner = [root] if root.rpartition("/")[2] in RESERVED else []
    refuse_links([*inner, *(files.join(root, name) for name in RESERVED)])
    folder = files.join(root, COMMITS)
    if not files.is_folder(folder):
        return []
    found = (commit_version(entry.name) for entry in files.list_folder(folder))
    return sorted(version for version in found if version)


def refuse_links(folders: Iterable[str]) -> None:
    """Refuses folders that are links, as these could lead to files outside of the table.

    Raises:
        StoreError: a folder is a link; it is named.
    """
    for folder in folders:
        if files.is_local(folder) and os.path.islink(folder):
            raise StoreError(
                f"{folder} is a link, and a store writes and deletes only below its own folder. "
                "Nothing was touched. Put a folder there, or mount one"
            )


def read_manifest(root: str, version: int) -> Manifest:
    """Reads version `version` of the table."""
    uri = commit_uri(root, version)
    manifest = decode_manifest(files.read_document(uri, _MANIFEST), uri)
    if manifest.version != version:
        raise StoreFieldError(
            f"{uri}: version is {manifest.version}, not {version} as the file's name says; delete "
            "the file if it was copied or renamed by hand",
            uri,
            "version",
        )
    return manifest


def latest(root: str) -> Manifest:
    """Returns the newest version; version 0 for a table that does not exist yet."""
    while known := versions(root):
        try:
            return read_manifest(root, known[-1])
        except FileNotFoundError:
            # Others may have committed since the listing, and `vacuum` deleted this version.
            if versions(root)[-1:] == known[-1:]:
                raise
    return Manifest()


def read_steadily(opened: Callable[[], Manifest], read: Callable[[Manifest], T]) -> T:
    """Reads a version by `read`, and the next one if parts were replaced meanwhile.

    Args:
        opened: returns the newest version.
        read: reads from a version.

    Returns:
        The result of `read`.

    Raises:
        PartLostError: a part is gone, and no newer version has replaced it.
    """
    while True:
        manifest = opened()
        try:
            return read(manifest)
        except PartLostError:
            if opened().version == manifest.version:
                raise


def open_table(root: str) -> Manifest:
    """Returns the newest version of a table that has to exist.

    Raises:
        StoreError: there is no table at `root`.
    """
    manifest = latest(root) if files.is_folder(root) else Manifest()
    if not manifest.version:
        raise StoreError(
            f"no store at {root!r}; `beam-flowers embed IMAGES --store {root}` makes one"
        )
    return manifest


def require_outer_table(root: str) -> None:
    """Refuses a name that stores use for their own folders.

    Raises:
        StoreError: the last component of `root` is such a name.
    """
    name = root.rpartition("/")[2]
    if name in RESERVED:
        raise StoreError(f"{root}: a store uses the name {name} for itself; give another folder")


def require_table_place(root: str) -> None:
    """Refuses a path that neither is a table nor can become one.

    Raises:
        StoreError: it is a file, or has other files in it.
    """
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
    uri = commit_uri(root, manifest.version)
    stamp = {"time": round(time.time(), 3), "program": f"beam-flowers {_version()}"}
    manifest = replace(manifest, made={**manifest.made, **stamp})
    if files.put_if_absent(uri, encode_manifest(manifest)):
        return True
    # The answer of an object store may be lost after the write, and the request repeated.
    return read_manifest(root, manifest.version).run == manifest.run


def publish(root: str) -> None:
    """Moves the newest commit's parts to where plain readers look, and retires replaced parts.

    Idempotent: the next caller finishes the work of a killed one. Lost parts are left to the next
    plan, which computes their rows again.

    The order keeps every version whole at any moment: parts that leave get a second name in
    `__retired` first, then new parts come in, and only then the old names are deleted.
    """
    while True:
        manifest = latest(root)
        older = [v for v in versions(root) if v < manifest.version][-_REMEMBERED:]
        # All are read before any part moves: a manifest that is refused leaves all as it was.
        named = manifest.part_names(root)
        every = {place: set(names) for place, names in named.items()}
        for known in read_those_there(root, older):
            for place, names in known.part_names(root).items():
                every.setdefault(place, set()).update(names)
        folders = {
            files.parent(locate(name))
            for place, names in every.items()
            for name in names
            for locate in (place.published, place.work, place.retired)
        }
        refuse_links(sorted(folders - {root}))
        lost = manifest.lost_parts(root)
        leaving = {
            place: names - named.get(place, set()) - {part.name for part in lost.get(place, ())}
            for place, names in every.items()
        }
        # First the copies: a reader of an older version looks there last, see `Place.addresses`.
        for place, names in leaving.items():
            _retire_parts(place, names)
        # New parts come before old ones go: a plain reader may see a row twice, but never misses
        # one.
        for place, names in named.items():
            _move_parts(place, names)
        # The file of a lost part may have come back, and its images have rows in new parts by now.
        for place, parts in lost.items():
            for part in parts:
                _set_aside(place, part)
        # A newer commit may need parts that this version would delete: begin again with it.
        if versions(root)[-1:] not in ([], [manifest.version]):
            continue
        for place, names in leaving.items():
            _delete_parts(place, names)
        # A version that came meanwhile is published as well.
        if versions(root)[-1:] in ([], [manifest.version]):
            break
    if manifest.version:
        _mark_published(root, manifest.version)
    for uri in list(expired(root)):
        files.delete(uri)


def _mark_published(root: str, version: int) -> None:
    """Marks a version as fully published, so that commands that only read need not publish it."""
    folder, name = files.join(root, COMMITS), published_name(version)
    held = {entry.name for entry in files.list_folder(folder)}
    if name not in held:
        files.write_atomic(files.join(folder, name), b"")
    for other in held - {name}:
        if other.endswith(".published") and is_reserved_file(f"{COMMITS}/{other}"):
            files.delete(files.join(folder, other))


def finish_publishing(root: str, version: int) -> None:
    """Publishes a version that a killed writer left half published, if the table is writable.

    Until then plain readers see old and new parts together.
    """
    if not files.exists(files.join(root, COMMITS, published_name(version))):
        # Without write access nothing is lost: our own readers follow the manifest.
        with contextlib.suppress(OSError, BeamFlowersError):
            publish(root)


def purge(root: str) -> None:
    """Deletes all versions except the newest, and every part that only they need."""
    folder = files.join(root, RETIRED)
    # Twice: a slower publisher may have made further copies meanwhile.
    for _ in range(2):
        for uri in list(expired(root, retention=0, fewest=1)):
            files.delete(uri)
        for entry in list(files.walk(folder)) if files.is_folder(folder) else ():
            if is_reserved_file(files.relative(entry.uri, root)):
                files.delete(entry.uri)
        files.remove_empty_folders(folder)


def expired(
    root: str,
    retention: float = RETENTION,
    most: int = MOST_VERSIONS,
    fewest: int = FEWEST_VERSIONS,
) -> Iterator[str]:
    """Yields addresses of files that only expired versions need, parts before manifests.

    A version's age counts from the manifest that replaced it.

    Args:
        root: folder of the table.
        retention: seconds that a replaced version is kept.
        most: largest number of versions that stay.
        fewest: number of versions that stay at any age.
    """
    known = versions(root)
    # Each manifest is read once: that which replaces a version is the next one to look at.
    following = None
    while len(known) > fewest:
        with contextlib.suppress(FileNotFoundError):
            first = following or read_manifest(root, known[0])
            following = read_manifest(root, known[1])
            is_over = time.time() - following.time >= retention
            if not is_over and len(known) <= most:
                return
            held = following.part_names(root)
            for place, names in first.part_names(root).items():
                for name in sorted(names - held.get(place, set())):
                    # The first two exist only if a publisher was killed before it deleted them.
                    # Without their manifest they would look like the user's own files.
                    yield from (place.published(name), place.work(name), place.retired(name))
            yield commit_uri(root, known[0])
            if is_run(first.run):
                # A lease has to outlive any repetition of the commit step that put it.
                yield files.join(root, WORK, LEASES, f"run-{first.run}")
        known = known[1:]


def read_those_there(root: str, numbers: Iterable[int]) -> Iterator[Manifest]:
    """Yields the manifests of old versions; skips those that `vacuum` deleted meanwhile."""
    for version in numbers:
        with contextlib.suppress(FileNotFoundError):
            yield read_manifest(root, version)


def _retire_parts(place: Place, names: set[str]) -> None:
    """Copies parts that leave the newest version to their names in `__retired`."""
    kept = set(_present(place.retired, names))

    def retire(name: str) -> None:
        for uri in (place.published(name), place.work(name)):
            # Another publisher of the same commit may be faster.
            with contextlib.suppress(FileNotFoundError):
                files.copy(uri, place.retired(name))
                return

    there = {*_present(place.published, names), *_present(place.work, names)}
    _for_each(retire, sorted(there - kept), place.root)


def _move_parts(place: Place, names: set[str]) -> None:
    def move(name: str) -> None:
        # Another publisher of the same commit may be faster.
        with contextlib.suppress(FileNotFoundError):
            files.move(place.work(name), place.published(name))

    _for_each(move, _present(place.work, names), place.root)


def _set_aside(place: Place, part: Part) -> None:
    """Moves the file of a lost part, if it exists, away from where plain readers look.

    Its images may have rows in other parts by now. A sound file, which has come back, moves to
    where a later run or `fsck` finds it. A damaged one moves to where nothing reads it.
    """
    published = place.published(part.name)
    if not files.exists(published):
        return
    data = files.read_bytes(published)
    is_sound = part.sha256 is not None and hashlib.sha256(data).hexdigest() == part.sha256
    target = place.work(part.name) if is_sound else place.damaged(part.name)
    with contextlib.suppress(FileNotFoundError):
        files.move(published, target)


def _delete_parts(place: Place, names: set[str]) -> None:
    for locate in (place.published, place.work):
        _for_each(files.delete, [locate(name) for name in _present(locate, names)], place.root)


def _for_each(act: Callable[[str], None], names: Sequence[str], root: str) -> None:
    """Calls `act` for each name or address, in several threads for object stores.

    These answer one request slowly, but many at a time.
    """
    with ThreadPoolExecutor(1 if files.is_local(root) else _AT_ONCE) as pool:
        list(pool.map(act, names))


def _present(locate: Callable[[str], str], names: set[str]) -> list[str]:
    """Returns the names whose address by `locate` exists; lists folders, which takes few calls."""
    uris = {locate(name): name for name in names}
    folders = [f for f in sorted({files.parent(uri) for uri in uris}) if files.is_folder(f)]
    there = (entry.uri for folder in folders for entry in files.list_folder(folder))
    return sorted(uris[uri] for uri in there if uri in uris)


def commit_uri(root: str, version: int) -> str:
    """Returns the address of a version's manifest."""
    return files.join(root, COMMITS, commit_name(version))


def _version() -> str:
    try:
        return metadata.version("beam-flowers")
    except metadata.PackageNotFoundError:
        return "unknown"
