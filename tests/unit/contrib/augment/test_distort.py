"""Distorted copies: what each distortion does, where its numbers come from, what is refused."""

import hashlib

import make_images
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from beam_flowers.contrib.augment.distort import (
    DEFAULT,
    Augmentation,
    Distortions,
    Draw,
    canvas_recipe,
    distort,
)
from beam_flowers.errors import InputError
from beam_flowers.images.decode import decode, decode_whole
from beam_flowers.images.recipe import PixelRecipe
from beam_flowers.records import DecodedImage

RECIPE = PixelRecipe(32, 32, 0.875, "bilinear")
SHA = hashlib.sha256(b"a picture").hexdigest()
NOTHING = Distortions(rotation_range=1e-12)


def copy(data, distortions, k=1, recipe=RECIPE, sha=SHA):
    canvas = decode_whole(data, canvas_recipe(recipe, distortions))
    return distort(canvas, recipe, distortions, sha, k)


def difference(a, b):
    return np.abs(a.astype(float) - b).mean()


def grey(level, size=(64, 48)):
    return make_images.saved(Image.new("RGB", size, (level,) * 3), "PNG")


def ramp(size=256):
    """Grey levels that equal the column."""
    return make_images.saved(
        Image.fromarray(np.tile(np.arange(size, dtype=np.uint8), (64, 1))), "PNG"
    )


@pytest.mark.parametrize("crop", [None, 0.875, 1.0])
@pytest.mark.parametrize("size", [(64, 48), (48, 200), (1200, 900), (20, 15)])
def test_next_to_no_distortion_gives_the_pixels_that_the_network_sees(crop, size):
    data = make_images.saved(make_images.scene(*size), "JPEG", quality=95)
    recipe = PixelRecipe(32, 24, crop, "bilinear")
    assert difference(copy(data, NOTHING, recipe=recipe), decode(data, recipe).pixels) < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_copies_are_upright(orientation):
    data = make_images.oriented(make_images.quadrants(90, 60), orientation)
    assert difference(copy(data, NOTHING), decode(data, RECIPE).pixels) < 2


@pytest.mark.parametrize("kind", make_images.each_format())
def test_every_format(kind):
    data = make_images.each_format()[kind]
    assert difference(copy(data, NOTHING), decode(data, RECIPE).pixels) < 4


def test_a_flip_mirrors_some_copies_and_leaves_the_others():
    data = make_images.saved(make_images.quadrants(), "PNG")
    plain = copy(data, NOTHING)
    copies = [copy(data, Distortions(flip_left_right=True), k) for k in range(1, 21)]
    mirrored = [difference(c, plain[:, ::-1]) < 1 for c in copies]
    assert [difference(c, plain) < 1 for c in copies] == [not m for m in mirrored]
    assert 4 < sum(mirrored) < 16


@pytest.mark.parametrize(
    ("distortions", "least", "most"),
    [
        # A whole image of 32 columns shows 31 of 32 parts of the ramp between their centres.
        (Distortions(random_crop=100), 0.5, 0.5),
        (Distortions(random_crop=25), 0.8, 0.8),
        (Distortions(random_scale=100), 0.5, 1),
        (Distortions(random_crop=25, random_scale=25), 0.64, 0.8),
    ],
    ids=str,
)
def test_crop_and_scale_show_a_part_of_the_stated_size_anywhere(distortions, least, most):
    recipe = PixelRecipe(32, 32, None, "bilinear")
    copies = [copy(ramp(), distortions, k, recipe).astype(float) for k in range(1, 41)]
    shares = [(c[:, -1].mean() - c[:, 0].mean()) / 255 * 32 / 31 for c in copies]
    assert least - 0.02 < min(shares) < least + 0.25 * (most > least) + 0.02
    assert most - 0.25 * (most > least) - 0.02 < max(shares) < most + 0.02
    starts = [c[:, 0].mean() / 255 for c in copies]
    room = 1 - least
    assert min(starts) < 0.25 * room + 0.02
    assert 0.6 * room < max(starts) < room + 0.03


def test_brightness_multiplies_and_clips():
    levels = {copy(grey(200), Distortions(random_brightness=50), k).max() for k in range(1, 41)}
    assert min(levels) < 120
    assert 255 in levels
    for k in range(1, 6):
        factor = 1 + Draw(SHA, k).between("brightness", 0.5)
        assert (copy(grey(100), Distortions(random_brightness=50), k) == round(100 * factor)).all()


KERAS = {
    "rotation_range": ["rotation"],
    "width_shift_range": ["shift-x"],
    "height_shift_range": ["shift-y"],
    "shear_range": ["shear"],
    "zoom_range": ["zoom-y", "zoom-x"],
}


