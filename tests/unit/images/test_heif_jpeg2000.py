"""AVIF, HEIC and JPEG 2000: what is told by content, turned, levelled and refused."""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Iterator

import make_images
import numpy as np
import pytest
from PIL import Image

from beam_flowers.errors import ImageError
from beam_flowers.images import heif
from beam_flowers.images.decode import decode
from beam_flowers.images.formats import sniff, sniff_other
from beam_flowers.images.jpeg2000 import codestream
from beam_flowers.images.recipe import PixelRecipe
from beam_flowers.images.rules import is_outdated

RECIPE = PixelRecipe(48, 64)


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + name + body


def branded(*brands: bytes) -> bytes:
    return box(b"ftyp", brands[0] + bytes(4) + b"".join(brands[1:]))


def item(codec: bytes, version: int = 2) -> bytes:
    number = bytes(2 if version == 2 else 4)
    return box(b"infe", bytes([version, 0, 0, 0]) + number + bytes(2) + codec + b"\0")


@pytest.mark.parametrize(
    ("data", "format_"),
    [
        (branded(b"avif", b"mif1"), "AVIF"),
        (branded(b"avis", b"msf1"), "AVIF"),
        (branded(b"mif1", b"miaf", b"avif"), "AVIF"),
        (branded(b"heic", b"mif1"), "HEIC"),
        (branded(b"heix"), "HEIC"),
        (branded(b"mif1", b"MiHB", b"heic"), "HEIC"),
        (branded(b"msf1", b"iso8", b"hevc"), "HEIC"),
        (branded(b"mif1", b"heif") + item(b"hvc1"), "HEIC"),
        (branded(b"mif1") + item(b"av01", version=3), "AVIF"),
        (branded(b"mif1") + item(b"jpeg"), None),
        (branded(b"vvic", b"mif1"), None),
        (branded(b"crx ", b"CR3 "), None),
        (branded(b"isom", b"mp41"), None),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
        (b"\xff\x4f\xff\x51\0\x2f", "JPEG2000"),
    ],
)
def test_formats_are_told_by_content(data: bytes, format_: str | None) -> None:
    assert sniff(data) == format_
    if format_:
        assert sniff_other(data) is None


def test_other_codecs_and_videos_are_told_apart() -> None:
    assert sniff_other(branded(b"mif1") + item(b"jpeg")) == "HEIF of another codec"
    assert sniff_other(branded(b"crx ")) == "camera raw (CR3)"
    assert sniff_other(branded(b"isom", b"mp41")) is None


@pytest.mark.parametrize("format_", ["AVIF", "HEIC"])
@pytest.mark.parametrize(
    "exif", [b"", make_images.exif(1), make_images.exif(6)], ids=["no", "1", "6"]
)
def test_only_the_container_turns(format_: str, exif: bytes) -> None:
    """Programs that turn pixels often leave the old number in XMP."""
    xmp = b'<x tiff:Orientation="1"/>'
    image = make_images.quadrants(64, 48)
    if format_ == "AVIF":
        data = make_images.saved(image, "AVIF", quality=95, xmp=xmp, exif=exif)
    else:
        data = make_images.heic(image, exif=exif, xmp=xmp, quality=95)
    data = data.replace(xmp, xmp.replace(b"1", b"6"))
    assert (b"irot" in data) == (exif == make_images.exif(6))
    picture = decode(data, RECIPE)
    assert (picture.width, picture.height) == ((48, 64) if b"irot" in data else (64, 48))
    turned = np.asarray(image.transpose(Image.Transpose.ROTATE_270)) if b"irot" in data else image
    expected = np.asarray(Image.fromarray(np.asarray(turned)).resize((64, 48)), int)
    assert np.abs(picture.pixels.astype(int) - expected).mean() < 6


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_deep_heic_is_scaled(mode: str, bits: int) -> None:
    image = make_images.scene(64, 48).convert(mode)
    picture = decode(make_images.heic(image, bits=bits, quality=100), RECIPE)
    expected = np.asarray(image.convert("RGB"), int)
    assert np.abs(picture.pixels.astype(int) - expected).mean() < 6  # Half of the chroma is gone.


@pytest.mark.parametrize("format_", ["AVIF", "HEIC", "JPEG2000"])
def test_alpha_is_laid_over_white(format_: str) -> None:
    image = Image.new("RGBA", (64, 48), (200, 0, 0, 128))
    if format_ == "HEIC":
        data = make_images.heic(image, quality=100)
    else:
        data = make_images.saved(image, format_)
    pixels = decode(data, RECIPE).pixels.astype(int)
    assert np.abs(pixels - (227, 127, 127)).max() < 6


def test_the_primary_image_of_a_heic_is_taken() -> None:
    import pillow_heif

    file = pillow_heif.from_pillow(Image.new("RGB", (64, 48), "red"))
    file.add_from_pillow(Image.new("RGB", (32, 32), "blue"))
    written = io.BytesIO()
    file.save(written, primary_index=1, quality=95)
    picture = decode(written.getvalue(), RECIPE)
    assert (picture.width, picture.height) == (32, 32)
    assert np.abs(picture.pixels.astype(int) - (0, 0, 255)).max() < 6


