"""Deletes the files that interrupted runs left in a table, and old versions."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from beam_flowers import files
from beam_flowers.store.commits import (
    FEWEST_VERSIONS,
    RETENTION,
    Manifest,
    commit_uri,
    expired,
    open_table,
    read_those_there,
    versions,
)
from beam_flowers.store.lease import newest_change, storage_time, withdraw
from beam_flowers.store.names import (
    BEAT,
    COMMITS,
    DAMAGED,
    INNER,
    LEASES,
    WORK,
    is_reserved_file,
    is_run,
    published_name,
)

DAY = 24 * 60 * 60


@dataclass(frozen=True)
class Vacuumed:
    """Files that `vacuum` found in a table beside those of its versions.

    Attributes:
        deleted: addresses of files that were deleted, or would be.
        young: number of unneeded files that stay for their age, as a run may still write to them.
        foreign: addresses of files that this program did not write; they are never deleted.
    """

    deleted: tuple[str, ...] = ()
    young: int = 0
    foreign: tuple[str, ...] = ()


def vacuum(
    root: str, older_than: float = DAY, dry_run: bool = False, retention: float = RETENTION
) -> Vacuumed:
    """Deletes the files that no version of a table needs, also in the tables inside of it.

    The two newest versions stay. Others are deleted with the parts that only they need, if they
    were replaced longer ago than `retention`. A file that no version names is deleted if it is
    older than `older_than`, since a run may be at work on a younger one. A run without a sign of
    life for that time is withdrawn before its files are deleted, and plans again if it wakes up. A
    commit that it has begun is finished.

    Args:
        root: absolute folder of a store or of a table of scores.
        older_than: least age in seconds of a file that no version names, by the clock of its
            storage.
        dry_run: delete and write nothing; ages are by this machine's clock.
        retention: seconds that a replaced version is kept, from the manifest that replaced it.

    Raises:
        StoreError: there is no table, or one of its manifests is refused.
    """
    found = [
        _vacuum(table, older_than=older_than, dry_run=dry_run, retention=retention)
        for table in tables(root)
    ]
    return Vacuumed(
        tuple(uri for each in found for uri in each.deleted),
        sum(each.young for each in found),
        tuple(uri for each in found for uri in each.foreign),
    )


def tables(root: str) -> list[str]:
    """Lists the folders of a table, which has to exist, and of the tables inside of it."""
    open_table(root)
    inner = (files.join(root, name) for name in INNER)
    return [root, *filter(files.is_folder, inner)]


def _vacuum(root: str, *, older_than: float, dry_run: bool, retention: float) -> Vacuumed:
    now = time.time() if dry_run else storage_time(root)
    before = (now - older_than) * 1_000_000
    # Files first and manifests afterwards: a commit that comes in between is among the newest two.
    entries = list(own_entries(root))
    there = {entry.uri for entry in entries}
    # A dict keeps the order of `expired`: a manifest comes after the parts that only it names.
    over = dict.fromkeys(uri for uri in expired(root, retention) if uri in there)
    if not dry_run:
        # Before runs are withdrawn, since a full disk has no room for a lease.
        for uri in over:
            files.delete(uri)
        _withdraw_old(root, before)
        entries = list(own_entries(root))
    numbers = [v for v in versions(root) if commit_uri(root, v) not in over]
    needed, replaced = _needed(root, list(read_those_there(root, numbers)))
    groups: dict[str, list[files.Entry]] = defaultdict(list)
    foreign = []
    for entry in entries:
        if entry.uri in needed or entry.uri in over:
            continue
        group = _group(files.relative(entry.uri, root)) if entry.kind == "file" else None
        if group is None and entry.uri not in replaced:
            foreign.append(entry.uri)
        else:
            groups[group or entry.uri].append(entry)
    # Leases stay as long as manifests, which is longer than a commit step may be repeated.
    ends = {True: (now - max(retention, older_than)) * 1_000_000, False: before}
    old = {
        name: group
        for name, group in groups.items()
        if newest_change(group) <= ends[name.startswith(LEASES)]
    }
    gone = [entry.uri for group in old.values() for entry in group]
    if not dry_run:
        for uri in gone:
            files.delete(uri)
        # The id of a run never comes back, so its folder is deleted. The folder of a fingerprint
        # stays, since a run may be about to write there.
        for name in old:
            if name.startswith("run-"):
                files.remove_empty_folders(files.join(root, WORK, name))
    young = sum(map(len, groups.values())) - len(gone)
    return Vacuumed((*over, *gone), young, tuple(foreign))


def _needed(root: str, manifests: list[Manifest]) -> tuple[set[str], set[str]]:
    """Finds the files that the versions of a table need.

    Args:
        root: folder of the table.
        manifests: the versions that stay, ascending.

    Returns:
        The addresses of these files; the published addresses of parts that older versions name,
        of which a publisher that was killed may have left files.
    """
    newest, older = manifests[-FEWEST_VERSIONS:], manifests[:-1]
    needed = {commit_uri(root, manifest.version) for manifest in manifests}
    needed.update(files.join(root, COMMITS, published_name(m.version)) for m in newest)
    needed.add(files.join(root, COMMITS, ".lock"))  # By `files.put_if_absent`, where links fail.
    replaced: set[str] = set()
    for manifest in older:
        for place, names in manifest.part_names(root).items():
            needed.update(map(place.retired, names))
            replaced.update(map(place.published, names))
    for manifest in newest:
        # Their parts may be at either address: a run may be publishing them just now.
        for place, names in manifest.part_names(root).items():
            needed.update(map(place.published, names), map(place.work, names))
        for place, lost in manifest.lost_parts(root).items():
            # A lost part that came back stays in `__work` until `fsck` finds it.
            needed.update(place.work(part.name) for part in lost)
    return needed, replaced


def own_entries(root: str) -> Iterator[files.Entry]:
    """Yields the files of a table, without damaged ones and those of the tables inside of it."""
    inner = {files.join(root, name) for name in (*INNER, DAMAGED)}
    for entry in files.walk(root, lambda folder: folder not in inner):
        relative = files.relative(entry.uri, root)
        # Object stores list by prefix, and so also the files below the inner tables.
        if relative.split("/", 1)[0] not in (*INNER, DAMAGED):
            yield entry


def _group(relative: str) -> str | None:
    """Returns the group of files that a file is kept or deleted with; None if it is not ours.

    The files of a run form a group, and so do unfinished parts of one fingerprint: while a run adds
    to them, it still needs those that it wrote long ago.
    """
    if not is_reserved_file(relative):
        return None
    top, _, rest = relative.partition("/")
    if top != WORK:
        return relative
    return rest if rest.startswith(f"{LEASES}/") else rest.partition("/")[0]


def _withdraw_old(root: str, before: float) -> None:
    """Withdraws the runs without a sign of life since `before`, or finishes their commits.

    Args:
        root: folder of the table.
        before: microseconds since the epoch, by the clock of the storage.
    """
    runs: dict[str, list[files.Entry]] = defaultdict(list)
    work = files.join(root, WORK)
    for entry in files.walk(work) if files.is_folder(work) else ():
        runs[files.relative(entry.uri, work).partition("/")[0]].append(entry)
    for folder, entries in runs.items():
        run = folder.removeprefix("run-")
        beat = files.join(work, folder, BEAT)
        # Runs without a beat have no driver of ours that could plan again.
        has_beat = any(entry.uri == beat for entry in entries)
        if is_run(run) and has_beat and newest_change(entries) <= before:
            withdraw(root, run, by="vacuum")
