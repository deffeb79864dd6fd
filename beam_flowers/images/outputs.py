"""Checks outputs before anything is written, by one rule for every output of every command.

What a command reads is never replaced. A file that is there is replaced where it is one of ours,
which it says itself; anything else is replaced only with `--overwrite`. Into a folder that holds
other things only our own names are written, and only with that flag. Nothing else is deleted.
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
"""Bytes at the beginning of a file that are looked at for a mark of ours."""

IsOurs = Callable[[str], bool]
"""Tells by a bounded look at a file or a folder that is there; may raise what it likes."""


@dataclass(frozen=True)
class Writing:
    """The terms on which a command writes.

    Attributes:
        overwrite: replace what is not ours; the flag `--overwrite`.
        inputs: files and folders that the command reads. Jobs add those that they name.
        images: sources of `find_images` that the command reads.
    """

    overwrite: bool = False
    inputs: tuple[str, ...] = ()
    images: tuple[str, ...] = ()

    def reading(self, *inputs: str | None) -> Writing:
        """The same, with further inputs; None is left out."""
        return replace(self, inputs=(*self.inputs, *(path for path in inputs if path)))

    def listing(self, images: Iterable[str]) -> Writing:
        """The same, with further sources of images."""
        return replace(self, images=(*self.images, *images))

    def check_file(self, output: str, what: str, is_ours: IsOurs | None = None) -> None:
        """Checks that a file may be written.

        Args:
            output: its path.
            what: is written, "a report".
            is_ours: recognises an older one; None where the kind carries no mark.

        Raises:
            OutputError: something is there that must stay.
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
            # In an empty file there is nothing to lose, and a reject table may be one.
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
            output: its path.
            what: the folder becomes, "a model".
            is_own: tells the names that are written there; hidden names never count.
            is_ours: recognises a folder in which all names are such; None where none can be,
                and even an empty folder must not be there.

        Returns:
            True if the folder is new, empty or all ours; False if `--overwrite` is needed, and
            given.

        Raises:
            OutputError: something is there that must stay.
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
        """Raises OutputError if a path is one that the command was told to read."""
        for source in (*self.inputs, *self.images):
            if _is_same(uri, path := files.absolute(source.removeprefix(FILES_FROM))):
                raise OutputError(
                    f"{uri!r} is an input of this command ({path!r}), which --overwrite does not "
                    "replace either; name another output"
                )

    def refuse_listed(self, *uris: str) -> None:
        """Raises OutputError if a path lies in an input, or if an input lists it."""
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
    """Raises OutputError unless a file's name has one of the endings that a command writes."""
    if not output.lower().endswith(tuple(endings)):
        raise OutputError(f"the name of {what} ends in {' or '.join(endings)}, {output!r} does not")


def recognised(is_ours: IsOurs, uri: str) -> bool:
    """True if what is there is ours; what is damaged, or cannot be read, is not."""
    try:
        return is_ours(uri)
    # The libraries that look at strange bytes raise whatever they like.
    except Exception:
        return False


def check_target(output: str, what: str, writing: Writing, is_folder: bool = True) -> str:
    """The absolute path of an output that carries no mark, so that it replaces nothing by itself.

    Raises:
        OutputError: something is there that must stay.
        InputError: it lies elsewhere than on this machine.
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
    """A path in a new folder beside `target`, of the same name.

    What is made there, and files whose names only go on further, are moved to their places if all
    goes well; the folder goes in any case.
    """
    parent, name = os.path.split(target)
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".beam-flowers-", dir=parent) as folder:
        yield os.path.join(folder, name)
        for made in sorted(os.listdir(folder), reverse=True):
            if made.startswith(name):
                _install(os.path.join(folder, made), os.path.join(parent, made))


def _install(made: str, target: str) -> None:
    """Moves a file or folder over what may be there; other names in a folder there stay."""
    if not (os.path.isdir(made) and os.path.isdir(target)):
        os.replace(made, target)
        return
    for entry in list(files.walk(made)):
        files.move(entry.uri, files.join(target, files.relative(entry.uri, made)))


def _is_there(uri: str) -> bool:
    # A link that leads nowhere is there, too: a rename would replace it.
    return os.path.lexists(uri) if files.is_local(uri) else files.exists(uri)


def _is_same(uri: str, other: str) -> bool:
    """True for two names of one file, links of both kinds included."""
    if uri == other:
        return True
    if files.is_member(other) or not (files.is_local(uri) and files.is_local(other)):
        return False
    try:
        # Some network mounts give a file another inode at each look, but no other path.
        return files.resolve(uri) == files.resolve(other) or os.path.samefile(uri, other)
    except OSError:
        return False


def _is_below(uri: str, folder: str) -> bool:
    if not (files.is_local(uri) and files.is_local(folder)):
        return uri.startswith(files.join(folder, ""))
    # A link lies where it is and where it leads to.
    name = files.join(files.resolve(files.parent(uri)), uri.rpartition("/")[2])
    within = files.join(files.resolve(folder), "")
    return name.startswith(within) or files.resolve(uri).startswith(within)


def _listed(images: Sequence[str]) -> Iterator[str]:
    # Rows of other schemes come as rejects, with their names, and are not looked at.
    for found in find_images(images):
        if isinstance(found, Image):
            yield found.uri
        elif isinstance(found, Reject):
            yield found.image.uri
