"""Groups copies and variants of an image, and makes folds that keep groups whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from beam_flowers.errors import TrainingError
from beam_flowers.head.softmax import Indices

_MARK = "_nohash_"  # of retrain.py: variants of one image differ behind it only


def image_groups(uris: Sequence[str], sha256: Sequence[str]) -> list[str]:
    """Returns a key for each row, equal for rows that must stay in one split.

    These are copies (the same content) and variants: files whose paths are equal up to
    `_nohash_`. The key is the smallest content of the group, so that the key of copies alone does
    not depend on the names of their files.
    """
    parents: dict[str, str] = {}

    def key(content: str) -> str:
        while content in parents:
            content = parents[content]
        return content

    variants: dict[str, str] = {}
    for uri, content in zip(uris, sha256, strict=True):
        stem, mark, _ = uri.partition(_MARK)
        if mark:
            one, other = sorted((key(variants.setdefault(stem, content)), key(content)))
            if one != other:
                parents[other] = one
    return [key(content) for content in sha256]


def fold_codes(groups: Sequence[str], class_ids: Indices, folds: int, *, seed: int = 0) -> Indices:
    """Deals groups into stratified folds, which do not depend on the order of the rows.

    The groups of each class are dealt in the order of a hash; the next class goes on at the fold
    where the last one ended. A group of two classes counts as of the smaller class id.

    Returns:
        intp [N], the fold of each row, 0 to `folds` - 1.

    Raises:
        TrainingError: if there are fewer than 2 folds, or fewer groups than folds.
    """
    class_of: dict[str, int] = {}
    for group, class_id in zip(groups, class_ids.tolist(), strict=True):
        class_of[group] = min(class_id, class_of.get(group, class_id))
    if not 2 <= folds <= len(class_of):
        raise TrainingError(
            f"cannot make {folds!r} folds of {len(class_of)} different images; name a number"
            " from 2 to theirs"
        )

    def order(group: str) -> tuple[int, bytes, str]:
        return class_of[group], hashlib.sha256(f"fold {seed}:{group}".encode()).digest(), group

    fold_of = {group: rank % folds for rank, group in enumerate(sorted(class_of, key=order))}
    return np.array([fold_of[group] for group in groups], dtype=np.intp)
