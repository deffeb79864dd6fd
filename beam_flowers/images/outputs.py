"""Checks outputs before the first write, by one rule for every output of every command.

Inputs are never replaced. An existing file is replaced if it carries our mark, and any other file
only with `--overwrite`. A folder with other content gets only our own file names, and only with
that flag. No other file is deleted.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from beam_flowers import files
from beam_flowers.errors import InputError, OutputError
from beam_flowers.images.find import FILES_FROM, find_images
from beam_flowers.records import Image, Reject

HEAD = 64 * 1024
"""Bytes at the beginning of a file in which our mark is searched."""

IsOurs = Callable[[str], bool]
"""Tells if an existing file or folder carries our mark, by a bounded read; may raise any error."""


@dataclass(frozen=True)
class Writing:
    """Holds the flag and the inputs that decide what a command may overwrite.

    Attributes:
        overwrite: the flag `--overwrite`, which allows to replace foreign files.
        inputs: files and folders that the command reads. Jobs add their own.
        images: sources of `find_images` that the command reads.
    """

    overwrite: bool = False
    inputs: tuple[str, ...] = ()
    images: tuple[str, ...] = ()

    def reading(self, *inputs: str | None) -> Writing:
        """Returns a copy with further inputs; ignores None."""
        return replace(self, inputs=(*self.inputs, *(path for path in inputs if path)))

    def listing(self, images: Iterable[str]) -> Writing:
        """Returns a copy with further sources of images."""
        return replace(self, images=(*self.images, *images))

    def check_file(self, output: str, what: str, is_ours: IsOurs | None = None) -> None:
        """Checks that a file may be written.

        Args:
            output: path of the file.
            what: noun for the output in messages, "a report".
            is_ours: recognises an older output; None for formats without a mark.

        Raises:
            OutputError: an existing file must stay.
        """
        uri = files.absolute(output)
        if not _is_there(uri):
            return
        self.refuse_input(uri)
        if files.is_folder(uri):
            raise OutputError(
                f"{output!r} is a folder, which --overwrite does not replace either; name a file"
            )
        if files.exists(uri):
            status = files.stat(uri)
            if status.kind != "file":
                raise OutputError(
                    f"{output!r} is a device or a pipe; {what} is written to a file only, also "
                    "with --overwrite: name one"
                )
            # An empty file loses nothing, and an empty reject table has no mark.
            if not status.bytes or (is_ours and recognised(is_ours, uri)):
                return
        if not self.overwrite:
            why = f", and not {what} of this program" if is_ours else " already"
            raise OutputError(
                f"{output!r} is there{why}: name another output, or replace it with --overwrite"
            )
        self.refuse_listed(uri)

    def check_folder(
        self, output: str, what: str, is_own: Callable[[str], bool], is_ours: IsOurs | None = None
    ) -> bool:
        """Checks that files may be written into a folder.

        Args:
            output: path of the folder.
            what: noun for the output in messages, "a model".
            is_own: tells if a name in the folder is one that we write; hidden names never count.
            is_ours: recognises an older output in a folder with only such names; None for formats
                without a mark, which even an empty folder must not precede.

        Returns:
            True if the folder is new, empty or all ours; False if `--overwrite` is needed and set.

        Raises:
            OutputError: an existing file or folder must stay.
        """
        uri = files.absolute(output)
        if not _is_there(uri):
            return True
        self.refuse_input(uri)
        if not files.is_folder(uri):
            raise OutputError(
                f"{output!r} is a file, which --overwrite does not replace by {what}; name a folder"
            )
        held = [entry for entry in files.list_folder(uri) if not entry.name.startswith(".")]
        own = [entry.uri for entry in held if is_own(entry.name)]
        for path in own:
            self.refuse_input(path)
        foreign = [entry.name for entry in held if not is_own(entry.name)]
        if is_ours and not foreign and (not held or recognised(is_ours, uri)):
            return True
        if not self.overwrite:
            names = [*foreign, *(entry.name for entry in held)]
            why = f"holds other things than {what} ({names[0]!r})" if names else "is there already"
            raise OutputError(
                f"{output!r} {why}: name a new folder, or write into this one with --overwrite"
            )
        self.refuse_listed(uri, *own)
        return False

    def refuse_input(self, uri: str) -> None:
        """Raises OutputError if a path is an input of the command."""
        for source in (*self.inputs, *self.images):
            if _is_same(uri, path := files.absolute(source.removeprefix(FILES_FROM))):
                raise OutputError(
                    f"{uri!r} is an input of this command ({path!r}), which --overwrite does not "
                    "replace either; name another output"
                )

    def refuse_listed(self, *uris: str) -> None:
        """Raises OutputError if a path is inside an input folder, or if an input lists it."""
        for source in (*self.inputs, *self.images):
            folder = files.absolute(source.removeprefix(FILES_FROM))
            for uri in uris if files.is_folder(folder) else ():
                if _is_below(uri, folder):
                    raise OutputError(
                        f"{uri!r} is not ours and lies in the input {folder!r}, where --overwrite "
                        "replaces nothing; name an output elsewhere"
                    )
        for image in _listed(self.images) if self.images else ():
            for uri in uris:
                if _is_same(uri, image):
                    raise OutputError(
                        f"{uri!r} is one of the images to read, which --overwrite does not "
                        "replace; name another output"
                    )


def require_ending(output: str, endings: Sequence[str], what: str) -> None:
    """Raises OutputError unless a file's name has one of the allowed endings."""
    if not output.lower().endswith(tuple(endings)):
        raise OutputError(f"the name of {what} ends in {' or '.join(endings)}, {output!r} does not")


