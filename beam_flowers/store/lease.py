"""Decides by a file, the lease, if a run commits or is withdrawn.

The file is put once. A commit step, a user who cancels, `vacuum` and a run that takes up another's
work compete for it. The losers act by what the winner has put.
[ADR 8](../../docs/adr/0008-lease.md) has the reasons.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
from collections import defaultdict
from dataclasses import replace
from typing import Any

import msgspec

from beam_flowers import files
from beam_flowers.errors import BeamFlowersError, StoreError, StoreFieldError
from beam_flowers.files.typed import Count, Form
from beam_flowers.store.commits import (
    Manifest,
    committed,
    decode_manifest,
    encode_manifest,
    publish,
)
from beam_flowers.store.names import BEAT, CLOCK, LEASES, WORK, adopted_name, is_part, is_run
from beam_flowers.store.parts import Place, work_parts
from beam_flowers.store.rebase import Intent, LateError, commit_on_newest

PULSE = 60.0
"""Seconds between two beats of a run."""
STALE = 10 * PULSE
"""Seconds without a beat after which another run may take up the work."""
_PROCESS = secrets.token_hex(8)
"""Id of this process; its number alone may be that of an earlier one, mostly in containers."""


class Withdrawn(msgspec.Struct, tag_field="state", tag="withdrawn", frozen=True):
    """Says that a run never commits; it is the content of the lease's file.

    Attributes:
        by: id of the run that withdrew it, possibly itself, or the name of a command.
    """

    by: str


class _Committing(msgspec.Struct, tag_field="state", tag="committing"):
    """Types of the fields of a lease's file, see `Intent`."""

    base: Count
    exact: bool
    manifest: msgspec.Raw


class _Beat(msgspec.Struct):
    """Types of the fields of the file by which a run shows that it is alive."""

    host: str
    pid: Count
    process: str


_AGAIN = "delete it and run this again"
_EITHER: Any = _Committing | Withdrawn
_FORM: Form[_Committing | Withdrawn] = Form(_EITHER, StoreFieldError, _AGAIN)
_BEAT = Form(_Beat, StoreFieldError, _AGAIN, most=1 << 16)


def lease_uri(root: str, run: str) -> str:
    """Returns the address of a run's lease, which outlives the folder of the run."""
    return files.join(root, WORK, LEASES, f"run-{run}")


def commit_under_lease(place: Place, intent: Intent) -> Manifest | None:
    """Commits the section of a run, unless the run was withdrawn.

    A repeated call commits the section of the first call, and ignores its own `intent`.

    Args:
        place: of the section; its `run` is the run.
        intent: all that the commit needs.

    Returns:
        The version that the run committed; None if it has to plan again.

    Raises:
        StoreError: the lease is damaged.
    """
    manifest = Manifest(
        intent.base + 1, place.run, {place.section: intent.section}, intent.counts, intent.made
    )
    document = {
        "state": "committing",
        "base": intent.base,
        "exact": intent.exact,
        "manifest": json.loads(encode_manifest(manifest)),
    }
    files.put_if_absent(lease_uri(place.root, place.run), json.dumps(document).encode())
    # Not what this call has put, but what is there: another may have been first.
    lease = read_lease(place.root, place.run)
    try:
        return commit_on_newest(place, lease[1]) if isinstance(lease, tuple) else None
    except LateError:
        return None


def withdraw(root: str, run: str, by: str) -> Manifest | None:
    """Withdraws a run, or finishes its commit if it has begun one.

    Args:
        root: folder of the table.
        run: id of the run.
        by: see `Withdrawn`.

    Returns:
        The version that the run committed, published; None if it never commits.

    Raises:
        StoreError: the lease is damaged, or others committed first each time.
    """
    document = {"state": "withdrawn", "by": by}
    files.put_if_absent(lease_uri(root, run), json.dumps(document).encode())
    lease = read_lease(root, run)
    if not isinstance(lease, tuple):
        return None
    # Begun: its commit step may be dead or slow. Two that finish it find each other's manifest.
    manifest = commit_on_newest(replace(lease[0], root=root), lease[1])
    if manifest:
        publish(root)
    return manifest


