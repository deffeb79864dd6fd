"""Holds the options of `score`, and checks the places that it writes to."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from beam_flowers import files
from beam_flowers.errors import InputError, OutputError
from beam_flowers.images.outputs import Writing
from beam_flowers.scoring.decision import AcceptanceRule
from beam_flowers.scoring.ranking import TOP_K
from beam_flowers.scoring.table import ScoreLayout
from beam_flowers.scoring.table_folder import TABLE, check_table_folder
from beam_flowers.scoring.write_table import (
    is_rejects_file,
    is_score_file,
    rejects_name,
    require_kind,
    suffix,
)
from beam_flowers.store.names import COMMITS, WORK, is_part, is_reserved_file
from beam_flowers.workflows.score_stored import is_store, store_roots


@dataclass(frozen=True)
class ScoreOptions:
    """Options of one scoring run.

    Attributes:
        images: folders, globs, list files, manifests or images; or one store.
        output: a file (see `scoring.write_table.SUFFIXES`) or a folder of Parquet parts.
        store: vectors of images that it has are taken from it; those of others are kept in its
            table `__scored`, which is no part of the collection.
        top_k: labels a row.
        rule: when a label is given.
        separate_columns: see `ScoreLayout`.
        partition_by_label: see `ScoreLayout`; for a folder.
        copy_to: folder into which the images are copied, below one folder for each label.
        writing: the terms on which the table is written; `images` and `store` are inputs anyway.
        exact_csv: cells of CSV as they are, also those that a spreadsheet runs as formulas.
    """

    images: tuple[str, ...]
    output: str
    store: str | None = None
    top_k: int = TOP_K
    rule: AcceptanceRule = field(default_factory=AcceptanceRule)
    separate_columns: bool = False
    partition_by_label: bool = False
    copy_to: str | None = None
    writing: Writing = field(default_factory=Writing)
    exact_csv: bool = False

    def __post_init__(self) -> None:
        require_kind(self.output)
        if suffix(self.output) and self.layout.partition_by_label:
            raise InputError(f"a table by label is a folder; {self.output!r} is the name of a file")

    @property
    def layout(self) -> ScoreLayout:
        """Of the table."""
        return ScoreLayout(self.top_k, self.separate_columns, self.partition_by_label)

    @property
    def table(self) -> str:
        """Folder of the parts; where the output is one file it is beside that, and gone in the end.

        Hidden then, since the output may lie among the images.
        """
        output = files.absolute(self.output)
        if suffix(output) is None:
            return output
        return files.join(files.parent(output), f".{output.rpartition('/')[2]}.partial")


def check_outputs(job: ScoreOptions) -> None:
    """Raises OutputError if something that must stay is where the job would write."""
    writing = job.writing.reading(job.store).listing(job.images)
    if suffix(job.output):
        writing.check_file(job.output, TABLE, is_score_file)
        writing.check_file(rejects_name(job.output), "a table of rejects", is_rejects_file)
        _check_unfinished(job.table)
    else:
        check_table_folder(job.output, writing)
    if job.copy_to:
        _check_copies(job, job.copy_to)


def _check_unfinished(folder: str) -> None:
    """Checks that all in the folder beside a file is ours, as it is deleted in the end."""
    if not files.exists(folder):
        return
    is_ours = files.is_folder(folder) and not (files.is_local(folder) and os.path.islink(folder))
    found = (files.relative(e.uri, folder) for e in (files.walk(folder) if is_ours else ()))
    if not is_ours or not all(is_reserved_file(name) or is_part(name) for name in found):
        raise OutputError(
            f"{folder!r} is where the unfinished table goes, and holds other things, which "
            "--overwrite does not replace; name another output, or move them away"
        )
    if files.is_local(folder) and os.lstat(folder).st_uid != os.geteuid():
        raise _not_ours(folder, "belongs to another user")


def make_unfinished(folder: str) -> None:
    """Makes the folder of `_check_unfinished`, or takes it as it is; nobody else may enter it.

    Raises:
        OutputError: a link or another user's folder is there.
    """
    if not files.is_local(folder):
        return
    files.make_folder(files.parent(folder))
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise _not_ours(folder, "is a link or a file") from error
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise _not_ours(folder, "belongs to another user")
        # One of an earlier version may be open to all.
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def _not_ours(folder: str, what: str) -> OutputError:
    return OutputError(
        f"{folder!r} is where the unfinished table goes, and {what}, who could change the labels: "
        "move it away, or name an output in a folder that only you can write to"
    )


def clear_deleted(folder: str) -> None:
    """Goes on where a run was killed while it deleted its folder, behind the finished table."""
    if files.exists(folder) and not files.is_folder(files.join(folder, COMMITS)):
        names = {entry.name for entry in files.list_folder(folder)}
        if names - {WORK}:
            files.delete_tree(folder)


def _check_copies(job: ScoreOptions, copy_to: str) -> None:
    target = _resolved(copy_to)
    if files.exists(target) and not files.is_folder(target):
        raise OutputError(
            f"{copy_to!r} is a file, which --overwrite does not replace by a folder; name a folder "
            "to copy to"
        )
    for folder in _folders(job):
        if files.join(target, "").startswith(files.join(_resolved(folder), "")):
            raise OutputError(
                f"{copy_to!r} lies in {folder!r}, where the copies would be taken for images of"
                " the collection or for parts of the table; name a folder elsewhere"
            )


def _folders(job: ScoreOptions) -> Iterator[str]:
    """Yields the folders that hold the images, the table or the store."""
    for source in job.images:
        if is_store(source):
            yield from store_roots(source)
        wild = re.search(r"[*?\[]", source)
        fixed = source if not wild or files.exists(source) else source[: wild.start()] + "*"
        yield (
            fixed if files.is_folder(files.absolute(fixed)) else files.parent(files.absolute(fixed))
        )
    yield from (path for path in (job.store, job.table) if path)


def _resolved(path: str) -> str:
    path = files.absolute(path)
    return files.resolve(path) if files.is_local(path) else path
