"""Which chunks of a PNG may be damaged."""

from __future__ import annotations

import struct
import zlib

import make_images
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from beam_flowers.errors import ImageError
from beam_flowers.images.decode import decode
from beam_flowers.images.recipe import PixelRecipe

RECIPE = PixelRecipe(48, 64)


def with_texts() -> bytes:
    info = PngInfo()
    info.add_text("Author", "somebody")
    info.add_itxt("Title", "a long title " * 9, zip=True)
    info.add(b"tEXt", b"Comment\0behind the pixels", after_idat=True)
    return make_images.png(pnginfo=info)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def places(data: bytes, name: bytes) -> list[int]:
    """Offsets of the chunks' names."""
    found, at = [], 8
    while at < len(data):
        length, chunk = struct.unpack_from(">I4s", data, at)
        found += [at + 4] if chunk == name else []
        at += 12 + length
    return found


@pytest.mark.parametrize("name", [b"tEXt", b"iTXt"])
def test_a_wrong_bit_in_a_text_changes_nothing(name: bytes) -> None:
    data = with_texts()
    expected = decode(data, RECIPE).pixels
    for place in places(data, name):
        for at in range(place + 4, place + 20):
            np.testing.assert_array_equal(decode(flipped(data, at), RECIPE).pixels, expected)


@pytest.mark.parametrize("part", ["body", "checksum"])
@pytest.mark.parametrize("name", [b"IHDR", b"PLTE", b"IDAT"])
def test_a_wrong_bit_in_header_palette_or_pixels_is_refused(name: bytes, part: str) -> None:
    data = make_images.palette_png(make_images.scene())
    place = places(data, name)[0]
    length = struct.unpack_from(">I", data, place - 4)[0]
    at = place + 4 + (length - 1 if part == "body" else length)
    with pytest.raises(ImageError, match=f"Undecodable: PNG .*checksum in {name.decode()}"):
        decode(flipped(data, at), RECIPE)


def test_pixels_of_a_third_that_zlib_takes_are_refused() -> None:
    """A whole zlib stream with other pixels, which nothing but the checksum tells."""
    data = make_images.png()
    place = places(data, b"IDAT")[0]
    length = struct.unpack_from(">I", data, place - 4)[0]
    raw = bytearray(zlib.decompress(data[place + 4 : place + 4 + length]))
    raw[len(raw) // 3 :] = bytes(len(raw) - len(raw) // 3)
    body = zlib.compress(bytes(raw))
    other = struct.pack(">I", len(body)) + b"IDAT" + body + data[place + 4 + length :]
    with pytest.raises(ImageError, match="checksum in IDAT"):
        decode(data[: place - 4] + other, RECIPE)


@pytest.mark.parametrize("name", [b"acTL", b"fcTL", b"fdAT"])
def test_a_damaged_animation_gives_its_still_image(name: bytes) -> None:
    frames = [Image.new("RGB", (20, 20), c) for c in (make_images.RED, make_images.BLUE)]
    data = make_images.animated(frames, "PNG")
    pixels = decode(flipped(data, places(data, name)[-1] + 4), RECIPE).pixels
    np.testing.assert_array_equal(pixels, decode(data, RECIPE).pixels)


def test_a_wrong_checksum_of_the_end_changes_nothing() -> None:
    data = make_images.png()
    pixels = decode(flipped(data, len(data) - 1), RECIPE).pixels
    np.testing.assert_array_equal(pixels, decode(data, RECIPE).pixels)


def test_a_file_that_ends_within_its_last_checksum_is_taken_as_before() -> None:
    data = make_images.png()
    end = places(data, b"IEND")[0] - 4
    expected = decode(data, RECIPE).pixels
    for cut in range(1, 5):
        np.testing.assert_array_equal(decode(data[: end - cut], RECIPE).pixels, expected)
