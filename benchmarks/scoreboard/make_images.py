"""Sets of images, made on the spot of real photographs; the same on every machine."""

from __future__ import annotations

import io
import os
import random
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

import beam_flowers

BUNDLED = Path(beam_flowers.__file__).parent / "data" / "flowers" / "labelled"

PHOTO, LARGE, SMALL = (500, 375), (4000, 3000), (48, 48)
"""(width, height) of the sets' images."""

Size = tuple[int, int]


def make_set(folder: Path, count: int, size: Size) -> Path:
    """`count` images in `folder/<flower>/`, each of other bytes; made once."""
    done = folder / ".done"
    if not done.exists():
        photos = sorted(BUNDLED.rglob("*.jpg"))
        for photo in photos:
            (folder / photo.parent.name).mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor() as pool:
            make = partial(_write, folder=folder, photos=photos, size=size)
            list(pool.map(make, range(count), chunksize=32))
        done.touch()
    return folder


def _write(number: int, folder: Path, photos: list[Path], size: Size) -> None:
    photo = photos[number % len(photos)]
    data = _encoded(photo, size, number) if size != SMALL else _tiny(photo, number)
    (folder / photo.parent.name / f"{number:06d}.jpg").write_bytes(data)


def _encoded(photo: Path, size: Size, number: int) -> bytes:
    """A part of the photograph, from 85 % of each side on, perhaps mirrored; quality 85."""
    chosen = random.Random(number)
    image = Image.open(photo).convert("RGB")
    share = chosen.uniform(0.85, 1)
    width, height = int(image.width * share), int(image.height * share)
    left, top = (
        chosen.randint(0, a - b) for a, b in ((image.width, width), (image.height, height))
    )
    image = image.crop((left, top, left + width, top + height))
    if chosen.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.resize(size, Image.Resampling.BICUBIC)
    if size == LARGE:
        # Enlarged, a photograph is smooth; the noise gives it a large one's bytes.
        image = Image.blend(image, Image.effect_noise(size, 60).convert("RGB"), 0.15)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _tiny(photo: Path, number: int) -> bytes:
    """A thumbnail with its number in a comment, so that no two have the same bytes."""
    buffer = io.BytesIO()
    Image.open(photo).convert("RGB").resize(SMALL).save(buffer, "JPEG", quality=85)
    data, comment = buffer.getvalue(), f"{number:08d}".encode()
    return data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]


def first(whole: Path, folder: Path, count: int) -> Path:
    """A set of the first `count` images of another, as links to them."""
    if not folder.exists():
        for picture in sorted(whole.rglob("*.jpg"), key=lambda path: path.name)[:count]:
            place = folder / picture.parent.name / picture.name
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(picture, place)
    return folder
