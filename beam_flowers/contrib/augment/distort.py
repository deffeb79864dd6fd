"""Makes distorted copies of an image, which depend on its content and the copy's number only.

The steps of a copy in their order, by the names and rules of retrain.py and Keras (U is a uniform
draw, Keras is its ImageDataGenerator):

| distortion         | of         | the copy                                                     |
|--------------------|------------|--------------------------------------------------------------|
| random_crop,       | retrain.py | shows a part of the image, anywhere in it, with sides of     |
| random_scale       |            | 1 / ((1 + crop/100) * U(1, 1 + scale/100)) of the image's    |
| rotation_range     | Keras      | is turned by U(-r, r) degrees                                |
| width_shift_range  | Keras      | is moved by U(-w, w) of its width                            |
| height_shift_range | Keras      | is moved by U(-h, h) of its height                           |
| shear_range        | Keras      | is sheared by U(-s, s) degrees                               |
| zoom_range         | Keras      | has each side divided by its own U(1 - z, 1 + z)             |
| flip_left_right    | both       | is mirrored, one time in two                                 |
| random_brightness  | retrain.py | is multiplied by U(1 - b/100, 1 + b/100), then clipped, which |
|                    |            | retrain.py did not: networks here take whole numbers, 0..255 |

"The image" is what the network sees of it without distortions. All distortions except the
brightness are one affine map, so that pixels are sampled once, and areas that a shift or a turn
uncovers come from the file. Only beyond the file's edge its outermost pixels are repeated.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from beam_flowers.errors import InputError
from beam_flowers.images.decode import crop_box
from beam_flowers.images.recipe import PixelRecipe
from beam_flowers.records import DecodedImage

DISTORT_VERSION = "affine-1"
"""Name of the rules above. Change it if the pixels of any copy could change."""

_FINER = 2
"""Factor by which a copy is sampled finer than the network's pixels before it is reduced."""

# Largest value of each range. Beyond a quarter turn the ends of a shear lie in infinity, and a
# zoom of 1 would show a single point.
_MOST = {
    "random_crop": 100,
    "random_scale": 100,
    "random_brightness": 100,
    "rotation_range": 180,
    "width_shift_range": 1,
    "height_shift_range": 1,
    "shear_range": 80,
    "zoom_range": 0.9,
}

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Distortions:
    """Ranges of the distortions in the module's table; 0 leaves a distortion out.

    Attributes:
        flip_left_right: mirror every other copy.
        random_crop: percent, 0..100.
        random_scale: percent, 0..100.
        random_brightness: percent, 0..100.
        rotation_range: degrees, 0..180.
        width_shift_range: share of the width, 0..1.
        height_shift_range: share of the height, 0..1.
        shear_range: degrees, 0..80.
        zoom_range: share, 0..0.9.
    """

    flip_left_right: bool = False
    random_crop: float = 0
    random_scale: float = 0
    random_brightness: float = 0
    rotation_range: float = 0
    width_shift_range: float = 0
    height_shift_range: float = 0
    shear_range: float = 0
    zoom_range: float = 0

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise InputError(f"{name} must be from 0 to {most}, not {value!r}")
        if not any(getattr(self, field.name) for field in fields(self)):
            raise InputError(
                f"every copy would equal its image; set one of {', '.join(asdict(self))}"
            )

    def as_dict(self) -> dict[str, Any]:
        """Returns the ranges and the version of the rules as plain values, for a fingerprint."""
        numbers = {name: float(getattr(self, name)) for name in _MOST}
        return {"rules": DISTORT_VERSION, "flip_left_right": bool(self.flip_left_right), **numbers}

    @property
    def enlargement(self) -> float:
        """Largest factor by which a copy may enlarge its image."""
        window = (1 + self.random_crop / 100) * (1 + self.random_scale / 100)
        return window / (1 - self.zoom_range)


DEFAULT = Distortions(flip_left_right=True, random_crop=30, random_scale=30, random_brightness=30)
"""Mild: stronger ones cost accuracy on flowers, none gained much (docs/augmentation.md)."""


@dataclass(frozen=True)
class Augmentation:
    """Options of the distorted copies of every labelled image.

    Attributes:
        copies: number of copies K >= 1; they are numbered from 1.
        distortions: ranges of the distortions.
    """

    copies: int
    distortions: Distortions = DEFAULT

    def __post_init__(self) -> None:
        if not isinstance(self.copies, int) or self.copies < 1:
            raise InputError(
                f"an image is augmented with a whole number >= 1 of copies, not {self.copies!r}; "
                "leave the augmentation out to have none"
            )


def in_words(distortions: Mapping[str, Any]) -> str:
    """Formats the ranges of `Distortions.as_dict` that are not 0."""
    found = {name: value for name, value in distortions.items() if name != "rules" and value}
    return ", ".join(
        f"{name} {value:g}" if type(value) in (int, float) else name
        for name, value in found.items()
    )


def canvas_recipe(recipe: PixelRecipe, distortions: Distortions) -> PixelRecipe:
    """Returns the recipe by which `decode_whole` decodes an image for its copies."""
    fine = max(_FINER, math.ceil(distortions.enlargement))
    return replace(
        recipe,
        height=recipe.height * fine,
        width=recipe.width * fine,
        resize=recipe.resize and recipe.resize * fine,
    )


