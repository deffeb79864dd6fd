from __future__ import annotations

import hashlib
import io
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import make_images
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from beam_flowers.errors import ImageError, InputError
from beam_flowers.images.decode import decode
from beam_flowers.images.formats import FORMATS, sniff
from beam_flowers.images.recipe import DECODE_VERSION, Limits, PixelRecipe

SQUASH = PixelRecipe(32, 48)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
CORNERS = (make_images.RED, make_images.GREEN, make_images.BLUE, WHITE)
RAMP = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)


def flat(data: bytes) -> tuple[int, ...]:
    """The colour of an image of one colour."""
    pixels = decode(data, PixelRecipe(8, 8)).pixels
    assert np.ptp(pixels.reshape(-1, 3), axis=0).max() <= 1
    return tuple(int(v) for v in pixels[4, 4])


def corners(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """[4, 3]: a point in each quadrant, as `CORNERS` has them."""
    h, w = pixels.shape[:2]
    return np.array([pixels[y, x] for y in (h // 4, -h // 4) for x in (w // 4, -w // 4)], int)


def assert_close(actual: object, expected: object, tolerance: int) -> None:
    np.testing.assert_allclose(np.asarray(actual, int), np.asarray(expected, int), atol=tolerance)


@pytest.mark.parametrize("kind", make_images.each_format())
def test_every_format_gives_rgb_of_the_asked_size(kind: str) -> None:
    data = make_images.each_format()[kind]
    picture = decode(data, SQUASH)
    assert picture.pixels.shape == (32, 48, 3)
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.flags.c_contiguous
    assert picture.pixels.flags.writeable
    assert picture.format == sniff(data) == kind.partition("-")[0]


def test_each_format_has_images() -> None:
    assert {kind.partition("-")[0] for kind in make_images.each_format()} == set(FORMATS)


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF", "PPM", "JPEG2000"])
def test_lossless_formats_keep_every_pixel(format_: str) -> None:
    image = make_images.scene(20, 10)
    picture = decode(make_images.saved(image, format_), PixelRecipe(10, 20))
    np.testing.assert_array_equal(picture.pixels, np.asarray(image))
    assert (picture.width, picture.height) == (20, 10)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIC"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("crop", [None, 1.0])
def test_orientation_is_applied(format_: str, orientation: int, crop: float | None) -> None:
    upright = make_images.quadrants(160, 120)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose, as EXIF inverts it.
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    picture = decode(
        make_images.oriented(stored, orientation, format_), PixelRecipe(24, 40, crop=crop)
    )
    assert (picture.width, picture.height) == (160, 120)
    assert picture.pixels.shape == (24, 40, 3)
    tolerance = {"WEBP": 40, "AVIF": 12, "HEIC": 12}.get(format_, 3)
    assert_close(corners(picture.pixels), CORNERS, tolerance)


def test_broken_exif_does_not_reject_a_image() -> None:
    data = bytearray(make_images.oriented(make_images.scene(), 6))
    start = data.index(b"Exif\0\0") + 6
    for length in range(1, 26):
        data[start : start + length] = bytes(range(200, 200 + length))
        assert decode(bytes(data), SQUASH).width == 64


def test_exif_resolution_without_value_does_not_reject_a_image() -> None:
    exif = Image.Exif()
    exif[0x011A], exif[0x0128] = 72.0, 2
    data = make_images.jpeg(exif=exif)
    one_value, none = (struct.pack(">HHI", 0x011A, 5, count) for count in (1, 0))
    assert one_value in data
    assert decode(data.replace(one_value, none), SQUASH).width == 64


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_sixteen_bit_grey_is_scaled_not_clipped(format_: str) -> None:
    pixels = decode(make_images.grey16(RAMP, format_), PixelRecipe(48, 64)).pixels
    expected = np.rint(RAMP / 257).astype(np.uint8)
    np.testing.assert_array_equal(pixels, np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0.0, 0.5], [1.0, -1.0]], [[0, 128], [255, 0]]),
        ([[0.0, 128.4], [255.0, 300.0]], [[0, 128], [255, 255]]),
        ([[np.nan, 0.2], [1.0, 0.0]], [[0, 51], [255, 0]]),
    ],
)
def test_float_grey(values: list[list[float]], expected: list[list[int]]) -> None:
    data = make_images.float_tiff(np.array(values, np.float32))
    np.testing.assert_array_equal(decode(data, PixelRecipe(2, 2)).pixels[..., 0], expected)


