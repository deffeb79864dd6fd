from __future__ import annotations

import re
import struct
import time
import tracemalloc

import make_images
import numpy as np
import pytest

from beam_flowers.backbones.decoders import decode_apart
from beam_flowers.errors import ImageError
from beam_flowers.images.decode import decode
from beam_flowers.images.formats import sniff, sniff_other
from beam_flowers.images.recipe import Limits, PixelRecipe
from beam_flowers.records import NOT_AN_IMAGE

RECIPE = PixelRecipe(24, 32, crop=0.875)
KINDS = sorted(make_images.each_format())

OTHER_IMAGES = {
    "HEIF of another codec": b"\0\0\0\x18ftypvvic\0\0\0\0mif1miaf",
    "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n",
    "PSD": b"8BPS\0\x01",
    "SVG": b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "ICO": b"\0\0\x01\0\x01\0\x10\x10\0\0",
    "camera raw (CR2)": b"II*\0\x10\0\0\0CR\x02\0",
    "PAM": b"P7\nWIDTH 1\n",
}

NO_IMAGES = [
    make_images.TEXT,
    b"\0",
    bytes(100),
    b"\x89PNG",
    b"<!DOCTYPE html><html>404</html>",
    b"BMW, Beetle and other cars\n",
    b"P5 is where the samples start\n",
    b"%PDF-1.7\n",
    b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2",
    b"RIFF\x24\0\0\0WAVEfmt ",
    make_images.bad_files()["Thumbs.db"],
]


def rejected(data: bytes, limits: Limits | None = None) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data, RECIPE, limits or Limits())
    return caught.value


@pytest.mark.parametrize("data", NO_IMAGES)
def test_what_is_no_image_is_no_image(data: bytes) -> None:
    error = rejected(data)
    assert error.error_class == NOT_AN_IMAGE
    assert error.message.startswith("not an image: ")


@pytest.mark.parametrize("name", OTHER_IMAGES)
def test_other_image_formats_are_named_with_the_cure(name: str) -> None:
    error = rejected(OTHER_IMAGES[name])
    assert error.error_class == "UnsupportedFormat"
    assert error.message.startswith(f"{name} is not read: convert it to JPEG or PNG")


@pytest.mark.parametrize("kind", KINDS)
def test_our_formats_are_no_other_format(kind: str) -> None:
    data = make_images.each_format()[kind]
    assert sniff(data)
    assert sniff_other(data) is None


@pytest.mark.parametrize(
    "data",
    [
        b"<?xml" + b"<!---->" * 70 + b" " * 4_000_000,
        b"<svg".rjust(4_000_000),
        b"P6" + b" " * 4_000_000,
        b"II*\0\x08\0\0\0\xff\xff" + b"\x4a\1\4\0\xff\xff\0\0\x08\0\0\0" * 70_000,
    ],
    ids=["comments", "spaces", "PPM", "directories"],
)
def test_telling_the_format_costs_no_time(data: bytes) -> None:
    """Patterns over all of a file that looks like an SVG held the interpreter for minutes."""
    started = time.thread_time()
    rejected(data)
    assert time.thread_time() - started < 0.3


