"""Makes BMP files of the variants that exist, as bmpsuite has them; functions return bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

RGB = npt.NDArray[np.uint8]
WIDTH, HEIGHT = 37, 11
PALETTE = [(b, 255 - b, (b * 7) % 256) for b in range(0, 256)]

LAYOUTS = {
    16: [
        (0xF800, 0x7E0, 0x1F),
        (0x7C00, 0x3E0, 0x1F),
        (0xF00, 0xF0, 0xF),
        (0x1F, 0x7E0, 0xF800),
    ],
    32: [
        (0xFF0000, 0xFF00, 0xFF),
        (0xFF, 0xFF00, 0xFF0000),
        (0xFF000000, 0xFF0000, 0xFF00),
        (0x3FF00000, 0xFFC00, 0x3FF),
        (0x3FF, 0xFFC00, 0x3FF00000),
        (0xFF0000, 0xFF, 0xFF00),
    ],
}
"""Masks of red, green and blue by bits a pixel."""
ALPHAS = {
    16: [(0xF00, 0xF0, 0xF, 0xF000), (0x7C00, 0x3E0, 0x1F, 0x8000)],
    32: [
        (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
        (0x3FF, 0xFFC00, 0x3FF00000, 0xC0000000),
    ],
}


def ramp(width: int = WIDTH, height: int = HEIGHT) -> RGB:
    """uint8 [H, W, 3]: every channel takes all of its values."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), (x * y) % 256], 2).astype(
        np.uint8
    )


