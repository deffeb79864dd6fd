"""The life of a collection, as a user lives it: embed, change, embed again, train, score."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import make_images
import pyarrow.parquet as pq
from PIL import Image
from stores import cli, photos, rejects, rows

from beam_flowers.store.commits import latest


@dataclass(frozen=True)
class Tables:
    """All that came out of a life, as plain readers see it.

    Attributes:
        store: rows of the store after each `embed`.
        rejects: error class by uri, likewise.
        dataset_hash: likewise.
        counts: of each `embed`, as the store's commits have them.
        scores: from pixels and from the store, by uri.
        score_rejects: error class by uri, likewise.
    """

    store: list[list[dict[str, Any]]]
    rejects: list[dict[str, str]]
    dataset_hash: list[str]
    counts: list[dict[str, Any]]
    scores: list[list[dict[str, Any]]]
    score_rejects: list[dict[str, str]]


def live(folder: Path, base: Path, flags: Sequence[str]) -> Tables:
    """Makes the collection at `folder` anew and lives it on an engine; tables go into `base`."""
    shutil.rmtree(folder, ignore_errors=True)
    collect(folder)
    store, tables = base / "store", Tables([], [], [], [], [], [])
    for stage in (None, change):
        if stage is not None:
            stage(folder)
        run("embed", folder, "--store", store, *flags)
        _read_store(store, tables)
    run("train", store, "--model", base / "model")
    score = ("score", "--model", base / "model", *flags)
    run(*score, folder, "--output", base / "pixels.parquet")
    run(*score, store, "--output", base / "from-store")
    tables.scores.append(pq.read_table(base / "pixels.parquet").sort_by("uri").to_pylist())
    tables.scores.append(rows(base / "from-store"))
    found = pq.read_table(base / "pixels.rejects.parquet").to_pylist()
    tables.score_rejects.append({row["uri"]: row["error_class"] for row in found})
    tables.score_rejects.append(rejects(base / "from-store"))
    return tables


def run(*arguments: Any) -> None:
    """A command that has to succeed."""
    assert cli(*arguments) == 0, f"beam-flowers {' '.join(map(str, arguments))} failed: see above"


def _read_store(store: Path, tables: Tables) -> None:
    manifest = latest(str(store))
    tables.store.append(rows(store))
    tables.rejects.append(rejects(store))
    tables.dataset_hash.append(manifest.sections.popitem()[1].dataset_hash)
    tables.counts.append(manifest.counts)


def collect(folder: Path) -> None:
    """25 photographs of five flowers among junk, and sound images that are out of the way."""
    photos(folder, 5)
    first = sorted((folder / "daisy").iterdir())[0]
    whole = first.read_bytes()
    (folder / "daisy" / "truncated.jpg").write_bytes(make_images.truncated(whole))
    (folder / "daisy" / "text.jpg").write_bytes(make_images.TEXT)
    (folder / "roses" / "empty.jpg").write_bytes(b"")
    with Image.open(first) as photo:
        (folder / "roses" / "a.gif").write_bytes(make_images.saved(photo, "GIF"))
        (folder / "tulips" / "cmyk.jpg").write_bytes(make_images.cmyk_jpeg(photo))
    shutil.copy2(first, folder / "daisy" / "copy.jpg")
    (folder / "sunflowers" / "y[1].jpg").write_bytes(make_images.jpeg(seed=1))
    (folder / "sunflowers" / "玫瑰 ä.jpg").write_bytes(make_images.jpeg(seed=2))
    _date(folder, 1_000_000_000)


def change(folder: Path) -> None:
    """Adds, edits, moves, repairs and deletes a file each."""
    (folder / "daisy" / "added.jpg").write_bytes(make_images.jpeg(seed=3))
    (folder / "sunflowers" / "y[1].jpg").write_bytes(make_images.jpeg(80, 60, seed=4))
    roses = sorted((folder / "roses").glob("*.jpg"))
    roses[0].rename(folder / "tulips" / "moved.jpg")
    roses[1].unlink()
    (folder / "daisy" / "truncated.jpg").write_bytes(make_images.jpeg(seed=5))
    _date(folder, 1_000_000_001)


def _date(folder: Path, seconds: int) -> None:
    """Dates what was just written, so that it is as old in every life."""
    for path in folder.rglob("*.*"):
        if path.stat().st_mtime > 1_700_000_000:
            os.utime(path, (seconds, seconds))