def test_integer_grey_is_clipped_to_sixteen_bits() -> None:
    values = np.array([[-5, 0], [25700, 10**9]], np.int32)
    data = make_images.saved(Image.fromarray(values), "TIFF")
    pixels = decode(data, PixelRecipe(2, 2)).pixels
    np.testing.assert_array_equal(pixels[..., 2], [[0, 0], [100, 255]])


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, WHITE),
        ("1", 0, BLACK),
        ("L", 77, (77, 77, 77)),
        ("LA", (10, 0), WHITE),
        ("LA", (0, 128), (127, 127, 127)),
        ("RGBA", (200, 0, 0, 255), (200, 0, 0)),
        ("RGBA", (200, 0, 0, 0), WHITE),
        ("RGBA", (255, 0, 0, 128), (255, 127, 127)),
    ],
)
def test_modes_as_png(mode: str, colour: int | tuple[int, ...], expected: tuple[int, ...]) -> None:
    data = make_images.saved(Image.new(mode, (20, 10), colour), "PNG")
    assert_close(flat(data), expected, 1)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("CMYK", (0, 0, 0, 255), BLACK),
        ("LAB", (255, 128, 128), WHITE),
        ("RGBA", (9, 9, 9, 0), WHITE),
    ],
)
def test_modes_as_tiff(mode: str, colour: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert_close(flat(make_images.saved(Image.new(mode, (20, 10), colour), "TIFF")), expected, 2)


@pytest.mark.parametrize("frame", [0xC9, 0xCA])
def test_jpegs_with_arithmetic_coding_are_read_at_any_length(frame: int) -> None:
    """libjpeg cannot wait for more of their data, and Pillow hands it in pieces."""
    options = {"progressive": True} if frame == 0xCA else {}
    data = make_images.jpeg(200, 150, **options)
    start = data.index(b"\xff\xda")
    header = data[: start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")]
    header = header.replace(bytes([0xFF, frame - 9]), bytes([0xFF, frame]))
    # Any bytes are data of this coding.
    noise = np.random.default_rng(0).integers(0, 255, 9000, np.uint8).tobytes()
    data = header + noise + b"\xff\xd9"
    image = decode(data, PixelRecipe(150, 200))
    with Image.open(io.BytesIO(data)) as whole:
        assert np.array_equal(image.pixels, np.asarray(whole.convert("RGB")))
    assert image.pixels.std() > 10


def test_cmyk_jpeg_has_the_colours_it_was_made_of() -> None:
    data = make_images.cmyk_jpeg(make_images.quadrants())
    assert_close(corners(decode(data, SQUASH).pixels), CORNERS, 6)


def test_palette_with_transparency_is_composited_over_white() -> None:
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, 200, 0, 0])
    assert flat(make_images.saved(image, "PNG")) == (200, 0, 0)
    assert flat(make_images.saved(image, "PNG", transparency=1)) == WHITE
    assert flat(make_images.saved(image, "GIF", transparency=1)) == WHITE
    assert_close(
        flat(make_images.saved(image, "PNG", transparency=b"\xff\x80")), (227, 127, 127), 1
    )


@pytest.mark.parametrize(("mode", "colour"), [("L", 90), ("RGB", (1, 2, 3)), ("1", 0)])
def test_transparent_colour_is_white(mode: str, colour: int | tuple[int, ...]) -> None:
    data = make_images.saved(Image.new(mode, (9, 9), colour), "PNG", transparency=colour)
    assert flat(data) == WHITE


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG", "AVIF"])
def test_animation_gives_its_first_frame(format_: str) -> None:
    frames = [Image.new("RGB", (20, 20), c) for c in (make_images.RED, make_images.BLUE)]
    assert_close(flat(make_images.animated(frames, format_)), make_images.RED, 2)


def test_pages_and_second_images_are_passed_over() -> None:
    red, blue = (Image.new("RGB", (20, 20), c) for c in (make_images.RED, make_images.BLUE))
    pages = make_images.saved(red, "TIFF", save_all=True, append_images=[blue])
    assert flat(pages) == make_images.RED
    phone = make_images.mpo(red, blue)
    assert_close(flat(phone), make_images.RED, 2)
    assert decode(phone, SQUASH).format == "JPEG"


def test_colour_profile_is_ignored() -> None:
    plain, tagged = make_images.png(), make_images.png(icc_profile=b"not even a profile")
    np.testing.assert_array_equal(decode(plain, SQUASH).pixels, decode(tagged, SQUASH).pixels)


def test_squash_shows_the_whole_image_and_crop_its_centre() -> None:
    image = Image.new("RGB", (200, 100), make_images.RED)
    image.paste(make_images.BLUE, (50, 0, 150, 100))
    data = make_images.saved(image, "PNG")
    squashed = decode(data, PixelRecipe(40, 40)).pixels
    assert squashed[20, 5].tolist() == squashed[20, -5].tolist() == list(make_images.RED)
    cropped = decode(data, PixelRecipe(40, 40, crop=0.875)).pixels
    assert (cropped == make_images.BLUE).all()


