"""Splits images into training, validation and testing."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_flowers.errors import TrainingError
from beam_flowers.head.settings import is_whole_number

SPLITS = ("training", "validation", "testing")
"""Names of the splits; a split's code is its index here."""

RULES = ("hash", "retrain")

Codes = npt.NDArray[np.int8]

_TRAINING, _VALIDATION, _TESTING = range(3)

# MAX_NUM_IMAGES_PER_CLASS of retrain.py (tensorflow/hub, examples/image_retraining).
_RETRAIN_MODULUS = 2**27 - 1


@dataclass(frozen=True)
class SplitOptions:
    """Options of the split.

    Attributes:
        rule: `hash` (by content, each class in each split) or `retrain` (bit-exact with
            retrain.py).
        validation_percentage: integer percent; the rest trains.
        testing_percentage: integer percent.
        retrain_image_dir: `--image_dir` as it was given to retrain.py, whose split hashed it along
            with each path; None where it was the absolute folder. For the rule `retrain`.
        min_images: labels with fewer different images are left out.
    """

    rule: str = "hash"
    validation_percentage: int = 10
    testing_percentage: int = 10
    retrain_image_dir: str | None = None
    min_images: int = 1

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise TrainingError(f"unknown split rule {self.rule!r}; choose one of {RULES}")
        _check_percentages(self.validation_percentage, self.testing_percentage)
        if self.retrain_image_dir is not None and self.rule != "retrain":
            raise TrainingError(
                f"the image dir of retrain.py is for the split rule 'retrain', not {self.rule!r}"
            )
        if not is_whole_number(self.min_images, 1):
            raise TrainingError(f"min images must be a whole number >= 1, got {self.min_images!r}")

    def as_dict(self) -> dict[str, Any]:
        """Returns the options as JSON, as the model bundle keeps them, without later defaults."""
        later = {"retrain_image_dir": None, "min_images": 1}
        return {k: v for k, v in asdict(self).items() if k not in later or later[k] != v}


def split_codes(
    options: SplitOptions,
    uris: Sequence[str],
    sha256: Sequence[str],
    class_ids: npt.NDArray[np.intp],
    *,
    seed: int = 0,
    given: Sequence[str | None] | None = None,
) -> Codes:
    """Splits by the chosen rule; `retrain` takes the uris alone, as retrain.py did."""
    percentages = options.validation_percentage, options.testing_percentage
    if options.rule == "retrain":
        if (folder := options.retrain_image_dir) is not None:
            # retrain.py only ever read IMAGE_DIR/LABEL/FILE.
            uris = [posixpath.join(folder, *uri.split("/")[-2:]) for uri in uris]
        return retrain_split(uris, *percentages)
    return hash_split(sha256, class_ids, *percentages, seed=seed, given=given)


def hash_split(
    sha256: Sequence[str],
    class_ids: npt.NDArray[np.intp],
    validation_percentage: int,
    testing_percentage: int,
    *,
    seed: int = 0,
    given: Sequence[str | None] | None = None,
) -> Codes:
    """Splits by a hash of the content: copies stay together, moved files keep their split.

    A class with at least as many distinct contents as there are splits of more than 0 percent
    has one in each of them: if the hash leaves a split empty, the nearest content is moved
    there. A class with fewer contents has at least one in training. The result depends neither
    on the order of the rows nor on the names of the files.

    Args:
        sha256: content digest of each row.
        class_ids: int [N], the class of each row.
        validation_percentage: integer percent.
        testing_percentage: integer percent.
        seed: of the hash.
        given: name of a split that is fixed for the row, or None. It holds for every row with
            the same content.

    Returns:
        int8 [N], indices into `SPLITS`.

    Raises:
        TrainingError: for impossible percentages, an unknown split, or a content with two fixed
            splits.
    """
    _check_percentages(validation_percentage, testing_percentage)
    bounds = (validation_percentage, validation_percentage + testing_percentage)
    fixed = _given_codes(sha256, given) if given is not None else {}
    position = {content: _position(content, seed) for content in set(sha256)}
    codes = {content: _code_at(where, *bounds) for content, where in position.items()} | fixed
    wanted = [_TRAINING]
    wanted += [_VALIDATION] * (validation_percentage > 0) + [_TESTING] * (testing_percentage > 0)
    _fill_empty_splits(codes, sha256, class_ids, wanted, _Order(position, bounds, frozenset(fixed)))
    return np.array([codes[content] for content in sha256], dtype=np.int8)


