"""Makes sound, odd and bad image files for the tests; every function returns the file's bytes."""

from __future__ import annotations

import functools
import io
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Maker = Callable[[], bytes]

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def saved(image: Image.Image, format_: str, **options: Any) -> bytes:
    """`image` as a file of `format_` (Pillow's name)."""
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def scene(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """A smooth colour image with detail, RGB, another one for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def detailed(width: int, height: int) -> Image.Image:
    """Colour noise of three pixels' grain, RGB: what a careless reduction gets wrong."""
    grain = np.random.default_rng(0).integers(0, 256, (height // 3, width // 3, 3), np.uint8)
    return Image.fromarray(grain).resize((width, height), Image.Resampling.BICUBIC)


def quadrants(width: int = 64, height: int = 48) -> Image.Image:
    """Red, green, blue, white: top left, top right, bottom left, bottom right."""
    corners = np.array([[RED, GREEN], [BLUE, (255, 255, 255)]], np.uint8)
    return Image.fromarray(corners).resize((width, height), Image.Resampling.NEAREST)


def jpeg(width: int = 64, height: int = 48, seed: int = 0, **options: Any) -> bytes:
    """A JPEG of `scene`."""
    return saved(scene(width, height, seed), "JPEG", **options)


def png(width: int = 64, height: int = 48, seed: int = 0, **options: Any) -> bytes:
    """A PNG of `scene`."""
    return saved(scene(width, height, seed), "PNG", **options)


@functools.cache
def each_format(width: int = 64, height: int = 48) -> dict[str, bytes]:
    """`scene` in all formats, some in several kinds: `{kind: file}`, kind begins with the
    format's name."""
    image = scene(width, height)
    grey = image.convert("L")
    return {
        "JPEG": saved(image, "JPEG"),
        "JPEG-progressive": saved(image, "JPEG", progressive=True),
        "JPEG-cmyk": cmyk_jpeg(image),
        "JPEG-exif": oriented(image, 6),
        "PNG": saved(image, "PNG"),
        "PNG-palette": palette_png(image),
        "PNG-16": grey16(np.asarray(grey, np.uint16) * 257, "PNG"),
        "PNG-animated": animated([image, grey.convert("RGB")], "PNG"),
        "WEBP": saved(image, "WEBP"),
        "WEBP-lossless": saved(image.convert("RGBA"), "WEBP", lossless=True),
        "WEBP-animated": animated([image, grey.convert("RGB")], "WEBP"),
        "GIF": saved(image, "GIF"),
        "GIF-animated": animated([image, grey.convert("RGB")], "GIF"),
        "BMP": saved(image, "BMP"),
        "BMP-palette": saved(image.quantize(16), "BMP"),
        "TIFF": saved(image, "TIFF"),
        "TIFF-lzw": saved(image, "TIFF", compression="tiff_lzw"),
        "TIFF-jpeg": saved(image, "TIFF", compression="jpeg"),
        "TIFF-float": float_tiff(np.asarray(grey, np.float32) / 255),
        "PPM": saved(image, "PPM"),
        "PPM-grey": saved(grey, "PPM"),
        "PPM-plain": b"P3 2 2 255\n255 0 0  0 255 0\n0 0 255  255 255 255\n",
        "AVIF": saved(image, "AVIF", speed=10),
        "AVIF-alpha": saved(faded(image), "AVIF", speed=10),
        "AVIF-animated": animated([image, grey.convert("RGB")], "AVIF"),
        "HEIC": heic(image),
        "HEIC-tiles": heic(image, tile_size=32),
        "HEIC-10": heic(image, bits=10),
        "JPEG2000": saved(image, "JPEG2000"),
        "JPEG2000-lossy": saved(image, "JPEG2000", irreversible=True, quality_layers=[8]),
        "JPEG2000-16": grey16(np.asarray(grey, np.uint16) * 257, "JPEG2000"),
        "JPEG2000-stream": saved(image, "JPEG2000", no_jp2=True, tile_size=(16, 16)),
    }


def faded(image: Image.Image) -> Image.Image:
    """`image` with an alpha that goes from 0 at the left to 255 at the right."""
    image = image.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").rotate(90).resize(image.size))
    return image


def oriented(image: Image.Image, orientation: int, format_: str = "JPEG") -> bytes:
    """`image` as stored, with an EXIF orientation (1-8) that says how to turn it."""
    if format_ == "HEIC":
        return heic(image, exif=exif(orientation), quality=95)
    options = {"quality": 95, "subsampling": 0} if format_ == "JPEG" else {}
    return saved(image, format_, exif=exif(orientation), **options)


def exif(orientation: int) -> bytes:
    """EXIF with an orientation (1-8)."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def heic(
    image: Image.Image, *, bits: int = 8, exif: bytes = b"", xmp: bytes = b"", **options: Any
) -> bytes:
    """A HEIC, turned as its EXIF says; deep ones are RGB or L."""
    import pillow_heif

    if bits > 8:
        deep = (np.asarray(image).astype(np.uint16) * 257).tobytes()
        written = pillow_heif.from_bytes(f"{image.mode};16", image.size, deep)
        written[0].info["bit_depth"] = bits
    else:
        written = pillow_heif.from_pillow(image)
    written[0].info |= {"exif": exif or None, "xmp": xmp or None}
    file = io.BytesIO()
    written.save(file, enc_params={"preset": "ultrafast"}, **options)
    return file.getvalue()


def cmyk_jpeg(image: Image.Image) -> bytes:
    """Four inks, inverted as Adobe's programs write them."""
    return saved(image.convert("CMYK"), "JPEG", quality=95)


def grey16(values: npt.NDArray[np.uint16], format_: str) -> bytes:
    """uint16 [H, W] as a 16-bit greyscale PNG, TIFF or PPM."""
    return saved(Image.fromarray(values), format_)


def float_tiff(values: npt.NDArray[np.float32]) -> bytes:
    """float32 [H, W] as a TIFF of floats."""
    return saved(Image.fromarray(values), "TIFF")


def palette_png(image: Image.Image, transparent: int | bytes | None = None) -> bytes:
    """A palette of 16 colours; `transparent` is one index or an alpha for each colour."""
    options = {} if transparent is None else {"transparency": transparent}
    return saved(image.quantize(16), "PNG", **options)


def animated(frames: list[Image.Image], format_: str) -> bytes:
    """GIF, WEBP or PNG (APNG) with these frames."""
    options = {"WEBP": {"lossless": True}, "AVIF": {"speed": 10}}.get(format_, {})
    return saved(
        frames[0], format_, save_all=True, append_images=frames[1:], duration=100, **options
    )


def mpo(first: Image.Image, second: Image.Image) -> bytes:
    """A phone's JPEG with a second image behind the first."""
    return saved(first, "MPO", save_all=True, append_images=[second])


def png_chunk(name: bytes, body: bytes) -> bytes:
    """One chunk with its right checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def bomb_png(width: int = 60_000, height: int = 60_000, animated: bool = False) -> bytes:
    """A PNG of a few bytes whose header declares a huge image.

    `animated` adds what makes Pillow fill the canvas (gigabytes) already while opening it.
    """
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    if animated:
        header += png_chunk(b"acTL", struct.pack(">II", 2, 0))
        frame = struct.pack(">IIIIIHHBB", 0, width, height, 0, 0, 1, 1, 1, 0)
        header += png_chunk(b"fcTL", frame)
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + png_chunk(b"IEND", b"")


def flat_jpeg(width: int, height: int) -> bytes:
    """A plain grey JPEG (4:2:0) of any size, made without its pixels: one byte for 64 of them."""
    data = saved(Image.new("RGB", (16, 16), (128, 128, 128)), "JPEG")
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    head = data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 : scan + 14]
    # Four blocks of Y as 00 (no change), 1010 (end of block), then Cb and Cr as 00 00 each.
    return head + b"\x28\xa2\x8a\x00" * (-(-width // 16) * -(-height // 16)) + b"\xff\xd9"


def scan_bomb_jpeg(scans: int = 20_000, side: int = 2_000) -> bytes:
    """A progressive JPEG of one colour that asks for `scans` passes over all its pixels."""
    flat = saved(Image.new("RGB", (side, side), "grey"), "JPEG", progressive=True)
    last = flat.rindex(b"\xff\xda")
    return flat[:last] + flat[last:-2] * scans + b"\xff\xd9"


def slow_ppm(side: int = 1_500) -> bytes:
    """A PPM with an odd maximum, which Pillow decodes pixel by pixel in Python: seconds."""
    return b"P6 %d %d 254\n" % (side, side) + bytes(side * side * 3)


def tag_bomb_tiff(tags: int, size: int) -> bytes:
    """A TIFF with `tags` tags that all claim the same `size` bytes."""
    first, claimed = 50_000, 8 + 2 + 12 * tags + 4
    entries = b"".join(
        struct.pack("<HHII", first + n if n else 256, 7, size, claimed) for n in range(tags)
    )
    return b"II*\0" + struct.pack("<IH", 8, tags) + entries + bytes(4 + size)


def truncated(data: bytes, kept: float = 0.5) -> bytes:
    """The first part of a file."""
    return data[: int(len(data) * kept)]


def bit_flipped(data: bytes, seed: int, flips: int = 8) -> bytes:
    """A file with some bits turned over, the same ones for a seed."""
    draw = random.Random(seed)
    damaged = bytearray(data)
    for _ in range(flips):
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def mutated(data: bytes, seed: int) -> bytes:
    """A file damaged in one of several ways, the same one for a seed."""
    draw = random.Random(seed)
    at, length = draw.randrange(len(data)), draw.randint(1, 16)
    ways = (
        lambda: bit_flipped(data, seed, draw.randint(1, 16)),
        lambda: data[:at],
        lambda: data[:at] + data[at + length :],
        lambda: data[:at] + draw.randbytes(length) + data[at + length :],
        lambda: data[:at] + draw.choice((b"\0", b"\xff", b"\x7f")) * length + data[at + length :],
        lambda: data[:at] + data[draw.randrange(len(data)) :],
        lambda: data[:at] + data[at : at + 64] * length + data[at:],
    )
    # Half of the damage goes to the headers, which are small and where most goes wrong.
    if draw.random() < 0.5:
        at = draw.randrange(min(len(data), 200))
    return draw.choice(ways)()


TEXT = b"Photographs by their authors, all under CC-BY.\n"


def bad_files() -> dict[str, bytes]:
    """What lies about in real folders and is no sound image: `{name: file}`."""
    return {
        "empty.jpg": b"",
        "text.jpg": TEXT,
        "LICENSE.txt": TEXT,
        "Thumbs.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504),
        "truncated.jpg": truncated(jpeg()),
        "bomb.png": bomb_png(),
        "new.jxl": b"\0\0\0\x0cJXL \r\n\x87\n",
    }