def test_crop_is_the_fraction_of_the_shorter_side() -> None:
    image = make_images.scene(160, 120)
    expected = image.resize((105, 105), Image.Resampling.BICUBIC, (27.5, 7.5, 132.5, 112.5))
    pixels = decode(make_images.saved(image, "PNG"), PixelRecipe(105, 105, crop=0.875)).pixels
    np.testing.assert_array_equal(pixels, np.asarray(expected))


def resized_then_cut(image: Image.Image, resize: int, side: int, filter_: str) -> Image.Image:
    """The published rules: torchvision's `Resize` and Hugging Face's `center_crop`."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    scaled = int(resize * long / short)
    size = (resize, scaled) if width <= height else (scaled, resize)
    image = image.resize(size, Image.Resampling[filter_.upper()])
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


@pytest.mark.parametrize("size", [(160, 120), (121, 300), (400, 57), (333, 101), (31, 30)])
@pytest.mark.parametrize("filter_", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 8])
def test_an_image_is_scaled_then_cut_by_the_published_rules(
    size: tuple[int, int], filter_: Any, orientation: int
) -> None:
    recipe = PixelRecipe(56, 56, resample=filter_, resize=65)
    stored = make_images.oriented(make_images.scene(*size), orientation, "PNG")
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(stored)))
    expected = np.asarray(resized_then_cut(upright, 65, 56, filter_))
    found = decode(stored, recipe).pixels.astype(int)
    # To the bit if the image is not turned: Pillow scales one direction after the other.
    assert np.abs(found - expected).max() <= (0 if orientation == 1 else 2)


def test_a_narrow_image_is_scaled_in_its_middle_alone() -> None:
    image = make_images.scene(900, 100).resize((900, 10))
    recipe = PixelRecipe(56, 56, resample="bilinear", resize=64)
    expected = np.asarray(resized_then_cut(image, 64, 56, "bilinear"), int)
    found = decode(make_images.saved(image, "PNG"), recipe).pixels
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("size", [(400, 300), (401, 307), (333, 1001), (1001, 333)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_scaled_decoding_before_a_later_cut_stays_close(
    size: tuple[int, int], orientation: int
) -> None:
    data = make_images.oriented(make_images.detailed(*size), orientation)
    full = make_images.oriented(Image.open(io.BytesIO(data)), orientation, "TIFF")
    recipe = PixelRecipe(24, 24, resize=28)
    difference = np.abs(decode(data, recipe).pixels.astype(int) - decode(full, recipe).pixels)
    assert difference.mean() < 2
    assert difference.max() < 12


@pytest.mark.parametrize("size", [(400, 300), (401, 307), (333, 1001), (1001, 333)])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("crop", [None, 0.875, 0.3])
@pytest.mark.parametrize("target", [(24, 32), (12, 48)])
def test_scaled_jpeg_decoding_stays_close_to_a_full_one(
    size: tuple[int, int], orientation: int, crop: float | None, target: tuple[int, int]
) -> None:
    data = make_images.oriented(make_images.detailed(*size), orientation)
    full = make_images.oriented(Image.open(io.BytesIO(data)), orientation, "TIFF")
    recipe = PixelRecipe(*target, crop=crop)
    scaled, exact = decode(data, recipe), decode(full, recipe)
    assert scaled[1:3] == exact[1:3]
    difference = np.abs(scaled.pixels.astype(int) - exact.pixels)
    # Decoding at half of twice the target's size gives means up to 11 here.
    assert difference.mean() < 2
    assert difference.max() < 12


def asked_sizes(data: bytes, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Sizes at which `decode` asks for scaled decoding; nothing is decoded."""
    asked: list[Any] = []
    monkeypatch.setattr(JpegImageFile, "draft", lambda im, mode, size: asked.append(size))
    monkeypatch.setattr(JpegImageFile, "load", lambda im: 1 / 0)
    with pytest.raises(ImageError, match="ZeroDivisionError"):
        decode(data, SQUASH)
    return asked


def framed(frame: int, before: bytes = b"") -> bytes:
    """A JPEG of 480 x 320 whose header names that type of frame, with bytes before it."""
    data = make_images.jpeg(480, 320)
    place = data.index(b"\xff\xc0")
    return data[:place] + before + bytes([0xFF, 0xC0 + frame]) + data[place + 2 :]