def distort(
    canvas: DecodedImage, recipe: PixelRecipe, distortions: Distortions, sha256: str, k: int
) -> npt.NDArray[np.uint8]:
    """Makes one distorted copy of an image.

    Args:
        canvas: the image, decoded with `canvas_recipe`.
        recipe: pixel recipe of the backbone.
        distortions: the ranges.
        sha256: digest of the file's content: equal contents have equal copies.
        k: number of the copy.

    Returns:
        uint8 [height, width, 3], RGB.
    """
    draw = Draw(sha256, k)
    view = _to_canvas(canvas, recipe) @ _view(distortions, (recipe.height, recipe.width), draw)
    copy = _sample(canvas.pixels, view, (recipe.height, recipe.width))
    factor = 1 + draw.between("brightness", distortions.random_brightness / 100)
    levels = np.rint(np.arange(256) * factor).clip(0, 255).astype(np.uint8)
    return levels[copy]


@dataclass(frozen=True)
class Draw:
    """Random numbers of one copy by name; each is independent of the others.

    They are hashes, since the streams of a generator may change with NumPy's version.

    Attributes:
        sha256: digest of the file's content.
        k: number of the copy.
    """

    sha256: str
    k: int

    def share(self, name: str) -> float:
        """Draws a number in [0, 1)."""
        digest = hashlib.sha256(f"{self.sha256}:{self.k}:{name}".encode()).digest()
        # 53 bits: a double holds them exactly.
        return (int.from_bytes(digest[:8], "big") >> 11) / 2**53

    def between(self, name: str, most: float) -> float:
        """Draws a number in [-most, most)."""
        return (2 * self.share(name) - 1) * most


def _view(distortions: Distortions, size: tuple[int, int], draw: Draw) -> Matrix:
    """Maps (row, column, 1) of a copy to that of the image, both counted from the centre.

    Matrices and their order are those of Keras 3's `apply_affine_transform`. That swaps columns
    and rows at its end, so that its two shifts are misnamed; here they are not. retrain.py's crop
    comes before them, its flip after.
    """
    d = distortions
    window = (1 + d.random_crop / 100) * (1 + draw.share("scale") * d.random_scale / 100)
    room = 1 - 1 / window
    part = _matrix(
        1 / window,
        1 / window,
        down=(draw.share("crop-y") - 0.5) * room * size[0],
        right=(draw.share("crop-x") - 0.5) * room * size[1],
    )
    theta = math.radians(draw.between("rotation", d.rotation_range))
    rotation = _matrix(math.cos(theta), math.cos(theta), math.sin(theta), -math.sin(theta))
    shift = _matrix(
        1,
        1,
        down=draw.between("shift-y", d.height_shift_range) * size[0],
        right=draw.between("shift-x", d.width_shift_range) * size[1],
    )
    angle = math.radians(draw.between("shear", d.shear_range))
    shear = _matrix(math.cos(angle), 1, columns_by_row=-math.sin(angle))
    zoom = _matrix(*(1 + draw.between(name, d.zoom_range) for name in ("zoom-y", "zoom-x")))
    flips = d.flip_left_right and draw.share("flip") < 0.5
    flip = _matrix(1, -1 if flips else 1)
    return part @ rotation @ shift @ shear @ zoom @ flip


def _matrix(
    rows: float,
    columns: float,
    rows_by_column: float = 0,
    columns_by_row: float = 0,
    down: float = 0,
    right: float = 0,
) -> Matrix:
    """Makes a matrix, float64 [3, 3], that acts on (row, column, 1)."""
    return np.array([[rows, rows_by_column, down], [columns_by_row, columns, right], [0, 0, 1]])


def _to_canvas(canvas: DecodedImage, recipe: PixelRecipe) -> Matrix:
    """Maps the network's pixels, counted from the centre, to those of the canvas."""
    out = (recipe.width, recipe.height)
    left, top, right, bottom = crop_box((canvas.width, canvas.height), out, recipe)
    down, across = canvas.pixels.shape[0] / canvas.height, canvas.pixels.shape[1] / canvas.width
    return _matrix(
        down * (bottom - top) / recipe.height,
        across * (right - left) / recipe.width,
        down=down * (top + bottom) / 2,
        right=across * (left + right) / 2,
    )


def _sample(
    pixels: npt.NDArray[np.uint8], view: Matrix, size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Samples uint8 [height, width, 3] from `pixels`; `view` maps its (row, column) to theirs."""
    height, width = size
    fine = view @ _matrix(1 / _FINER, 1 / _FINER, down=-height / 2, right=-width / 2)
    bottom, right = height * _FINER, width * _FINER
    corners = fine @ np.array([[0, 0, bottom, bottom], [0, right, 0, right], [1, 1, 1, 1]])
    start = np.floor(corners.min(axis=1)).astype(int) - 2
    end = np.ceil(corners.max(axis=1)).astype(int) + 2
    # Cut out the visible part of the canvas; beyond its edges repeat its outermost pixels.
    for axis in (0, 1):
        places = np.arange(start[axis], end[axis]).clip(0, pixels.shape[axis] - 1)
        pixels = pixels.take(places, axis)
    (a, b, c), (d, e, f), _ = fine.tolist()
    # Pillow counts columns first.
    data = (e, d, f - start[1], b, a, c - start[0])
    copy = Image.fromarray(pixels).transform(
        (right, bottom), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR
    )
    return np.asarray(copy.reduce(_FINER))
