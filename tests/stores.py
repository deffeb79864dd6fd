"""Small collections on disk and what a plain reader sees of the tables made of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import make_images
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import beam_flowers
from beam_flowers import files
from beam_flowers.backbones.resolve import resolve
from beam_flowers.cli.main import main
from beam_flowers.files import local
from beam_flowers.store.history import read_version
from beam_flowers.workflows.embed import EmbedSummary, RunOptions, embed_images

PHOTOS = Path(beam_flowers.__file__).parent / "data" / "flowers" / "labelled"


def photos(folder: Path, per_label: int = 2) -> Path:
    """The first photographs of each of the five flowers, in `folder/<flower>/`."""
    for flower in sorted(p for p in PHOTOS.iterdir() if p.is_dir()):
        (folder / flower.name).mkdir(parents=True)
        for photo in sorted(flower.iterdir())[:per_label]:
            shutil.copy2(photo, folder / flower.name)
    return folder


def scenes(folder: Path, count: int) -> Path:
    """Small images, each of other bytes."""
    folder.mkdir(parents=True)
    for seed in range(count):
        (folder / f"{seed:04d}.jpg").write_bytes(make_images.jpeg(48 + seed % 40, 48, seed))
    return folder


def junk(folder: Path) -> Path:
    """Everything that lies about in real folders, among sound images of awkward names."""
    bad, odd = folder / "bad", folder / "玫瑰 [odd]"
    bad.mkdir(parents=True)
    odd.mkdir()
    for name, data in make_images.bad_files().items():
        (bad / name).write_bytes(data)
    for seed, name in enumerate(["a b.jpg", "y[1].jpg", "x*?.jpg", "new\nline.jpg", "百合%20.jpg"]):
        (odd / name).write_bytes(make_images.jpeg(seed=seed))
    (odd / "is-a-png.jpg").write_bytes(make_images.png(seed=9))
    (folder / "without-label.jpg").write_bytes(make_images.jpeg(seed=10))
    (bad / "dangling.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(bad / "pipe.jpg")
    (folder / ".git").mkdir()
    for name in (".git/image.jpg", "bad/.DS_Store"):
        (folder / name).write_bytes(b"hidden")
    return folder


def visible(folder: Path) -> set[str]:
    """Absolute names of all that is no folder and not hidden."""
    return {
        os.path.join(root, name)
        for root, _, names in os.walk(folder)
        for name in names
        if not any(part.startswith(".") for part in Path(root, name).relative_to(folder).parts)
    }


def with_changes(base: Path) -> Path:
    """Images in `base/images`, embedded into `base/store`; one of each kind of change since."""
    folder = scenes(base / "images", 6)
    (folder / "bad.jpg").write_bytes(make_images.TEXT)
    embed(folder, base / "store", shards=2)
    (folder / "0000.jpg").unlink()
    (folder / "0001.jpg").rename(folder / "moved.jpg")
    (folder / "0002.jpg").write_bytes(make_images.jpeg(seed=50))
    (folder / "new.jpg").write_bytes(make_images.jpeg(seed=51))
    (folder / "bad.jpg").write_bytes(make_images.truncated(make_images.jpeg()))
    return folder


class Dead(Exception):
    """Raised in place of whatever a killed process would have done next."""


def dies_after(monkeypatch: pytest.MonkeyPatch, steps: int, before: str = "\0") -> list[Any]:
    """Lets `steps` changes of the disk happen and none after; returns what counts the refused.

    Args:
        monkeypatch: takes the changes back.
        steps: number of changes.
        before: part of a path; the first change there does not happen either, and none after.
    """
    left, refused = [steps], []

    def dying(step: Any) -> Any:
        def call(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] < 0 or any(before in str(each) for each in arguments):
                left[0] = 0
                refused.append(arguments)
                raise Dead
            return step(*arguments)

        return call

    for name in ("move", "put_if_absent", "copy", "delete"):
        monkeypatch.setattr(local, name, dying(getattr(local, name)))
    return refused


def embed(
    folder: Path | str, store: Path | str, backbone: str = "", **options: Any
) -> EmbedSummary:
    """Embeds with the network that ships with the package; warnings are errors."""
    network = resolve(backbone or "efficientnet-lite0")
    warnings: list[str] = []
    summary = embed_images(
        [str(folder)], str(store), network, RunOptions(**options), warn=warnings.append
    )
    assert not warnings
    return summary


def cli(*arguments: Any) -> int:
    """The exit code of a command."""
    return main([str(a) for a in arguments])


def rows(table: Path | str) -> list[dict[str, Any]]:
    """The rows that a plain reader of Parquet sees, by uri, which has to be unique."""
    return _unique([p for p in Path(table).rglob("*.parquet") if not _is_private(p, table)])


def rejects(table: Path | str) -> dict[str, str]:
    """Error class by uri."""
    found = _unique(list(Path(table, "__rejects").rglob("*.parquet")))
    return {row["uri"]: row["error_class"] for row in found}


def labels(table: Path | str) -> dict[str, str | None]:
    """Label by path below the root."""
    return {row["relative_path"]: row["label"] for row in rows(table)}


def changed_rows(
    store: Path | str, before: int, after: int, backbone: str | None = None
) -> tuple[int, int, int]:
    """The rows added, removed and changed between two versions, by reading all of both.

    Args:
        store: the store.
        before: number of the first.
        after: number of the second.
        backbone: whose rows are meant, of a store with several; it may have none.
    """
    old, new = (_told(store, number, backbone) for number in (before, after))
    changed = sum(old[uri] != new[uri] for uri in old.keys() & new.keys())
    return len(new.keys() - old.keys()), len(old.keys() - new.keys()), changed


def _told(store: Path | str, number: int, backbone: str | None) -> dict[str, dict[str, Any]]:
    sections = read_version(str(store), number).sections.values()
    if backbone and not any(s.rows for s in sections if s.about["name"] == backbone):
        return {}
    table = beam_flowers.open_dataset(str(store), number, backbone)
    found = {row["uri"]: row for row in table.to_table(["uri", "sha256", "label"]).to_pylist()}
    assert len(found) == table.count_rows()
    return found


def _is_private(path: Path, table: Path | str) -> bool:
    return any(part.startswith((".", "__")) for part in path.relative_to(table).parts)


def _unique(parts: list[Path]) -> list[dict[str, Any]]:
    if not parts:
        return []
    found = pa.concat_tables([pq.ParquetFile(p).read() for p in parts]).sort_by("uri").to_pylist()
    assert len({row["uri"] for row in found}) == len(found), "a file has two rows"
    return found


def refusing(uri):
    """`files.read_bytes` that may not read one file."""
    read = files.read_bytes

    def read_bytes(path, limit=None):
        if path == uri:
            raise PermissionError(13, "Permission denied", path)
        return read(path, limit)

    return read_bytes