@pytest.mark.parametrize("before", [b"", b"\xff\xff", b"\0\1", b"\xff\0", b"\xff\xfe\0\4\xff\xc0"])
@pytest.mark.parametrize("frame", sorted({*range(16)} - {4, 8, 12}))
def test_scaled_decoding_is_asked_of_five_types_of_frame(
    frame: int, before: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asked_sizes(framed(frame, before), monkeypatch)
    assert asked == ([(120, 80)] if frame in (0, 1, 2, 9, 10) else [])


def test_bytes_of_a_comment_are_no_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    comment = b"\xff\xfe\0\6\xff\xc5\0\2"
    assert asked_sizes(framed(0, comment), monkeypatch) == [(120, 80)]


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 1), (17, 5)])
@pytest.mark.parametrize("crop", [None, 0.875, 1.0, 0.01])
@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_any_shape_of_image(size: tuple[int, int], crop: float | None, format_: str) -> None:
    data = make_images.saved(Image.new("RGB", size, (80, 80, 80)), format_)
    picture = decode(data, PixelRecipe(24, 33, crop=crop))
    assert (picture.width, picture.height) == size
    assert (picture.pixels == 80).all()


def test_threads_change_no_pixel() -> None:
    files = [*make_images.each_format(200, 150).values()] * 3
    alone = [decode(data, SQUASH).pixels for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode(data, SQUASH).pixels, files))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_golden_pixels() -> None:
    """Should this fail, the rules have changed: `DECODE_VERSION` must change with them."""
    steps = np.arange(600) * 255 // 599
    colours = np.stack([steps, steps[::-1], np.full(600, 128)], axis=-1)
    image = Image.fromarray(colours[None].astype(np.uint8))
    data = make_images.saved(image.resize((600, 400)), "JPEG", quality=95, subsampling=0)
    row = decode(data, PixelRecipe(4, 4, crop=0.875)).pixels[2].astype(int)
    assert DECODE_VERSION == "pillow-draft-1"
    assert_close(row, [[72, 182, 128], [109, 146, 128], [146, 109, 128], [182, 72, 128]], 2)


def test_golden_pixels_of_a_tall_image() -> None:
    """As above, to the bit: Pillow 13, other than 12, fails here."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 180, 3), np.uint8)
    pixels = decode(make_images.saved(Image.fromarray(noise), "PNG"), SQUASH).pixels
    expected = "70fa28d3b1ec004fe541b1ce3f83ad79ed459eadf60a0e621546cc3f5ea78d12"
    assert hashlib.sha256(pixels).hexdigest() == expected


def test_recipe_as_dict_tells_recipes_apart() -> None:
    recipes = [
        PixelRecipe(224, 224),
        PixelRecipe(224, 224, 0.875),
        PixelRecipe(224, 224, 1.0),
        PixelRecipe(224, 224, resample="bilinear"),
        PixelRecipe(224, 299),
        PixelRecipe(299, 224),
        PixelRecipe(224, 224, resize=256),
        PixelRecipe(224, 224, resize=248),
    ]
    assert len({str(recipe.as_dict()) for recipe in recipes}) == len(recipes)
    assert recipes[1].as_dict() == {
        "decode": DECODE_VERSION,
        "height": 224,
        "width": 224,
        "fit": "center-crop",
        "crop": 0.875,
        "resample": "bicubic",
    }


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"height": 0, "width": 5}, "0 x 5"),
        ({"height": 5, "width": 5, "crop": 0.0}, "crop 0.0"),
        ({"height": 5, "width": 5, "crop": 1.1}, "crop 1.1"),
        ({"height": 5, "width": 5, "resample": "nearest"}, "'nearest'"),
        ({"height": 5, "width": 5, "resize": 4}, "resize 4 .* 5 x 5"),
        ({"height": 5, "width": 5, "crop": 0.5, "resize": 9}, "exclude each other"),
    ],
)
def test_impossible_recipes_are_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        PixelRecipe(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"max_bytes": 0}, {"max_pixels": 0}, {"max_pixels": 10**9}, {"seconds": 0.0}]
)
def test_impossible_limits_are_named(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=str(next(iter(options.values())))):
        Limits(**options)  # type: ignore[arg-type]


def test_no_warning_reaches_the_screen() -> None:
    """In another process, as pytest itself catches warnings."""
    code = """if True:
        import make_images
        from beam_flowers.images.decode import decode
        from beam_flowers.images.recipe import PixelRecipe
        from beam_flowers.errors import ImageError
        big = b"P5 10000 9500 255\\n" + bytes(95_000_000)
        for data in (big, *(make_images.bit_flipped(make_images.saved(make_images.scene(), "TIFF",
                compression="tiff_lzw"), seed, 99) for seed in range(60))):
            try:
                decode(data, PixelRecipe(8, 8))
            except ImageError:
                pass
    """
    ran = subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    # Other lines come from libtiff, which writes its complaints itself, past Python.
    assert "Warning" not in ran.stderr
    assert "PIL" not in ran.stderr