def finish_begun(root: str, by: str) -> None:
    """Finishes the commits that killed runs of a table have begun.

    Args:
        root: folder of the table.
        by: see `Withdrawn`.

    Raises:
        StoreError: a lease is damaged, or others committed first each time.
    """
    work = files.join(root, WORK)
    for entry in list(files.list_folder(work)) if files.is_folder(work) else ():
        run = entry.name.removeprefix("run-")
        # A run that ended well has deleted its folder.
        if run != entry.name and is_run(run) and files.exists(lease_uri(root, run)):
            withdraw(root, run, by)


def is_withdrawn_by_another(place: Place) -> bool:
    """Tells if another run or a command has withdrawn the run of `place`."""
    lease = read_lease(place.root, place.run)
    return isinstance(lease, Withdrawn) and lease.by != place.run


def read_lease(root: str, run: str) -> Withdrawn | tuple[Place, Intent] | None:
    """Reads a run's lease; returns None if it does not exist.

    Raises:
        StoreError: its content is not what this program writes.
    """
    uri = lease_uri(root, run)
    try:
        found = _FORM.read(files.read_document(uri, _FORM), uri)
    except FileNotFoundError:
        return None
    if isinstance(found, Withdrawn):
        return found
    manifest = decode_manifest(found.manifest, uri, "manifest")
    if len(manifest.sections) != 1:
        raise _FORM.wrong(uri, "manifest.sections", "expected one section")
    if manifest.run != run:
        raise StoreError(f"{uri} is the lease of another run; delete it and run this again")
    ((key, section),) = manifest.sections.items()
    intent = Intent(found.base, section, manifest.counts, manifest.made, found.exact)
    return Place(root, key, section.fingerprint, run), intent


class Heart:
    """Shows others that a run is alive, until the block ends.

    At the end the run is withdrawn, unless it has committed; others may then take its work. If an
    error ended the block, files stay that a job on another machine may still read.

    Args:
        place: of the section that the run writes.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Beats now, and then every `PULSE` seconds; a repeated call does nothing."""
        if self._thread is None:
            _beat(self._place)
            self._thread = threading.Thread(target=self._go_on, daemon=True)
            self._thread.start()

    def __enter__(self) -> Heart:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        if self._thread:
            self._thread.join()
        # The block may have ended because the storage fails.
        with contextlib.suppress(OSError, BeamFlowersError):
            _let_go(self._place, has_failed=error_type is not None)

    def _go_on(self) -> None:
        while not self._ended.wait(PULSE):
            # A run may be withdrawn after ten missed beats, so a single failed one must not end it.
            with contextlib.suppress(OSError, BeamFlowersError):
                _beat(self._place)


def _beat(place: Place) -> None:
    beat = {"host": socket.gethostname(), "pid": os.getpid(), "process": _PROCESS}
    files.write_atomic(place.run_file(BEAT), json.dumps(beat).encode())


def _let_go(place: Place, *, has_failed: bool) -> None:
    folder = place.run_file()
    entries = list(files.list_folder(folder)) if files.is_folder(folder) else []
    names = {entry.name for entry in entries} - {BEAT}
    # Without parts there is nothing for others to take up, so that no lease has to stay.
    if work_parts(place) or (has_failed and names):
        withdraw(place.root, place.run, by=place.run)
    for entry in entries:
        if entry.name == BEAT or (not has_failed and entry.uri != place.work_folder):
            (files.delete if entry.kind == "file" else files.delete_tree)(entry.uri)
    files.remove_empty_folders(folder)


