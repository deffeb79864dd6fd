"""A store of real little images with names that try to be markup, its model and its scores."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

import make_images
import numpy as np
from stores import cli

from beam_flowers.head.lbfgs import LbfgsOptions
from beam_flowers.head.split import SplitOptions
from beam_flowers.records import Embedding, Image, Reject
from beam_flowers.store.append import append_parts, store_place
from beam_flowers.store.parts import RejectRows, write_part
from beam_flowers.workflows.train import TrainOptions, train_model

HOSTILE = "<script>alert(1)</script>"
LABELS = (HOSTILE, "\"><img src=x onerror=alert(2)> &amp; '", "玫瑰 {{ 7 * 7 }}")
FOLDERS = ("<script>alert(1)<", "\"><img src=x onerror=alert(2)> &amp; '", "玫瑰 {{ 7 * 7 }} #?%20")
FINGERPRINT = "cd" * 32
SPLIT = SplitOptions(validation_percentage=20, testing_percentage=30)


def image_path(folder: Path, number: int) -> Path:
    """The file of that number; its last folder may hold a `/` of its own, as `</script>` does."""
    name = "new\nline.jpg" if number == 7 else f"{number:04d} <b>&amp;.jpg"
    return folder / "images" / FOLDERS[number % 3] / "script>" / name


def embeddings(folder: Path, count: int, labels: Sequence[str | None], spread: float = 1.6):
    """A written image and a made vector each; the first three are mislabelled."""
    centres = np.random.default_rng(99).standard_normal((3, 12))
    for i in range(count):
        path, data = image_path(folder, i), make_images.jpeg(48 + i % 40, 48, i)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        noise = np.random.default_rng(i).standard_normal(12)
        vector = (centres[i % 3] + spread * noise).astype(np.float32)
        label = labels[(i + (i < 3)) % len(labels)]
        root = str(folder / "images")
        named = Image(str(path), root, str(path.relative_to(root)), label, None, len(data), 10**15)
        yield Embedding(named, hashlib.sha256(data).hexdigest(), 48, 48, "JPEG", vector)


def make_store(folder: Path, count: int = 150, labels: Sequence[str | None] = LABELS) -> Path:
    """`folder/store`, with two rejects."""
    place, kind = store_place(str(folder / "store"), "tiny", FINGERPRINT)
    bad = [
        Reject(Image(f"/images/{HOSTILE}.txt", "/images", "x"), "decode", "NotAnImage", HOSTILE),
        Reject(Image("/images/cut.jpg", "/images", "y"), "decode", "Truncated", "ends early"),
    ]
    parts = [
        write_part(place, kind, kind.table(list(embeddings(folder, count, labels)))),
        write_part(place, RejectRows(), RejectRows().table(bad)),
    ]
    append_parts(place, kind, {"pixels": {}}, parts)
    return folder / "store"


def make_model(folder: Path, separator: str | None = None) -> Path:
    """`folder/model`, with the step log in `folder/steps`."""
    options = TrainOptions(summaries_dir=str(folder / "steps"), label_separator=separator)
    train_model(
        str(folder / "store"), str(folder / "model"), LbfgsOptions(), SPLIT, options=options
    )
    return folder / "model"


def make_scores(folder: Path, name: str = "scores.csv", *flags: str) -> Path:
    """`folder/<name>`."""
    assert not cli(
        "score", folder / "store", "--model", folder / "model", "--output", folder / name, *flags
    )
    return folder / name


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