def keras(pixels, theta=0.0, tx=0.0, ty=0.0, shear=0.0, zx=1.0, zy=1.0):
    """Keras 3's legacy `apply_affine_transform` of a square, fill mode `nearest`, order 1."""
    theta, shear = np.deg2rad(theta), np.deg2rad(shear)
    matrix = np.array(
        [[np.cos(theta), -np.sin(theta), 0], [np.sin(theta), np.cos(theta), 0], [0, 0, 1]]
    )
    matrix = matrix @ np.array([[1, 0, tx], [0, 1, ty], [0, 0, 1]])
    matrix = matrix @ np.array([[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]])
    matrix = matrix @ np.diag([zx, zy, 1])
    matrix[:2] = matrix[1::-1]
    matrix[:, :2] = matrix[:, 1::-1]
    half = np.array(pixels.shape[:2]) / 2 - 0.5
    offset = matrix[:2, 2] + half - matrix[:2, :2] @ half
    channels = [
        ndimage.affine_transform(pixels[..., c], matrix[:2, :2], offset, order=1, mode="nearest")
        for c in range(3)
    ]
    return np.stack(channels, axis=-1)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("rotation_range", 40),
        ("width_shift_range", 0.3),
        ("height_shift_range", 0.3),
        ("shear_range", 30),
        ("zoom_range", 0.4),
    ],
)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_other_distortions_are_keras_own(name, most, k):
    recipe = PixelRecipe(64, 64, None, "bilinear")
    canvas = DecodedImage(np.asarray(make_images.scene(64, 64)), 64, 64, "PNG")
    drawn = [Draw(SHA, k).between(n, most) for n in KERAS[name]]
    expected = {
        "rotation_range": lambda: keras(canvas.pixels, theta=drawn[0]),
        "width_shift_range": lambda: keras(canvas.pixels, tx=drawn[0] * 64),
        "height_shift_range": lambda: keras(canvas.pixels, ty=drawn[0] * 64),
        "shear_range": lambda: keras(canvas.pixels, shear=drawn[0]),
        "zoom_range": lambda: keras(canvas.pixels, zy=1 + drawn[0], zx=1 + drawn[1]),
    }[name]()
    found = distort(canvas, recipe, Distortions(**{name: most}), SHA, k)
    assert difference(found, expected) < 3
    assert difference(found, canvas.pixels) > 5


def test_what_a_shift_uncovers_is_what_the_file_has_there():
    recipe = PixelRecipe(32, 32, 0.5, "bilinear")
    shift = Distortions(width_shift_range=0.5)
    for k in range(1, 6):
        found = copy(ramp(), shift, k, recipe).astype(float)
        # The middle of the ramp and its neighbourhood: still a ramp of 32 columns, moved.
        assert np.diff(found[0, :, 0]).std() < 0.6
        assert np.ptp(found[0, :, 0]) == pytest.approx(31, abs=1.5)


@pytest.mark.parametrize("size", [(1, 1), (3000, 3), (3, 3000), (40, 30)])
def test_the_strongest_distortions_of_the_strangest_images(size):
    strongest = Distortions(True, 100, 100, 100, 180, 1, 1, 80, 0.9)
    data = make_images.saved(make_images.scene(*size), "PNG")
    found = [copy(data, strongest, k) for k in range(1, 9)]
    assert {f.shape for f in found} == {(32, 32, 3)}
    assert {f.dtype for f in found} == {np.dtype(np.uint8)}


def test_a_copy_depends_on_content_and_number_alone():
    data = make_images.jpeg()
    one, same = copy(data, DEFAULT, 1), copy(data, DEFAULT, 1)
    assert np.array_equal(one, same)
    others = [copy(data, DEFAULT, 2), copy(data, DEFAULT, 1, sha="0" * 64)]
    assert all(difference(one, other) > 1 for other in others)


def test_the_numbers_are_the_same_everywhere():
    assert Draw("0" * 64, 1).share("flip") == 0.8660788520399462
    shares = [Draw(SHA, k).share("scale") for k in range(500)]
    assert 0 <= min(shares) < 0.02 < 0.98 < max(shares) < 1
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)


def test_one_distortion_does_not_change_the_numbers_of_another():
    data = make_images.jpeg()
    for k in range(1, 5):
        plain = copy(data, Distortions(random_crop=30), k)
        flipped = copy(data, Distortions(flip_left_right=True, random_crop=30), k)
        assert min(difference(flipped, plain), difference(flipped, plain[:, ::-1])) < 1


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({}, "every copy would equal"),
        ({"random_crop": -1}, "random_crop must be from 0 to 100, not -1"),
        ({"random_scale": 101}, "random_scale must be"),
        ({"random_brightness": float("nan")}, "random_brightness must be"),
        ({"rotation_range": 181}, "rotation_range must be from 0 to 180"),
        ({"width_shift_range": 40}, "width_shift_range must be from 0 to 1"),
        ({"shear_range": 90}, "shear_range must be from 0 to 80"),
        ({"zoom_range": 1}, "zoom_range must be from 0 to 0.9"),
    ],
    ids=str,
)
def test_ranges_out_of_bounds(ranges, message):
    with pytest.raises(InputError, match=message):
        Distortions(**ranges)


@pytest.mark.parametrize("copies", [0, -1, 1.5, "2"])
def test_copies_are_a_whole_number(copies):
    with pytest.raises(InputError, match="whole number >= 1"):
        Augmentation(copies)


def test_equal_ranges_are_described_equally():
    assert Distortions(random_crop=10).as_dict() == Distortions(random_crop=10.0).as_dict()