def adopt_work(place: Place, manifest: Manifest) -> bool:
    """Moves the parts of runs that have ended without a commit into the folder of this run.

    A run is withdrawn before its parts are taken, so that no two runs plan with one part. Work of
    programs from before leases counts as that of a withdrawn run.

    Args:
        place: of the section; its `run` is this run.
        manifest: the newest version, whose parts stay where they are.

    Returns:
        False if this finished a killed run's commit, so that there is a newer version now.
    """
    section = committed(manifest, place)
    named = {part.name for part in (*section.parts, *section.lost)}
    for run, names in _left_over(place, named).items():
        done = withdraw(place.root, run, by=place.run) if run else None
        if done and done.version > manifest.version:
            return False
        for name in names:
            # Another run may be faster.
            with contextlib.suppress(FileNotFoundError):
                files.move(place.work(name), place.work(adopted_name(name, place.run)))
    return True


def _left_over(place: Place, named: set[str]) -> dict[str, list[str]]:
    """Finds the runs that have ended, and the parts of a section that they have left.

    Runs without parts count as well: one may have begun a commit that only removes rows. It has to
    be finished now, as the files of these rows may come back later.

    Args:
        place: of the section.
        named: names of parts to leave out.

    Returns:
        Names of parts by run; those of programs from before leases by an empty text.
    """
    work = files.join(place.root, WORK)
    entries: dict[str, list[files.Entry]] = defaultdict(list)
    parts: dict[str, list[str]] = defaultdict(list)
    for entry in files.walk(work) if files.is_folder(work) else ():
        run, name = _run_and_part(files.relative(entry.uri, work), place.fingerprint[:16])
        if run != place.run:
            entries[run].append(entry)
            parts[run] += [name] if is_part(name) and name not in named else []
    beats = {run for run, own in entries.items() if any(e.name == BEAT for e in own)}
    ended = (run for run in sorted(parts) if parts[run] or run in beats)
    free = (run for run in ended if not run or _is_free(place.root, run, entries[run]))
    return {run: sorted(parts[run]) for run in free}


def _run_and_part(relative: str, fingerprint: str) -> tuple[str, str]:
    """Splits a path below `__work` into the run and the name of a part.

    The run is empty for a path of programs from before leases. The name is empty for other files.
    """
    first, _, rest = relative.partition("/")
    is_of_run = first.startswith("run-") and is_run(first.removeprefix("run-"))
    run = first.removeprefix("run-") if is_of_run else ""
    folder, _, name = rest.partition("/") if run else (first, "", rest)
    return (run, name) if folder == fingerprint else (run, "")


def _is_free(root: str, run: str, entries: list[files.Entry]) -> bool:
    """Tells if the work of a run may be taken: it has a lease, or it has stopped beating."""
    if files.exists(lease_uri(root, run)):
        return True
    beat = files.join(root, WORK, f"run-{run}", BEAT)
    if not any(entry.uri == beat for entry in entries):
        return False  # A pipeline of the user, without a driver of ours that beats.
    try:
        found = _BEAT.read(files.read_document(beat, _BEAT), beat)
    except (OSError, StoreFieldError):
        return False
    if found.host == socket.gethostname() and not _is_running(found.pid, found.process):
        return True
    return newest_change(entries) <= (storage_time(root) - STALE) * 1_000_000


def _is_running(pid: int, process: str) -> bool:
    """Tells if a process of this machine still runs, by its number.

    True for another process that got the same number meanwhile.
    """
    if pid == os.getpid():
        return bool(process == _PROCESS)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # Of another user, or no number of a process.
        return True
    return True


def newest_change(entries: list[files.Entry]) -> float:
    """Returns the time of the last change of any of the files, in microseconds since the epoch.

    It is infinite if one of the times is unknown.
    """
    times = [entry.modified for entry in entries]
    return max((float("inf") if when is None else when) for when in times)


def storage_time(root: str) -> float:
    """Returns the time of the clock that stamps the storage's files, in seconds since the epoch."""
    uri = files.join(root, WORK, f"{CLOCK}-{secrets.token_hex(6)}")
    files.write_atomic(uri, b"")
    try:
        return files.stat(uri).modified / 1_000_000
    finally:
        files.delete(uri)
