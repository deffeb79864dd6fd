"""Which class a path names, and when two names are one."""

from __future__ import annotations

import reprlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from beam_flowers.errors import InputError

SPLITS = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "validation": "validation",
    "test": "testing",
    "testing": "testing",
}
"""The written names of the three splits in a manifest, and how a record names them."""

_SPLIT_FOLDERS = frozenset({"train", "val", "validation", "test"})


def are_splits(folders: Iterable[str]) -> bool:
    """Whether the folders of a root are splits: `train`, another one, and nothing else.

    Stops at the first name that is none; hidden folders do not count.
    """
    seen = set()
    for folder in folders:
        if folder not in _SPLIT_FOLDERS and not is_hidden(folder):
            return False
        seen.add(folder)
    return "train" in seen and len(seen & _SPLIT_FOLDERS) > 1


def label_and_split(relative_path: str, splits: bool) -> tuple[str | None, str | None]:
    """The label, verbatim, and the split that a path below its root stands for.

    The label is the first folder (the rule of Keras' `image_dataset_from_directory`); deeper
    folders belong to it. Where the root's folders are splits, it is the second one.

    Args:
        relative_path: path below the root, with `/`.
        splits: what `are_splits` says about the root.

    Returns:
        The label, or None without a folder to take it from; `training`, `validation`,
        `testing` or None.
    """
    *folders, _ = relative_path.split("/")
    split = SPLITS[folders.pop(0)] if splits and folders else None
    return (folders[0] if folders else None), split


def parse_split(written: str) -> str | None:
    """The split that a manifest's text names; None for an empty one.

    Raises:
        InputError: another word.
    """
    if not written:
        return None
    if written.lower() not in SPLITS:
        raise InputError(
            f"split is {reprlib.repr(written)}; write one of {', '.join(SPLITS)}, or nothing"
        )
    return SPLITS[written.lower()]


def is_hidden(relative_path: str) -> bool:
    """Whether a component of a path below its root starts with a dot."""
    return "/." in f"/{relative_path}"


def normalize(label: str) -> str:
    """A label's form for comparison: NFKC, casefold, and one space for whatever is no letter.

    Combining marks count as letters here: in Devanagari or Thai they are a word's vowels,
    and without them different names would become one.
    """
    text = unicodedata.normalize("NFKC", label).casefold()
    return " ".join("".join(c if _is_letter(c) else " " for c in text).split())


def _is_letter(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character).startswith("M")


def collisions(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Different labels with one normalised form, each group and the groups sorted."""
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for label in labels:
        groups[normalize(label)].add(label)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)
