"""Measures the memory that decoding takes at most, and compares it with what is estimated.

Each kind of image is decoded in a process of its own, of which the system says the peak
(`ru_maxrss`, Linux). Prints bytes a pixel: measured, estimated by `images/memory.py`.

    python benchmarks/decode_memory.py [SIDE] [KIND ...]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from beam_flowers.errors import ImageError
from beam_flowers.images import decode as decoding
from beam_flowers.images.decode import decode
from beam_flowers.images.memory_gate import Gate
from beam_flowers.images.recipe import Limits, PixelRecipe

LIMITS = Limits(max_pixels=178_000_000, seconds=300)


def saved(image: Image.Image, format_: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def colour(side: int, mode: str = "RGB") -> Image.Image:
    """A smooth image; of noise the file itself would be what takes memory."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 9, len(mode) if mode != "L" else 1))
    return Image.fromarray(coarse.astype(np.uint8).squeeze(), mode).resize((side, side))


def interlaced(side: int, colours: int) -> bytes:
    """A black PNG in seven passes, which Pillow does not write. 2: RGB, 6: RGBA."""
    channels = {0: 1, 2: 3, 6: 4}[colours]
    passes = ((8, 8), (8, 8), (4, 8), (4, 4), (2, 4), (2, 2), (1, 2))
    raw = b"".join(bytes((1 + -(-side // x) * channels) * -(-side // y)) for x, y in passes)
    header = struct.pack(">IIBBBBB", side, side, 8, colours, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def animated(image: Image.Image, format_: str, **options: object) -> bytes:
    other = image.transpose(Image.Transpose.ROTATE_180)
    return saved(image, format_, save_all=True, append_images=[other], disposal=2, **options)


def bit_fields(side: int) -> bytes:
    """A BMP with masks that Pillow does not know."""
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 32, 3, 0, 0, 0, 0, 0)
    masks = struct.pack("<3I", 0x3FF00000, 0xFFC00, 0x3FF)
    start = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 66)
    return start + header + masks + bytes(4 * side * side)


def grey(side: int, type_: str) -> Image.Image:
    return Image.fromarray(np.arange(side * side, dtype=type_).reshape(side, side))


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def heic(mode: str, side: int, **options: Any) -> bytes:
    """A HEIC; of `RGB;10` and its like each number has that many bits."""
    import pillow_heif  # The extra `heic`.

    kind, _, deep = mode.partition(";")
    if chroma := options.pop("chroma", None):
        options["enc_params"] = {"chroma": chroma}
    options["enc_params"] = {"preset": "ultrafast", **options.get("enc_params", {})}
    pixels = np.asarray(colour(side, kind))
    if deep:
        values = (pixels.astype(np.uint16) * 257).tobytes()
        file = pillow_heif.from_bytes(f"{kind};16", (side, side), values)
        file[0].info["bit_depth"] = int(deep)
    else:
        file = pillow_heif.from_pillow(Image.fromarray(pixels))
    written = io.BytesIO()
    file.save(written, **options)
    return written.getvalue()


KINDS: dict[str, Callable[[int], bytes]] = {
    "JPEG": lambda n: saved(colour(n), "JPEG"),
    "JPEG 444": lambda n: saved(colour(n), "JPEG", subsampling=0),
    "JPEG grey": lambda n: saved(colour(n, "L"), "JPEG"),
    "JPEG inks": lambda n: saved(colour(n, "CMYK"), "JPEG"),
    "JPEG progressive": lambda n: saved(colour(n), "JPEG", progressive=True),
    "JPEG progressive 444": lambda n: saved(colour(n), "JPEG", progressive=True, subsampling=0),
    "JPEG progressive grey": lambda n: saved(colour(n, "L"), "JPEG", progressive=True),
    "JPEG progressive inks": lambda n: saved(colour(n, "CMYK"), "JPEG", progressive=True),
    "JPEG cut": lambda n: saved(colour(n), "JPEG")[:-2],
    "JPEG cut progressive": lambda n: KINDS["JPEG progressive 444"](n)[:-2],
    "PNG": lambda n: saved(colour(n), "PNG"),
    "PNG alpha": lambda n: saved(colour(n, "RGBA"), "PNG"),
    "PNG grey": lambda n: saved(colour(n, "L"), "PNG"),
    "PNG grey alpha": lambda n: saved(colour(n, "LA"), "PNG"),
    "PNG transparent colour": lambda n: saved(colour(n), "PNG", transparency=(1, 2, 3)),
    "PNG grey transparent": lambda n: saved(colour(n, "L"), "PNG", transparency=3),
    "PNG 16": lambda n: saved(grey(n, "uint16"), "PNG"),
    "PNG palette": lambda n: saved(colour(n).quantize(200), "PNG"),
    "PNG palette transparent": lambda n: saved(colour(n).quantize(200), "PNG", transparency=1),
    "PNG 1": lambda n: saved(colour(n, "L").convert("1"), "PNG"),
    "PNG interlaced": lambda n: interlaced(n, 2),
    "PNG interlaced alpha": lambda n: interlaced(n, 6),
    "PNG animated": lambda n: animated(colour(n), "PNG"),
    "PNG animated alpha": lambda n: animated(colour(n, "RGBA"), "PNG"),
    "WEBP": lambda n: saved(colour(n), "WEBP", method=0),
    "WEBP alpha": lambda n: saved(colour(n, "RGBA"), "WEBP", method=0),
    "WEBP lossless": lambda n: saved(colour(n), "WEBP", lossless=True, method=0, quality=0),
    "WEBP lossless alpha": lambda n: saved(
        colour(n, "RGBA"), "WEBP", lossless=True, method=0, quality=0
    ),
    "WEBP animated": lambda n: animated(colour(n), "WEBP", method=0),
    "GIF": lambda n: saved(colour(n).quantize(200), "GIF"),
    "GIF transparent": lambda n: saved(colour(n).quantize(200), "GIF", transparency=1),
    "GIF animated": lambda n: animated(colour(n).quantize(200), "GIF"),
    "BMP": lambda n: saved(colour(n), "BMP"),
    "BMP palette": lambda n: saved(colour(n).quantize(200), "BMP"),
    "BMP bit fields": bit_fields,
    "TIFF": lambda n: saved(colour(n), "TIFF"),
    "TIFF turned": lambda n: saved(colour(n), "TIFF", tiffinfo={274: 6}),
    "TIFF alpha": lambda n: saved(colour(n, "RGBA"), "TIFF"),
    "TIFF inks": lambda n: saved(colour(n, "CMYK"), "TIFF"),
    "TIFF deflate": lambda n: saved(colour(n), "TIFF", compression="tiff_adobe_deflate"),
    "TIFF one strip": lambda n: saved(
        colour(n), "TIFF", compression="tiff_adobe_deflate", strip_size=2**31
    ),
    "TIFF one strip turned": lambda n: saved(
        colour(n, "RGBA"), "TIFF", compression="tiff_lzw", strip_size=2**31, tiffinfo={274: 6}
    ),
    "TIFF JPEG": lambda n: saved(colour(n), "TIFF", compression="jpeg", strip_size=2**31),
    "TIFF 16": lambda n: saved(grey(n, "uint16"), "TIFF"),
    "TIFF 32": lambda n: saved(grey(n, "int32"), "TIFF"),
    "TIFF float": lambda n: saved(grey(n, "float32"), "TIFF"),
    "TIFF float one strip": lambda n: saved(
        grey(n, "float32"), "TIFF", compression="tiff_adobe_deflate", strip_size=2**31
    ),
    "TIFF fax": lambda n: saved(
        colour(n, "L").convert("1"), "TIFF", compression="group4", strip_size=2**31
    ),
    "PPM": lambda n: saved(colour(n), "PPM"),
    "PPM grey": lambda n: saved(colour(n, "L"), "PPM"),
    "PPM 16": lambda n: saved(grey(n, "uint16"), "PPM"),
    "PPM odd": lambda n: b"P6 %d %d 254\n" % (n, n) + bytes(3 * n * n),
    "PPM plain": lambda n: b"P3 %d %d 255\n" % (n, n) + b"1 " * (3 * n * n),
    "AVIF": lambda n: saved(colour(n), "AVIF", speed=10),
    "AVIF 444": lambda n: saved(colour(n), "AVIF", speed=10, subsampling="4:4:4"),
    "AVIF grey": lambda n: saved(colour(n, "L"), "AVIF", speed=10),
    "AVIF alpha": lambda n: saved(colour(n, "RGBA"), "AVIF", speed=10),
    "AVIF turned": lambda n: saved(colour(n), "AVIF", speed=10, exif=turned()),
    "HEIC": lambda n: heic("RGB", n),
    "HEIC 444": lambda n: heic("RGB", n, chroma="444"),
    "HEIC grey": lambda n: heic("L", n),
    "HEIC alpha": lambda n: heic("RGBA", n),
    "HEIC 10": lambda n: heic("RGB;10", n),
    "HEIC 12 alpha 444": lambda n: heic("RGBA;12", n, chroma="444"),
    "HEIC grey 10": lambda n: heic("L;10", n),
    "HEIC turned": lambda n: heic("RGB", n, exif=turned()),
    "HEIC tiles": lambda n: heic("RGB", n, tile_size=512),
    "HEIC tiles turned": lambda n: heic("RGB", n, tile_size=512, exif=turned()),
    "JPEG2000": lambda n: saved(colour(n), "JPEG2000"),
    "JPEG2000 lossy": lambda n: saved(
        colour(n), "JPEG2000", irreversible=True, quality_layers=[20]
    ),
    "JPEG2000 grey": lambda n: saved(colour(n, "L"), "JPEG2000"),
    "JPEG2000 alpha": lambda n: saved(colour(n, "RGBA"), "JPEG2000"),
    "JPEG2000 16": lambda n: saved(grey(n, "uint16"), "JPEG2000"),
    "JPEG2000 tiles": lambda n: saved(colour(n), "JPEG2000", tile_size=(256, 256)),
    "JPEG2000 small tiles": lambda n: saved(colour(n), "JPEG2000", tile_size=(16, 16)),
    "JPEG2000 small blocks": lambda n: saved(colour(n), "JPEG2000", codeblock_size=(4, 4)),
    "JPEG2000 small precincts": lambda n: saved(
        colour(n, "L"), "JPEG2000", codeblock_size=(4, 4), precinct_size=(8, 8)
    ),
    "PFM": lambda n: b"Pf\n%d %d\n-1.0\n" % (n, n) + bytes(4 * n * n),
}  # fmt: skip


class Noting(Gate):
    """Notes the largest estimate and lets all through."""

    largest = 0

    def hold(self, needed: int, what: str) -> contextlib.AbstractContextManager[None]:
        self.largest = max(self.largest, needed)
        return contextlib.nullcontext()


def peak(path: str) -> tuple[int, int]:
    """Returns bytes that decoding the file adds to the peak of this process, and the estimate."""
    data = Path(path).read_bytes()
    for kind in ("JPEG", "WEBP", "TIFF deflate", "AVIF", "JPEG2000"):
        decode(KINDS[kind](64), PixelRecipe(224, 224))
    with contextlib.suppress(ImportError):
        decode(KINDS["HEIC"](64), PixelRecipe(224, 224))
    noting = Noting(2**60)
    decoding.gate = lambda: noting  # type: ignore[assignment]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        decode(data, PixelRecipe(224, 224), LIMITS)
    except ImageError as error:
        print(error, file=sys.stderr)
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return added, noting.largest


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("side", type=int, nargs="?", default=4000)
    parser.add_argument("kinds", nargs="*")
    # A process begins with the peak of the one that started it. So this one stays small.
    parser.add_argument("--make", help="writes the kind to this file, in a process of its own")
    parser.add_argument("--peak", help="prints the peak of this file, likewise")
    arguments = parser.parse_args()
    if arguments.make:
        Path(arguments.make).write_bytes(KINDS[arguments.kinds[0]](arguments.side))
        return
    if arguments.peak:
        print(*peak(arguments.peak))
        return
    print(
        f"{'kind':24} {'measured':>9} {'estimate':>9}   bytes a pixel of {arguments.side} squared"
    )
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.kinds or KINDS:
            path = Path(folder) / "image"
            make = [sys.executable, __file__, str(arguments.side), kind, "--make", str(path)]
            subprocess.run(make, check=True)
            command = [sys.executable, __file__, "--peak", str(path)]
            ran = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            pixels = arguments.side**2
            took, estimate = (int(number) / pixels for number in ran.stdout.split())
            flag = "" if took <= estimate else "   above the estimate"
            print(f"{kind:24} {took:9.2f} {estimate:9.2f}{flag}", flush=True)


if __name__ == "__main__":
    main()