def with_bits(data: bytes, bits: int) -> bytes:
    """An 8-bit grey JPEG 2000 that claims fewer; its 128 is the middle of those then."""
    size, header = data.index(b"\xff\x51"), data.index(b"ihdr")
    changed = bytearray(data)
    changed[size + 40] = bits - 1
    changed[header + 14] = bits - 1
    return bytes(changed)


@pytest.mark.parametrize("bits", [1, 2, 4, 7])
def test_white_of_few_bits_is_white(bits: int) -> None:
    levels = np.arange(2**bits, dtype=np.uint8)
    stored = Image.fromarray((128 - 2 ** (bits - 1) + levels).repeat(3)[None].repeat(4, axis=0))
    data = with_bits(make_images.saved(stored, "JPEG2000", num_resolutions=1), bits)
    pixels = decode(data, PixelRecipe(4, stored.width)).pixels[0, ::3, 0]
    assert np.array_equal(pixels, np.rint(levels * (255 / (2**bits - 1))))


def with_palette(data: bytes, colours: bytes) -> bytes:
    """A grey JPEG 2000 whose numbers are those of RGB colours."""
    start = data.index(b"jp2h") - 4
    (size,) = struct.unpack_from(">I", data, start)
    palette = struct.pack(">HB", len(colours) // 3, 3) + b"\7\7\7" + colours
    boxes = data[start + 8 : start + size].replace(b"\0\0\0\x11", b"\0\0\0\x10")
    boxes += box(b"pclr", palette)
    boxes += box(b"cmap", b"".join(struct.pack(">HBB", 0, 1, n) for n in range(3)))
    return data[:start] + box(b"jp2h", boxes) + data[start + size :]


def test_a_palette_is_looked_up_and_refused_where_pillow_mixes_it_up() -> None:
    data = make_images.saved(Image.new("L", (16, 16), 1), "JPEG2000", num_resolutions=1)
    found = decode(with_palette(data, b"\0\0\0\xc8\x64\x32"), PixelRecipe(8, 8))
    assert found.pixels[0, 0].tolist() == [200, 100, 50]
    with pytest.raises(ImageError, match="UnsupportedFormat: JPEG2000 with a palette of 4 bits"):
        decode(with_bits(with_palette(data, b"\0\0\0\xc8\x64\x32"), 4), PixelRecipe(8, 8))


def test_a_header_that_differs_from_the_codestream_is_refused() -> None:
    data = make_images.saved(make_images.scene(64, 48), "JPEG2000")
    at = data.index(b"ihdr") + 4
    grown = data[:at] + struct.pack(">II", 96, 128) + data[at + 8 :]
    with pytest.raises(ImageError, match=r"Undecodable: .* 128 x 96 by .* 64 x 48 by"):
        decode(grown, RECIPE)


def test_the_codestream_tells_what_memory_it_wants() -> None:
    image = make_images.scene(64, 48)
    found = codestream(make_images.saved(image, "JPEG2000", tile_size=(16, 16)))
    assert found
    assert (found.width, found.height, found.tile, found.tiles) == (64, 48, 256, 12)
    assert found.bits == (8, 8, 8)
    small = codestream(make_images.saved(image, "JPEG2000", codeblock_size=(4, 4), no_jp2=True))
    assert small
    assert small.blocks == pytest.approx(1 / 16)
    for data in make_images.each_format().values():
        for end in range(0, 200, 7):
            codestream(data[:end])  # Raises nothing.


@pytest.fixture
def without_heic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the extra `heic` were not installed."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", None)
        heif._heif.cache_clear()
        yield
    heif._heif.cache_clear()


def test_a_heic_without_the_extra_names_it(without_heic: None) -> None:
    with pytest.raises(ImageError) as raised:
        decode(make_images.each_format()["HEIC"], RECIPE)
    assert raised.value.error_class == "UnsupportedFormat"
    message = "HEIC is not read here: pip install 'beam-flowers[heic]'"
    assert raised.value.message == message
    assert not is_outdated(frozenset(), "decode", "UnsupportedFormat", message)


def test_rejects_for_lack_of_an_extra_are_outdated_once_it_is_there() -> None:
    message = "HEIC is not read here: pip install 'beam-flowers[heic]'"
    assert is_outdated(frozenset(), "decode", "UnsupportedFormat", message)
    other = "BMP with 4-bit RLE is not read: convert it to JPEG or PNG"
    assert not is_outdated(frozenset(), "decode", "UnsupportedFormat", other)


@pytest.mark.parametrize("format_", ["AVIF", "JPEG2000"])
def test_a_pillow_without_the_format_says_so(format_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heif.features, "check", lambda feature: False)
    with pytest.raises(ImageError, match=f"{format_} is not read here: this Pillow was built"):
        decode(make_images.each_format()[format_], RECIPE)