def packed(values: RGB, masks: Sequence[int], bits: int) -> bytes:
    """Rows of whole numbers of `bits` with red, green, blue (and full alpha) below the masks."""
    out = np.zeros(values.shape[:2], np.uint32)
    for channel, mask in enumerate(masks):
        if not mask:
            continue
        low = (mask & -mask).bit_length() - 1
        most = mask >> low
        level = values[..., channel] if channel < 3 else np.full(values.shape[:2], 255)
        out |= ((level.astype(np.uint64) * most + 127) // 255).astype(np.uint32) << low
    return rows(out.astype({16: "<u2", 32: "<u4"}[bits]).view(np.uint8).reshape(len(out), -1))


def rows(lines: RGB) -> bytes:
    """Bottom row first, each padded to four bytes."""
    return np.pad(lines[::-1], ((0, 0), (0, -lines.shape[1] % 4))).tobytes()


def indices(bits: int) -> tuple[bytes, RGB]:
    """Rows of indices into `PALETTE`, and the colours that they stand for."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    index = ((x + y) % 2**bits).astype(np.uint8)
    wide = np.pad(index, ((0, 0), (0, -WIDTH % 8)))
    each = 8 // bits
    lines = sum(wide[:, n::each].astype(np.uint8) << (8 - bits * (n + 1)) for n in range(each))
    used = (WIDTH * bits + 7) // 8
    return rows(lines[:, :used].astype(np.uint8)), np.array(PALETTE, np.uint8)[index]


def bmp(
    pixels: bytes,
    bits: int,
    *,
    header: int = 40,
    compression: int = 0,
    masks: Sequence[int] = (),
    colours: int = 0,
    height: int = HEIGHT,
    width: int = WIDTH,
    gap: int = 0,
) -> bytes:
    """A file with a header of that many bytes; a negative height means top row first."""
    if header == 12:
        about = struct.pack("<IHHHH", 12, width, height, 1, bits)
        palette = b"".join(bytes(c[::-1]) for c in PALETTE[:colours])
    else:
        about = struct.pack(
            "<IiiHHIIiiII",
            header,
            width,
            height,
            1,
            bits,
            compression,
            len(pixels),
            2835,
            2835,
            colours,
            0,
        )
        fields = struct.pack(f"<{len(masks)}I", *masks)
        # Masks lie in headers of 52 bytes and more, and behind shorter ones.
        about = (about + fields).ljust(header, b"\0") if header > 40 else about[:header] + fields
        palette = b"".join(bytes([*c[::-1], 0]) for c in PALETTE[:colours])
    offset = 14 + len(about) + len(palette) + gap
    start = struct.pack("<2sIHHI", b"BM", offset + len(pixels), 0, 0, offset)
    return start + about + palette + bytes(gap) + pixels


def variants() -> dict[str, tuple[bytes, RGB, int]]:
    """`{name: (file, colours uint8 [H, W, 3], what they may differ by)}`."""
    image = ramp()
    bgr = np.ascontiguousarray(image[..., ::-1]).reshape(HEIGHT, -1)
    plain, upside = rows(bgr), rows(bgr[::-1])
    made: dict[str, tuple[bytes, RGB, int]] = {}
    for bits in (1, 2, 4, 8):
        lines, colours = indices(bits)
        made[f"palette {bits}"] = bmp(lines, bits, colours=2**bits), colours, 0
        for header in (12, 16, 52, 56, 64, 108, 124):
            if (bits, header) == (2, 12):
                continue  # Windows CE has two bits, OS/2 this header.
            made[f"palette {bits} header {header}"] = (
                bmp(lines, bits, header=header, colours=2**bits),
                colours,
                0,
            )
    made["24"] = bmp(plain, 24), image, 0
    made["24 top down"] = bmp(upside, 24, height=-HEIGHT), image, 0
    made["24 os/2"] = bmp(plain, 24, header=12), image, 0
    made["24 with a palette"] = bmp(plain, 24, colours=200), image, 0
    made["24 with a gap"] = bmp(plain, 24, gap=21), image, 0
    made["16"] = bmp(packed(image, (0x7C00, 0x3E0, 0x1F), 16), 16), image, 5
    made["32"] = bmp(packed(image, (0xFF0000, 0xFF00, 0xFF), 32), 32), image, 0
    for bits, several in LAYOUTS.items():
        for masks in several:
            coarse = 255 // (2 ** min(m.bit_count() for m in masks) - 1) // 2 + 1
            name = f"{bits} masks {masks[0]:x} {masks[1]:x} {masks[2]:x}"
            data = packed(image, masks, bits)
            for header in (40, 52, 56, 108, 124):
                made[f"{name} header {header}"] = (
                    bmp(data, bits, header=header, compression=3, masks=masks),
                    image,
                    coarse,
                )
            down = packed(image[::-1], masks, bits)
            made[f"{name} top down"] = (
                bmp(down, bits, compression=3, masks=masks, height=-HEIGHT),
                image,
                coarse,
            )
    for bits, several in ALPHAS.items():
        for masks in several:
            coarse = 255 // (2 ** min(m.bit_count() for m in masks[:3]) - 1) // 2 + 1
            name = f"{bits} alpha {masks[0]:x} {masks[1]:x} {masks[2]:x} {masks[3]:x}"
            data = packed(image, masks, bits)
            for header in (56, 108, 124):
                made[f"{name} header {header}"] = (
                    bmp(data, bits, header=header, compression=3, masks=masks),
                    image,
                    coarse,
                )
            made[f"{name} compression 6"] = (
                bmp(data, bits, compression=6, masks=masks),
                image,
                coarse,
            )
    made["rle 8"] = (
        bmp(rle8(), 8, compression=1, colours=256),
        np.array(PALETTE, np.uint8)[rle_indices()],
        0,
    )
    return made


def rle_indices() -> npt.NDArray[np.uint8]:
    """uint8 [H, W]: every second row runs of one index, else all different."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.where(y % 2, x // 9 * 40, (x * 5 + y) % 256).astype(np.uint8)


def rle8() -> bytes:
    """`rle_indices` as runs and as literal bytes."""
    out = b""
    for y, line in reversed(list(enumerate(rle_indices()))):
        if y % 2:
            out += b"".join(bytes([len(line[x : x + 9]), line[x]]) for x in range(0, WIDTH, 9))
        else:
            out += bytes([0, WIDTH]) + line.tobytes() + bytes(WIDTH % 2)
        out += b"\0\0"
    return out + b"\0\1"