def recognised(is_ours: IsOurs, uri: str) -> bool:
    """Tells if a file or folder carries our mark; False if it is damaged or cannot be read."""
    try:
        return is_ours(uri)
    # Parsers raise any class for foreign bytes.
    except Exception:
        return False


def check_target(output: str, what: str, writing: Writing, is_folder: bool = True) -> str:
    """Returns the absolute path of an output without a mark, which replaces only by `--overwrite`.

    Raises:
        OutputError: an existing file or folder must stay.
        InputError: the output is not on this machine.
    """
    target = files.absolute(output)
    if not files.is_local(target):
        raise InputError(f"{output!r} is not on this machine: export to a local path and copy it")
    if is_folder:
        writing.check_folder(output, what, lambda name: False)
    else:
        writing.check_file(output, what)
    return target


@contextmanager
def placing(target: str) -> Iterator[str]:
    """Yields a path of the same name in a new folder beside `target`.

    On success it moves the output, and files whose names begin with that name, beside `target`. It
    removes the folder in any case.
    """
    parent, name = os.path.split(target)
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".beam-flowers-", dir=parent) as folder:
        yield os.path.join(folder, name)
        for made in sorted(os.listdir(folder), reverse=True):
            if made.startswith(name):
                _install(os.path.join(folder, made), os.path.join(parent, made))


def _install(made: str, target: str) -> None:
    """Moves a file or folder over an older one; keeps other names in an existing folder."""
    if not (os.path.isdir(made) and os.path.isdir(target)):
        os.replace(made, target)
        return
    for entry in list(files.walk(made)):
        files.move(entry.uri, files.join(target, files.relative(entry.uri, made)))


def _is_there(uri: str) -> bool:
    # A dangling link also counts: a rename would replace it.
    return os.path.lexists(uri) if files.is_local(uri) else files.exists(uri)


def _is_same(uri: str, other: str) -> bool:
    """Tells if two names are one file, by links of both kinds too."""
    if uri == other:
        return True
    if files.is_member(other) or not (files.is_local(uri) and files.is_local(other)):
        return False
    try:
        # Some network mounts change the inode of a file at each look, but not its path.
        return files.resolve(uri) == files.resolve(other) or os.path.samefile(uri, other)
    except OSError:
        return False


def _is_below(uri: str, folder: str) -> bool:
    if not (files.is_local(uri) and files.is_local(folder)):
        return uri.startswith(files.join(folder, ""))
    # Both the place of a link and its target count.
    name = files.join(files.resolve(files.parent(uri)), uri.rpartition("/")[2])
    within = files.join(files.resolve(folder), "")
    return name.startswith(within) or files.resolve(uri).startswith(within)


def _listed(images: Sequence[str]) -> Iterator[str]:
    # Rows of other schemes come as rejects with their names, without a request to a server.
    for found in find_images(images):
        if isinstance(found, Image):
            yield found.uri
        elif isinstance(found, Reject):
            yield found.image.uri
