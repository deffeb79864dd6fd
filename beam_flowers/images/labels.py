"""Reads label and split from a path, and compares the names of labels."""

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
"""Splits by their names in manifests and folders; the values are those in records."""

_SPLIT_FOLDERS = frozenset({"train", "val", "validation", "test"})


def are_splits(folders: Iterable[str]) -> bool:
    """Tells if the folders of a root are splits: `train`, another split, and no other folder.

    Stops at the first other name; hidden folders do not count.
    """
    seen = set()
    for folder in folders:
        if folder not in _SPLIT_FOLDERS and not is_hidden(folder):
            return False
        seen.add(folder)
    return "train" in seen and len(seen & _SPLIT_FOLDERS) > 1


def label_and_split(relative_path: str, splits: bool) -> tuple[str | None, str | None]:
    """Returns the given label, verbatim, and the split of a path below its root.

    The label is the first folder (the rule of Keras' `image_dataset_from_directory`); deeper
    folders belong to it. If the root's folders are splits, the label is the second folder.

    Args:
        relative_path: path below the root, with `/`.
        splits: result of `are_splits` for the root.

    Returns:
        The label, or None without such a folder; `training`, `validation`, `testing` or None.
    """
    *folders, _ = relative_path.split("/")
    split = SPLITS[folders.pop(0)] if splits and folders else None
    return (folders[0] if folders else None), split


def parse_split(written: str) -> str | None:
    """Returns the split that a manifest names; None for empty text.

    Raises:
        InputError: any other word.
    """
    if not written:
        return None
    if written.lower() not in SPLITS:
        raise InputError(
            f"split is {reprlib.repr(written)}; write one of {', '.join(SPLITS)}, or nothing"
        )
    return SPLITS[written.lower()]


def is_hidden(relative_path: str) -> bool:
    """Tells if a component of a path below its root begins with a dot."""
    return "/." in f"/{relative_path}"


def normalize(label: str) -> str:
    """Returns a label for comparison: NFKC, casefold, one space for all between letters.

    Combining marks count as letters: in Devanagari or Thai they are vowels, without which different
    names would be equal.
    """
    text = unicodedata.normalize("NFKC", label).casefold()
    return " ".join("".join(c if _is_letter(c) else " " for c in text).split())


def _is_letter(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character).startswith("M")


def collisions(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Returns groups of different labels with one normalised form, sorted inside and out."""
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for label in labels:
        groups[normalize(label)].add(label)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)
