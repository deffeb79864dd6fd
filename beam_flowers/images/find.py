"""Finds images in folders, patterns, single files, archives and manifests, as a stream."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase

from beam_flowers import files
from beam_flowers.errors import InputError
from beam_flowers.images.labels import are_splits, is_hidden, label_and_split
from beam_flowers.images.manifest import is_manifest, read_manifest, read_paths
from beam_flowers.images.shards import DAMAGED, find_in_shard, is_shard
from beam_flowers.records import HiddenFile, Image, Listed, Reject, RootListed

FILES_FROM = "files-from:"
"""Prefix of the name of a file that lists paths."""

_WILDCARDS = frozenset("*?[")
_LEADS_NOWHERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


def find_images(sources: Sequence[str], schemes: Sequence[str] | None = ()) -> Iterator[Listed]:
    """Lists all files in the sources, folder by folder; each source ends with a `RootListed`.

    A source is a folder tree, a pattern (`*`, `?`, `[...]`, and `**` for any number of folders),
    a manifest (see `read_manifest`), a tar, zip or TFRecord file (see `find_in_shard`),
    `files-from:` with the name of a list (see `read_paths`) or one image. Archives that a pattern
    matches or a list names are read; those in a folder are not. The root of a pattern is its
    longest part without wildcards; a folder that matches is listed with all below it. An existing
    file or folder is never taken for a pattern. A file in two sources comes twice. Images are not
    opened: the decoder decides later if a file is one.

    Args:
        sources: folders, patterns, manifests, archives, lists and images.
        schemes: schemes that rows of manifests and lists may name; see `read_manifest`.

    Raises:
        InputError: a source does not exist, or a pattern matches nothing; all names of sources are
            checked before the first record. Or a source other than an image cannot be read at all;
            a later failure, or one below it, is a reject.
    """
    for listing in [_open_source(source, schemes) for source in sources]:
        yield from listing


def require_sources(sources: Sequence[str]) -> None:
    """Raises InputError for a source on this machine that is not there, before any is read."""
    for source in sources:
        if files.is_local(files.absolute(source.removeprefix(FILES_FROM))):
            _open_source(source, ())


def _open_source(source: str, schemes: Sequence[str] | None) -> Iterator[Listed]:
    if source.startswith(FILES_FROM):
        return _find_listed(source.removeprefix(FILES_FROM), schemes)
    uri = files.absolute(source)
    if not source or not files.is_text(uri):
        raise InputError(f"{source!r} cannot be used as a path: empty, or not UTF-8; rename it")
    try:
        if files.is_folder(uri):
            return _find_in_tree(uri)
        if files.exists(uri):
            return _find_in_file(uri, schemes)
        root, pattern = _split_pattern(uri)
        if _WILDCARDS & set("".join(pattern)) and files.is_folder(root):
            return _find_by_pattern(root, pattern)
    except OSError as error:
        raise InputError(f"{source!r} cannot be looked at: {error}") from error
    raise InputError(
        f"{source!r} is not there (looked at {uri!r}); check the spelling, the working folder "
        "and whether you may read the folders above it"
    )


def _find_in_file(uri: str, schemes: Sequence[str] | None) -> Iterator[Listed]:
    # Opening a pipe waits for its writer, and some devices have no end.
    if files.stat(uri).kind != "file":
        return _find_one(uri)
    if is_manifest(uri):
        return _find_in_manifest(uri, schemes)
    is_whole = is_shard(uri) and not files.is_member(uri)
    return _find_in_shard(uri) if is_whole else _find_one(uri)


def _find_in_shard(uri: str) -> Iterator[Listed]:
    listing = find_in_shard(uri)
    for first in itertools.islice(listing, 1):
        if isinstance(first, Reject) and first.image.uri == uri and first.error_class != DAMAGED:
            raise InputError(f"{uri!r} cannot be read: {first.message}")
        yield first
    yield from listing


def _find_listed(path: str, schemes: Sequence[str] | None) -> Iterator[Listed]:
    for found in read_paths(path, schemes):
        yield from _gone_through(found)
    yield RootListed(files.absolute("."), complete=False)


def _gone_through(found: Listed) -> Iterator[Listed]:
    """Yields the members of an archive, or any other record itself."""
    if isinstance(found, Image) and is_shard(found.uri) and not files.is_member(found.uri):
        return find_in_shard(found.uri)
    return iter((found,))


def _find_one(uri: str) -> Iterator[Listed]:
    root = files.parent(uri)
    image = Image(uri, root, files.relative(uri, root))
    status = files.stat(uri)
    if status.kind == "file":
        yield image._replace(bytes=status.bytes, modified=status.modified, etag=status.etag)
    else:
        yield _not_regular(image)
    yield RootListed(root, complete=False)


def _find_in_manifest(uri: str, schemes: Sequence[str] | None) -> Iterator[Listed]:
    yield from read_manifest(uri, schemes)
    yield RootListed(uri, complete=True)


def _find_in_tree(root: str) -> Iterator[Listed]:
    splits, complete = has_splits(root), True
    for entry in _walk(root):
        found = _judge(entry, root, splits)
        if found is not None:
            yield found
            complete = complete and not _is_gap(found)
    yield RootListed(root, complete, is_tree=True)


def _walk(root: str, enter: Callable[[str], bool] | None = None) -> Iterator[files.Entry]:
    """Lists a folder that the user named.

    Raises:
        InputError: the folder cannot be listed.
    """
    entries = files.walk(root, enter)
    for first in itertools.islice(entries, 1):
        if first.kind == "unreadable" and first.uri == root:
            raise InputError(f"{root!r} cannot be listed: {first.error}")
        yield first
    yield from entries


def _find_by_pattern(root: str, pattern: list[str]) -> Iterator[Listed]:
    splits, empty = has_splits(root), True

    def enter(folder: str) -> bool:
        return _may_hold(files.relative(folder, root).split("/"), pattern)

    for entry in _walk(root, enter):
        parts = files.relative(entry.uri, root).split("/")
        if entry.kind == "unreadable" or _matches(parts, pattern):
            found = _judge(entry, root, splits)
            if found is not None:
                empty = False
                yield from _gone_through(found)
    if empty:
        raise InputError(
            f"no file matches {files.join(root, *pattern)!r}; check its spelling, and in a shell "
            "put a pattern, or a name that holds * ? [, between quotes"
        )
    yield RootListed(root, complete=False)


def _split_pattern(uri: str) -> tuple[str, list[str]]:
    """Returns the folder above a pattern's first wildcard, and the components below it.

    A component with wildcards is literal if a folder has exactly that name.
    """
    names: list[str] = []
    root = uri
    while files.parent(root) != root:
        names.insert(0, root.rpartition("/")[2])
        root = files.parent(root)
    while len(names) > 1 and (
        not _WILDCARDS & set(names[0]) or files.is_folder(files.join(root, names[0]))
    ):
        root = files.join(root, names.pop(0))
    return root, names


def _matches(parts: list[str], pattern: list[str]) -> bool:
    """Tells if a path, or a folder above it, fits a pattern."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_matches(parts[i:], pattern[1:]) for i in range(len(parts)))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _may_hold(folder: list[str], pattern: list[str]) -> bool:
    """Tells if a path below a folder can fit a pattern."""
    if not folder or not pattern or pattern[0] == "**":
        return True
    return fnmatchcase(folder[0], pattern[0]) and _may_hold(folder[1:], pattern[1:])