@pytest.mark.parametrize("offset", [2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("order", ["<", ">"])
def test_offsets_that_no_file_has_end_no_run(offset: int, order: str) -> None:
    start = {"<": b"II+\0\x08\0\0\0", ">": b"MM\0+\0\x08\0\0"}[order]
    directory = struct.pack(f"{order}QHHQQQ", 1, 330, 16, 2, offset, offset)
    for data in (
        start + struct.pack(f"{order}Q", offset),
        start + struct.pack(f"{order}Q", 16) + directory,
    ):
        assert rejected(data).error_class in ("Undecodable", "Truncated")
        with pytest.raises(ImageError):
            decode_apart(data, RECIPE)


def test_empty_file() -> None:
    assert rejected(b"").error_class == "EmptyFile"


@pytest.mark.parametrize("kept", [0.2, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_truncated_files(kind: str, kept: float) -> None:
    error = rejected(make_images.truncated(make_images.each_format(200, 150)[kind], kept))
    assert error.error_class == "Truncated"
    assert error.message.startswith(kind.partition("-")[0])


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("kept", [0.2, 0.7, 0.98])
def test_truncated_jpeg_is_rejected_when_it_is_decoded_scaled(
    options: dict[str, bool], kept: float
) -> None:
    data = make_images.jpeg(1600, 1200, **options)
    assert decode(data, RECIPE).width == 1600
    assert rejected(make_images.truncated(data, kept)).error_class == "Truncated"


def test_too_many_bytes() -> None:
    data = make_images.png()
    assert rejected(data, Limits(max_bytes=len(data) - 1)).error_class == "TooLarge"
    assert decode(data, RECIPE, Limits(max_bytes=len(data))).width == 64


@pytest.mark.parametrize("kind", KINDS)
def test_too_many_pixels_in_every_format(kind: str) -> None:
    data = make_images.each_format(40, 30)[kind]
    count = 4 if kind == "PPM-plain" else 1200
    assert rejected(data, Limits(max_pixels=count - 1)).error_class == "TooManyPixels"
    assert decode(data, RECIPE, Limits(max_pixels=count))


@pytest.mark.parametrize("side", [11_000, 60_000])
@pytest.mark.parametrize("animated", [False, True])
def test_bombs_cost_no_time(side: int, animated: bool) -> None:
    started = time.thread_time()
    error = rejected(make_images.bomb_png(side, side, animated))
    assert error.error_class == "TooManyPixels"
    assert f"{side} x {side}" in error.message
    assert time.thread_time() - started < 0.2


@pytest.mark.parametrize("make", [make_images.scan_bomb_jpeg, make_images.slow_ppm])
def test_slow_images_are_stopped(make: make_images.Maker) -> None:
    data = make()
    started = time.thread_time()
    error = rejected(data, Limits(seconds=0.2))
    assert error.error_class == "Timeout"
    assert "0.2 seconds" in error.message
    assert time.thread_time() - started < 1.5


@pytest.mark.parametrize("kind", KINDS)
def test_time_is_asked_in_every_format(kind: str) -> None:
    data = make_images.each_format()[kind]
    assert rejected(data, Limits(seconds=1e-9)).error_class == "Timeout"


def test_tags_that_share_their_bytes_do_not_multiply_them() -> None:
    data = make_images.tag_bomb_tiff(tags=2_000, size=1_000_000)
    tracemalloc.start()
    error = rejected(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.error_class == "Undecodable"
    assert "again and again" in error.message
    assert peak < 20 * len(data)


def test_png_named_jpg_is_decoded_by_content() -> None:
    assert decode(make_images.png(), RECIPE).format == "PNG"


@pytest.mark.parametrize("name", list(make_images.bad_files()))
def test_bad_files_are_rejected(name: str) -> None:
    rejected(make_images.bad_files()[name])


@pytest.mark.parametrize("kind", KINDS)
def test_mutations_give_a_image_or_a_reject(kind: str) -> None:
    """Anything but a `ImageError` fails the test."""
    data = make_images.each_format(40, 30)[kind]
    started = time.thread_time()
    for seed in range(40):
        _check_outcome(make_images.mutated(data, seed))
    assert time.thread_time() - started < 10


def _check_outcome(data: bytes) -> None:
    try:
        image = decode(data, RECIPE, Limits(max_pixels=10_000_000, seconds=1))
    except ImageError as error:
        text = f"{error.error_class} {error.message}"
        assert not re.search(r"0x[0-9a-f]{6}|/tmp|\n", text)
        assert len(text) < 300
    else:
        assert image.pixels.shape == (24, 32, 3)
        assert image.pixels.dtype == np.uint8
        assert image.width > 0
        assert image.height > 0
