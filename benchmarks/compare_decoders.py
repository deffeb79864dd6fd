"""Compares verdicts and pixels of our decoder with those of OpenCV and libvips.

    pip install opencv-python-headless pyvips pyvips-binary
    python benchmarks/compare_decoders.py FOLDER... [--json FILE]

Decodes every file below the folders that begins as an image of a format we read, at its own size,
each content once. Prints a table by format, and all files on which the decoders differ: those that
not all accept, and those whose pixels differ by more than `WITHIN` levels. benchmarks/DECODERS.md
has a result with the reasons.

The two others are brought to our rules: upright, alpha over white, 16 bits as value / 257, the
first page, embedded colour profiles ignored. OpenCV drops alpha where it turns an image upright, so
that either of its two results may agree. libvips is asked to fail on damage (`fail_on=error`).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_flowers.errors import ImageError
from beam_flowers.images.decode import decode
from beam_flowers.images.formats import FORMATS, sniff
from beam_flowers.images.recipe import Limits, PixelRecipe

WITHIN = 2
"""Levels of 255 by which pixels may differ: decoders round conversions of colours differently."""
SECONDS = 120
LIMITS = Limits(seconds=60)

Pixels = npt.NDArray[Any]


def ours(data: bytes) -> Pixels:
    """Decodes by our rules, without a resize."""
    size = decode(data, PixelRecipe(1, 1), LIMITS)
    return decode(data, PixelRecipe(size.height, size.width), LIMITS).pixels


def by_opencv(data: bytes) -> list[Pixels]:
    """Returns the image turned upright without alpha, and as stored with alpha over white."""
    import cv2

    cv2.setNumThreads(1)
    buffer = np.frombuffer(data, np.uint8)
    found = []
    for mode in (cv2.IMREAD_COLOR, cv2.IMREAD_UNCHANGED):
        pixels = cv2.imdecode(buffer, mode)
        if pixels is None:
            continue
        if pixels.ndim == 2:
            pixels = pixels[..., np.newaxis]
        order = {1: [0], 2: [0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[pixels.shape[2]]
        found.append(as_rgb(pixels[..., order]))
    if not found:
        raise ValueError("imdecode gives nothing")
    return found


def by_libvips(data: bytes) -> list[Pixels]:
    """Returns the image as libvips reads it, upright and in sRGB."""
    import pyvips

    image = pyvips.Image.new_from_buffer(data, "", fail_on="error").autorot()
    if image.interpretation in ("cmyk", "lab", "labs", "xyz"):
        image = image.colourspace("srgb")
    return [as_rgb(image.numpy().reshape(image.height, image.width, image.bands))]


def as_rgb(pixels: Pixels) -> Pixels:
    """Brings grey, RGB or either with alpha, of any depth, to uint8 RGB over white."""
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return pixels
    values = pixels.astype(np.float32)
    if pixels.dtype.kind == "f":
        values = np.nan_to_num(values)
        values *= 255 if values.max(initial=0) <= 1 else 1
    elif pixels.dtype.itemsize > 1:
        values /= 257
    if values.shape[2] in (2, 4):
        alpha = values[..., -1:] / 255
        values = values[..., :-1] * alpha + 255 * (1 - alpha)
    if values.shape[2] == 1:
        values = np.repeat(values, 3, 2)
    return np.clip(np.rint(values[..., :3]), 0, 255).astype(np.uint8)


@dataclass
class Compared:
    """Holds what came of one file.

    Attributes:
        path: of the file.
        format: as we recognise it.
        refusals: reason of each decoder that refuses the file, by its name.
        differences: for each other decoder that accepts the file as we do: the largest
            difference in levels and the share of pixels above `WITHIN`, or the two sizes.
    """

    path: str
    format: str
    refusals: dict[str, str] = field(default_factory=dict)
    differences: dict[str, str] = field(default_factory=dict)

    @property
    def is_agreed(self) -> bool:
        """Tells if all three give the same verdict, and pixels within `WITHIN`."""
        return len(self.refusals) in (0, 3) and not any(self.differences.values())


OTHERS: dict[str, Callable[[bytes], list[Pixels]]] = {"OpenCV": by_opencv, "libvips": by_libvips}
OURS = "ours"


def compared(path: str, format_: str) -> Compared:
    """Compares the decoders of one file; a difference within bounds is an empty text."""
    data = Path(path).read_bytes()
    found = Compared(path, format_)
    own: Pixels | None = None
    try:
        own = ours(data)
    except ImageError as error:
        found.refusals[OURS] = f"{error.error_class}: {error.message}"[:200]
    for name, read in OTHERS.items():
        try:
            results = read(data)
        except Exception as error:  # cv2.error, pyvips.Error, and what else they raise.
            found.refusals[name] = " ".join(str(error).split())[:200]
            continue
        if own is not None:
            found.differences[name] = min((difference(own, other) for other in results), key=len)
    return found


def difference(own: Pixels, other: Pixels) -> str:
    if own.shape != other.shape:
        return f"{own.shape[1]} x {own.shape[0]}, not {other.shape[1]} x {other.shape[0]}"
    apart = np.abs(own.astype(np.int16) - other).max(2)
    if (most := int(apart.max(initial=0))) <= WITHIN:
        return ""
    return (
        f"{most} levels, {np.mean(apart > WITHIN):.1%} of the pixels, {apart.mean():.1f} on average"
    )


class Worker:
    """Compares files in a process of its own, which a decoder may end."""

    def __init__(self) -> None:
        self._pipe, other = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=_answer, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def compare(self, path: str, format_: str) -> Compared | None:
        """Returns None if the process ended, or did not answer in `SECONDS`."""
        with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
            self._pipe.send((path, format_))
            if self._pipe.poll(SECONDS):
                found: Compared = self._pipe.recv()
                return found
        self._process.kill()
        self._process.join()
        return None


def _answer(pipe: Connection) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # The libraries' own warnings.
    while True:
        pipe.send(compared(*pipe.recv()))


def images_below(folders: list[str]) -> Iterator[tuple[str, str]]:
    """Yields path and format of each content that begins as an image."""
    seen = set()
    for folder in folders:
        for path in sorted(Path(folder).rglob("*")):
            if not path.is_file() or path.stat().st_size > LIMITS.max_bytes:
                continue
            with path.open("rb") as file:
                format_ = sniff(file.read(4096)) and sniff(path.read_bytes())
            if not format_:
                continue
            digest = hashlib.sha256(path.read_bytes()).digest()
            if digest not in seen:
                seen.add(digest)
                yield str(path), format_


def print_table(results: list[Compared]) -> None:
    print("| format | files | ours | OpenCV | libvips | = OpenCV | = libvips | all agree |")
    print("|---|---|---|---|---|---|---|---|")
    for format_ in (*FORMATS, "all"):
        rows = [r for r in results if format_ in (r.format, "all")]
        if not rows:
            continue
        refused = Counter(name for row in rows for name in row.refusals)
        counts = [str(len(rows) - refused[name]) for name in (OURS, *OTHERS)]
        for name in OTHERS:
            both = [row.differences[name] for row in rows if name in row.differences]
            counts.append(f"{sum(not told for told in both)}/{len(both)}")
        agreed = sum(row.is_agreed for row in rows)
        print("|", " | ".join([format_, str(len(rows)), *counts, str(agreed)]), "|")


def print_rest(results: list[Compared]) -> None:
    for row in sorted(results, key=lambda row: (FORMATS.index(row.format), row.path)):
        if row.is_agreed:
            continue
        told = [f"{name} refuses ({reason})" for name, reason in row.refusals.items()]
        told += [f"{name} {text}" for name, text in row.differences.items() if text]
        print(f"{row.format} {row.path}: {'; '.join(told)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--json", type=Path, help="also writes all results there")
    options = parser.parse_args()
    results, worker = [], Worker()
    for path, format_ in images_below(options.folders):
        found = worker.compare(path, format_)
        if found is None:
            worker = Worker()
            found = Compared(path, format_, {"?": f"a decoder ended or took {SECONDS} s"})
        results.append(found)
        if sys.stderr.isatty():
            print(f"\r{len(results)}", end="", file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps([vars(row) for row in results], indent=1))
    print_table(results)
    print()
    print_rest(results)


if __name__ == "__main__":
    main()