def retrain_split(
    paths: Sequence[str], validation_percentage: int, testing_percentage: int
) -> Codes:
    """Splits as retrain.py does, by a hash of the whole path string as given.

    Returns:
        int8 [N], indices into `SPLITS`. A class may have an empty split.
    """
    _check_percentages(validation_percentage, testing_percentage)
    bounds = (validation_percentage, validation_percentage + testing_percentage)
    return np.array([_code_at(retrain_percentage(path), *bounds) for path in paths], dtype=np.int8)


def retrain_percentage(path: str) -> float:
    """Maps a path to 0..100, bit-exact with `create_image_lists` of tensorflow/hub's retrain.py.

    The hash leaves out everything from `_nohash_` on, so that variants of one image stay together.
    """
    name = re.sub(r"_nohash_.*$", "", path)
    hashed = int(hashlib.sha1(name.encode()).hexdigest(), 16)
    return (hashed % (_RETRAIN_MODULUS + 1)) * (100.0 / _RETRAIN_MODULUS)


def _check_percentages(validation: int, testing: int) -> None:
    for name, value in (("validation", validation), ("testing", testing)):
        if not is_whole_number(value, 0):
            raise TrainingError(f"{name} percentage must be a whole number >= 0, got {value!r}")
    if validation + testing >= 100:
        raise TrainingError(
            f"validation and testing take {validation} + {testing} percent and leave nothing"
            " to train on; their sum must be below 100"
        )


def _position(content: str, seed: int) -> float:
    """Maps a content to 0..100."""
    digest = hashlib.sha256(f"{seed}:{content}".encode()).digest()
    return int.from_bytes(digest[:8], "big") * (100.0 / 2**64)


def _code_at(position: float, validation_end: int, testing_end: int) -> int:
    if position < validation_end:
        return _VALIDATION
    return _TESTING if position < testing_end else _TRAINING


def _given_codes(sha256: Sequence[str], given: Sequence[str | None]) -> dict[str, int]:
    names: dict[str, set[str]] = defaultdict(set)
    for content, name in zip(sha256, given, strict=True):
        if name is not None:
            names[content].add(name)
    unknown = sorted(set().union(*names.values()) - set(SPLITS))
    if unknown:
        raise TrainingError(f"unknown split {unknown[0]!r}; choose one of {SPLITS}")
    torn = sorted(content for content, found in names.items() if len(found) > 1)
    if torn:
        raise TrainingError(
            f"{len(torn)} images are given two splits, the first has the sha256 {torn[0]} and"
            f" is in {sorted(names[torn[0]])}; leave their copies in one split only"
        )
    return {content: SPLITS.index(found.pop()) for content, found in names.items()}


@dataclass(frozen=True)
class _Order:
    """Orders the contents that may move into a split that the hash left empty."""

    position: Mapping[str, float]
    bounds: tuple[int, int]
    fixed: frozenset[str]

    def nearest(self, contents: set[str], code: int) -> list[str]:
        """Returns the contents that may move, those nearest to the split's interval first."""
        start, end = ((self.bounds[1], 100), (0, self.bounds[0]), self.bounds)[code]

        def distance(content: str) -> tuple[float, str]:
            where = self.position[content]
            return max(start - where, where - end, 0.0), content

        return sorted(contents - self.fixed, key=distance)


def _fill_empty_splits(
    codes: dict[str, int],
    sha256: Sequence[str],
    class_ids: npt.NDArray[np.intp],
    wanted: Sequence[int],
    order: _Order,
) -> None:
    """Moves contents, by changing `codes`, until each class has the splits it is promised."""
    members: dict[int, set[str]] = defaultdict(set)
    first: dict[str, int] = {}
    several: dict[str, set[int]] = {}  # Sets for all contents would take half of the memory.
    for content, class_id in zip(sha256, class_ids.tolist(), strict=True):
        members[class_id].add(content)
        if first.setdefault(content, class_id) != class_id:
            several.setdefault(content, {first[content]}).add(class_id)

    def classes_of(content: str) -> set[int]:
        return several.get(content) or {first[content]}

    counts = {c: Counter(codes[content] for content in members[c]) for c in members}
    promised = {c: wanted if len(members[c]) >= len(wanted) else wanted[:1] for c in members}

    def can_leave(content: str) -> bool:
        # A content of two classes must not leave a promised split of the other one empty.
        code = codes[content]
        return all(counts[c][code] > 1 or code not in promised[c] for c in classes_of(content))

    for class_id, code in product(sorted(members), wanted):
        if code not in promised[class_id] or counts[class_id][code]:
            continue
        moved = next(filter(can_leave, order.nearest(members[class_id], code)), None)
        if moved is not None:
            for c in classes_of(moved):
                counts[c][codes[moved]] -= 1
                counts[c][code] += 1
            codes[moved] = code