def has_splits(root: str) -> bool:
    """Tells if the folders of a root are splits, with the labels below them."""
    # The look for one name spares most roots a second listing.
    if not files.is_folder(files.join(root, "train")):
        return False
    try:
        return are_splits(e.name for e in files.list_folder(root) if e.kind == "folder")
    except OSError:  # The listing reports it later.
        return False


def _judge(entry: files.Entry, root: str, splits: bool) -> Listed | None:
    """Returns the record of an entry of a folder; None for a link to a folder listed anyway."""
    uri = files.printable(entry.uri)
    path = files.relative(uri, root) if uri != root else ""
    if is_hidden(path):
        return HiddenFile(uri)
    label, split = label_and_split(path, splits)
    image = Image(uri, root, path, label, split, entry.bytes, entry.modified, entry.etag)
    if entry.kind == "unreadable":
        message = f"the folder cannot be listed: {entry.error}"
        return Reject(image, "find", "UnreadableFolder", message)
    if uri != entry.uri:
        return Reject(image, "find", "BadName", "the name is not valid UTF-8; rename the file")
    if entry.kind == "link":
        return _follow(image)
    return image if entry.kind == "file" else _not_regular(image)


def _follow(link: Image) -> Listed | None:
    bare = link._replace(bytes=None, modified=None)
    try:
        status = files.stat(link.uri)
    except OSError as error:
        if error.errno in _LEADS_NOWHERE:
            return Reject(bare, "find", "DanglingLink", "the link leads to nothing")
        status = None
    if not f"{files.resolve(link.uri)}/".startswith(files.resolve(link.root).rstrip("/") + "/"):
        message = "the link leads out of the folder that was given"
        return Reject(bare, "find", "LinkOutsideRoot", message)
    if status is None:
        return bare
    if status.kind == "folder":
        return None
    found = bare._replace(bytes=status.bytes, modified=status.modified)
    return found if status.kind == "file" else _not_regular(found)


def _not_regular(image: Image) -> Reject:
    bare = image._replace(bytes=None, modified=None)
    return Reject(bare, "find", "NotARegularFile", "a pipe, a socket or a device, not a file")


def _is_gap(found: Listed) -> bool:
    """Tells if a record stands for files that were not listed."""
    if isinstance(found, Reject):
        return found.error_class == "UnreadableFolder"
    return isinstance(found, Image) and found.bytes is None
