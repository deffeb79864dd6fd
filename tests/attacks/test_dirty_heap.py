"""Images that make a decoder show memory which it never wrote.

An attacker would gain vectors, thumbnails and labels that are made of what the process held
before: parts of other images. And a store whose hash is another one with every run.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import make_images
import pytest
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from beam_flowers.errors import ImageError
from beam_flowers.images.decode import decode
from beam_flowers.images.recipe import Limits, PixelRecipe

FAX_OPTIONS: dict[str, dict[str, Any]] = {
    "": {},
    "mixed": {"tiffinfo": {292: 1}},
    "aligned": {"tiffinfo": {292: 4}},
    "reversed": {"tiffinfo": {266: 2}},
    "white is zero": {"tiffinfo": {262: 0}},
    "strips": {"strip_size": 500},
}
FAXES = {
    f"{compression} {name}": (compression, options)
    for compression in ("group3", "group4")
    for name, options in FAX_OPTIONS.items()
}


def fax(compression: str, options: dict[str, Any], image: Image.Image | None = None) -> bytes:
    image = image or make_images.scene(203, 150)
    return make_images.saved(image.convert("1"), "TIFF", compression=compression, **options)


def suite() -> Iterator[tuple[str, bytes]]:
    """Sound files of each kind, and what becomes of them."""
    for name, (compression, options) in FAXES.items():
        data = fax(compression, options)
        yield name, data
        for seed in range(60):
            yield f"{name} {seed}", make_images.mutated(data, seed)
    for kind, data in make_images.each_format(40, 30).items():
        yield kind, data
        for seed in range(40 if kind.startswith(("AVIF", "HEIC", "JPEG2000")) else 12):
            yield f"{kind} {seed}", make_images.mutated(data, seed)


def digests() -> Iterator[str]:
    """A line of pixels or verdict for each file of the suite."""
    for name, data in suite():
        try:
            decoded = decode(data, PixelRecipe(40, 40), Limits(max_pixels=1_000_000))
            yield f"{name}: {hashlib.sha256(decoded.pixels).hexdigest()}"
        except ImageError as error:
            yield f"{name}: {error.error_class}"


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc fills the heap")
def test_every_accepted_file_has_the_same_pixels_on_a_dirty_heap() -> None:
    seen = []
    for fill in ("1", "90"):
        ran = subprocess.run(
            [sys.executable, __file__],
            env={**os.environ, "MALLOC_PERTURB_": fill, "PYTHONPATH": ":".join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libtiff's own complaints.
            text=True,
            check=True,
        )
        seen.append(ran.stdout.splitlines())
    assert [pair for pair in zip(*seen, strict=True) if pair[0] != pair[1]] == []
    accepted = [line for line in seen[0] if len(line.rpartition(" ")[2]) == 64]
    assert len(accepted) > 300


@pytest.mark.parametrize("name", FAXES)
@pytest.mark.parametrize("size", [(203, 150), (1, 1), (8, 3), (1728, 20)])
def test_sound_faxes_are_read(name: str, size: tuple[int, int]) -> None:
    compression, options = FAXES[name]
    image = make_images.scene(*size).convert("1")
    picture = decode(fax(compression, options, image), PixelRecipe(size[1], size[0]))
    expected = image.convert("L")
    assert picture.pixels[..., 0].tobytes() == expected.tobytes()


def test_a_fax_in_tiles_is_read() -> None:
    data = tiled(make_images.scene(64, 32).convert("1"))
    assert decode(data, PixelRecipe(32, 64)).width == 64
    with pytest.raises(ImageError, match="fax data end before all rows are there"):
        decode(tiled(make_images.scene(64, 32).convert("1"), kept=0.5), PixelRecipe(32, 64))


def tiled(image: Image.Image, kept: float = 1.0) -> bytes:
    """A Group 4 image of tiles of 32 x 32; of the last one the first part of the bytes."""
    tiles = []
    for left in range(0, image.width, 32):
        strip = fax("group4", {}, image.crop((left, 0, left + 32, 32)))
        with TiffImageFile(io.BytesIO(strip)) as written:
            start, size = written.tag_v2[273][0], written.tag_v2[279][0]
        tiles.append(strip[start : start + size])
    tiles[-1] = tiles[-1][: int(len(tiles[-1]) * kept)]
    starts = [8 + sum(map(len, tiles[:n])) for n in range(len(tiles))]
    lists = struct.pack("<2I", *starts) + struct.pack("<2I", *map(len, tiles))
    at = 8 + sum(map(len, tiles))
    entries = {256: image.width, 257: image.height, 258: 1, 259: 4, 262: 1, 277: 1}
    entries |= {322: 32, 323: 32}
    directory = b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in entries.items())
    directory += struct.pack("<HHII", 324, 4, 2, at) + struct.pack("<HHII", 325, 4, 2, at + 8)
    header = struct.pack("<2sHI", b"II", 42, at + 16)
    return header + b"".join(tiles) + lists + struct.pack("<H", 10) + directory + bytes(4)


if __name__ == "__main__":
    print(*digests(), sep="\n")
