"""The forms of BMP that are read. Where OpenCV 5 reads one rightly it gives the same pixels."""

from __future__ import annotations

import bmps
import numpy as np
import pytest

from beam_flowers.errors import ImageError
from beam_flowers.images.decode import decode
from beam_flowers.images.recipe import Limits, PixelRecipe

RECIPE = PixelRecipe(bmps.HEIGHT, bmps.WIDTH)
VARIANTS = bmps.variants()
ODD = bmps.bmp(bmps.packed(bmps.ramp(), (0xF00, 0xF0, 0xF), 16), 16, compression=3,
               masks=(0xF00, 0xF0, 0xF))  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_every_valid_form_is_read(name: str) -> None:
    data, expected, tolerance = VARIANTS[name]
    image = decode(data, RECIPE)
    assert (image.width, image.height, image.format) == (bmps.WIDTH, bmps.HEIGHT, "BMP")
    np.testing.assert_allclose(image.pixels.astype(int), expected, atol=tolerance)


def test_alpha_of_any_bits_is_composited_over_white() -> None:
    masks = (0x3FF, 0xFFC00, 0x3FF00000, 0xC0000000)
    clear = np.zeros((bmps.HEIGHT, bmps.WIDTH * 4), np.uint8)
    data = bmps.bmp(bmps.rows(clear), 32, header=124, compression=3, masks=masks)
    assert (decode(data, RECIPE).pixels == 255).all()
    half = clear.reshape(-1, 4).copy()
    half[:, 3] = 0x80  # Two of three.
    data = bmps.bmp(bmps.rows(half.reshape(clear.shape)), 32, compression=6, masks=masks)
    assert (decode(data, RECIPE).pixels == 85).all()


def test_four_bit_rle_is_refused_by_name() -> None:
    """Pillow decodes it, but runs that begin at an odd place to garbage."""
    pixels = b"\3\x12\5\x34\0\0" * 2 + b"\0\1"
    data = bmps.bmp(pixels, 4, compression=2, colours=16, width=8, height=2)
    with pytest.raises(ImageError, match="UnsupportedFormat: BMP with 4-bit RLE is not read"):
        decode(data, RECIPE)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (ODD[:-1], "Truncated: BMP ends before"),
        (ODD[:60], "Truncated: BMP ends before"),
        (
            bmps.bmp(bytes(1000), 16, compression=3, masks=(0xF0F, 0xF0, 0)),
            "Undecodable: .*bitfields layout",
        ),
        (bmps.bmp(bytes(2000), 32, compression=5), r"Undecodable: .*compression \(5\)"),
        (bmps.bmp(bytes(2000), 3), r"Undecodable: .*depth \(3\)"),
        (bmps.bmp(ODD[-99:], 16, compression=6, masks=(1, 2, 4, 8), width=-9), "Undecodable"),
        (bmps.bmp(ODD[-99:], 16, compression=6, masks=(1, 2, 4, 8), height=0), "Undecodable"),
    ],
)
def test_what_is_no_valid_form_is_refused(data: bytes, error: str) -> None:
    with pytest.raises(ImageError, match=error):
        decode(data, RECIPE)


def test_the_size_of_an_unusual_form_is_checked() -> None:
    count = bmps.WIDTH * bmps.HEIGHT
    assert decode(ODD, RECIPE, Limits(max_pixels=count))
    with pytest.raises(ImageError, match="TooManyPixels"):
        decode(ODD, RECIPE, Limits(max_pixels=count - 1))
    for side in (2**31 - 1, 60_000):
        big = bmps.bmp(bytes(99), 16, compression=6, masks=(1, 2, 4, 8), width=side, height=-side)
        with pytest.raises(ImageError, match="TooManyPixels"):
            decode(big, RECIPE)
