"""Numbers, checks and splits the rows of a store for training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from beam_flowers.errors import TrainingError
from beam_flowers.head.groups import image_groups
from beam_flowers.head.settings import is_whole_number
from beam_flowers.head.softmax import CHUNK_ROWS, Floats, Indices, Sample
from beam_flowers.head.split import SPLITS, Codes, SplitOptions, split_codes
from beam_flowers.images.labels import collisions
from beam_flowers.store.vectors import Vectors

Counts = npt.NDArray[np.intp]

FEW_IMAGES = 20
"""Images of a class below which it gets a warning, as in retrain.py."""


_NAMED = 5
"""Labels that a message names."""


@dataclass(frozen=True)
class Examples:
    """Rows of a store, of one backbone.

    Attributes:
        uris: N addresses.
        sha256: N content digests.
        labels: N labels, verbatim; rows with None are left out.
        splits: N names of a split that is fixed for the row, or None.
        vectors: float32 [N, D]; [N + M, D] where M rows of distorted copies follow.
        separator: text between several labels of an image; None if each has one label.
        copies: intp [K, N], the row in `vectors` of each image's K distorted copies, -1 for a
            missing one; None without copies. Copies are used for training only.
    """

    uris: Sequence[str]
    sha256: Sequence[str]
    labels: Sequence[str | None]
    splits: Sequence[str | None]
    vectors: Vectors
    separator: str | None = None
    copies: Indices | None = None


@dataclass(frozen=True)
class Prepared:
    """Labelled rows, ready to train on.

    Attributes:
        labels: the C labels in class order, sorted by code point.
        rows: intp [n], the labelled rows, sorted by content: the result must not depend on the
            places of the images or the order of the store.
        class_ids: intp [n], of these rows.
        codes: int8 [n], split of each of these rows, as index into `SPLITS`.
        groups: n keys, see `image_groups`.
        warnings: lines for the user.
        membership: see `Sample.membership`; None if each image has one label.
    """

    labels: tuple[str, ...]
    rows: Indices
    class_ids: Indices
    codes: Codes
    groups: Sequence[str]
    warnings: tuple[str, ...]
    membership: Floats | None = None

    def sample(self, vectors: Vectors, *splits: str) -> Sample:
        """Returns the rows of one or several splits."""
        return self.where(vectors, np.isin(self.codes, [SPLITS.index(name) for name in splits]))

    def where(self, vectors: Vectors, chosen: npt.NDArray[np.bool_]) -> Sample:
        """Returns the rows where `chosen`, bool [n], is True."""
        return Sample(vectors, self.class_ids[chosen], self.rows[chosen], self.membership)

    def training(self, examples: Examples, chosen: npt.NDArray[np.bool_]) -> Sample:
        """Returns the rows where `chosen`, bool [n], is True, and the distorted copies of them.

        Copies are left out if a row of the same group is not chosen: retrain.py's split may put
        files of one content into two splits.
        """
        sample = self.where(examples.vectors, chosen)
        if examples.copies is None:
            return sample
        held = {g for g, inside in zip(self.groups, chosen.tolist(), strict=True) if not inside}
        places = np.flatnonzero(chosen).tolist()
        alone = np.array([self.groups[place] not in held for place in places], dtype=bool)
        copies = np.where(alone, examples.copies[:, self.rows[chosen]], -1)
        rows = np.vstack([self.rows[chosen], copies])
        class_ids = np.broadcast_to(sample.class_ids, rows.shape)
        return replace(sample, class_ids=class_ids[rows >= 0], rows=rows[rows >= 0])


def prepare(
    examples: Examples, split: SplitOptions, seed: int = 0, *, required: Collection[str] = ()
) -> Prepared:
    """Checks the examples, numbers their classes and splits them.

    Args:
        examples: the rows.
        split: the split rule.
        seed: of the split.
        required: names of splits that must have an image of every label; in the others a missing
            label is a warning.

    Raises:
        TrainingError: if they cannot be trained on; names the reason and the numbers.
    """
    if not is_whole_number(seed, 0):
        raise TrainingError(f"seed must be a whole number >= 0, got {seed!r}")
    examples, left_out = _without_small(examples, split.min_images)
    rows = [row for row, label in enumerate(examples.labels) if label is not None]
    rows.sort(key=lambda row: (examples.sha256[row], examples.labels[row]))
    texts = [str(examples.labels[row]) for row in rows]
    distinct = sorted(set(texts))
    labels, membership = _labels(distinct, examples.separator)
    _check_labels(labels, len(rows), len(examples.labels))
    _check_finite(examples)
    number = {text: class_id for class_id, text in enumerate(distinct)}
    class_ids = np.array([number[text] for text in texts], dtype=np.intp)
    uris, sha256 = ([values[row] for row in rows] for values in (examples.uris, examples.sha256))
    groups = image_groups(uris, sha256)
    given = [examples.splits[row] for row in rows]
    codes = split_codes(split, uris, groups, class_ids, seed=seed, given=given)

    def count(ids: Indices) -> Counts:
        # Images of each label: [C].
        counts = np.bincount(ids, minlength=len(distinct))
        return counts if membership is None else counts @ membership.astype(np.intp)

    sides = [count(class_ids[codes == code]) for code in range(len(SPLITS))]
    different = set(zip(groups, class_ids.tolist(), strict=True))
    _check_single(labels, count(np.array([class_id for _, class_id in different], dtype=np.intp)))
    _check_training_side(labels, sides)
    missing = _missing_sides(labels, split, sides, required)
    warnings = (*left_out, *_few_images(labels, count(class_ids)), *missing)
    order = np.array(rows, dtype=np.intp)
    return Prepared(labels, order, class_ids, codes, groups, warnings, membership)


def _without_small(examples: Examples, least: int) -> tuple[Examples, list[str]]:
    """Returns the examples without labels of fewer than `least` contents, and a line about them.

    A row whose labels are all left out has None.
    """
    if least == 1:
        return examples, []
    separator = examples.separator
    parts = [
        [] if text is None else [text] if separator is None else text.split(separator)
        for text in examples.labels
    ]
    contents = {
        (part.strip() if separator else part, sha256)
        for row, sha256 in zip(parts, examples.sha256, strict=True)
        for part in row
    }
    images = Counter(label for label, _ in contents if label)
    small = sorted(label for label, count in images.items() if count < least)
    if not small:
        return examples, []
    kept = [
        [part for part in row if (part.strip() if separator else part) not in small]
        for row in parts
    ]
    labels = [(separator or "").join(row) if row else None for row in kept]
    gone = sum(
        before is not None and now is None
        for before, now in zip(examples.labels, labels, strict=True)
    )
    line = (
        f"{len(small)} of {len(images)} labels have fewer than {least} images and are left out,"
        f" such as {small[0]!r} with {images[small[0]]}, and {gone} images with them"
    )
    return replace(examples, labels=labels), [line]


def _labels(texts: Sequence[str], separator: str | None) -> tuple[tuple[str, ...], Floats | None]:
    """Returns the C sorted labels, and which of them each of K texts holds: float32 [K, C]."""
    if separator is None:
        return tuple(texts), None
    if not separator.strip():
        raise TrainingError(f"labels cannot be separated by {separator!r}; name a visible sign")
    parts = [{part.strip() for part in text.split(separator)} - {""} for text in texts]
    labels = tuple(sorted(set().union(*parts)))
    rows = [[label in part for label in labels] for part in parts]
    return labels, np.array(rows, dtype=np.float32).reshape(len(texts), len(labels))


def _check_labels(labels: Sequence[str], labelled: int, total: int) -> None:
    if len(labels) < 2:
        only = f"the only label is {labels[0]!r}" if labels else "there is none"
        raise TrainingError(
            f"training takes two labels or more, and {only} ({total:,} images, "
            f"{total - labelled:,} of them without a label); put the images of each class into a "
            "folder of their own"
        )
    if same := collisions(labels):
        raise TrainingError(
            f"labels that differ in writing only: {'; '.join(' and '.join(s) for s in same)}; "
            "rename them to one or make them differ in letters or digits"
        )


def _check_finite(examples: Examples) -> None:
    bad: list[int] = []
    for start in range(0, len(examples.vectors), CHUNK_ROWS):
        finite = np.isfinite(examples.vectors[start : start + CHUNK_ROWS]).all(axis=1)
        bad += (start + np.flatnonzero(~finite)).tolist()
    if bad:
        raise TrainingError(
            f"{len(bad)} vectors hold numbers that are not finite, the first is of"
            f" {[*examples.uris, 'a distorted copy'][min(bad[0], len(examples.uris))]!r}; embed"
            " these images again"
        )


def _check_single(labels: Sequence[str], different: Counts) -> None:
    single = [label for label, count in zip(labels, different, strict=True) if count == 1]
    if single:
        named = ", ".join(map(repr, single[:_NAMED])) + ", ..." * (len(single) > _NAMED)
        many = len(single) > 1
        raise TrainingError(
            f"{len(single)} label{'s have' if many else ' has'} one image{' each' * many}: {named}."
            f" Add images, delete the folder{'s' * many}, or pass --min-images 2 to skip "
            f"{'them' if many else 'it'}"
        )


def _check_training_side(labels: Sequence[str], sides: Sequence[Counts]) -> None:
    images = np.sum(sides, axis=0)
    for label, count, total in zip(labels, sides[0], images, strict=True):
        if not count:
            raise TrainingError(
                f"the split leaves the label {label!r} none of its {total} images to train"
                " on; add images, lower the percentages or change the fixed splits"
            )


def _few_images(labels: Sequence[str], images: Counts) -> list[str]:
    few = np.flatnonzero(images < FEW_IMAGES)
    if not len(few):
        return []
    return [
        f"{len(few)} of {len(labels)} labels have fewer than {FEW_IMAGES} images, such as"
        f" {labels[few[0]]!r} with {images[few[0]]}; add some, or leave such labels out by"
        " --min-images"
    ]


def _missing_sides(
    labels: Sequence[str],
    split: SplitOptions,
    sides: Sequence[Counts],
    required: Collection[str],
) -> list[str]:
    """Returns a warning for each split that lacks a label; raises one for a required split."""
    percentages = {1: split.validation_percentage, 2: split.testing_percentage}
    warnings = []
    for code, percentage in percentages.items():
        ids = np.flatnonzero(sides[code] == 0)
        if not percentage or not len(ids):
            continue
        name, label, images = SPLITS[code], labels[ids[0]], np.sum(sides, axis=0)[ids[0]]
        lacking = f"no {name} image for {len(ids)} of {len(labels)} labels, such as {label!r}"
        if name in required:
            raise TrainingError(
                f"{percentage} percent {name} leaves {lacking}, which has {images} images in"
                f" all ({', '.join(f'{s.sum()} {n}' for n, s in zip(SPLITS, sides, strict=True))}"
                " over all labels); add images, or change the percentage or the split rule"
            )
        warnings.append(f"{lacking}; its accuracy says nothing about them")
    return warnings
