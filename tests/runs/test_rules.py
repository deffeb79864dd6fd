"""What a changed rule of decoding does to a store that was made by the old one."""

import shutil

import pictures
import pytest
from stores import cli, embed, photos, refusing, rejects, rows

from beam_flowers import files
from beam_flowers.backbones import compute
from beam_flowers.backbones.resolve import resolve
from beam_flowers.errors import PictureError
from beam_flowers.images.decode import decode
from beam_flowers.images.rules import RULES
from beam_flowers.store.commits import latest, versions
from beam_flowers.workflows.embed import RunOptions, embed_images

REFUSED, ACCEPTED = pictures.png(seed=5), pictures.png(seed=6)[:1500]
"""PNG files that the old rules refuse and accept, the other way round than those of today."""


def by_old_rules(data, recipe, limits):
    if data == REFUSED:
        raise PictureError("Undecodable", "PNG cannot be decoded: by the old rules")
    return decode(pictures.png(seed=6) if data == ACCEPTED else data, recipe, limits)


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A folder `pictures` and a `store` of it by the old rules."""
    for name in ("pictures", "pictures/rose", "other", "other/rose"):
        (tmp_path / name).mkdir()
    for seed in range(3):
        (tmp_path / "pictures" / "rose" / f"{seed}.jpg").write_bytes(pictures.jpeg(seed=seed))
        (tmp_path / "pictures" / "rose" / f"{seed}.png").write_bytes(pictures.png(seed=seed))
    shutil.copy(tmp_path / "pictures" / "rose" / "0.png", tmp_path / "pictures" / "rose" / "c.png")
    bad = {
        "refused.png": REFUSED,
        "accepted.png": ACCEPTED,
        "bad.png": pictures.png()[:900],
        "bad.jpg": pictures.jpeg()[:500],
        "text.txt": pictures.TEXT,
    }
    for name, data in bad.items():
        (tmp_path / "pictures" / "rose" / name).write_bytes(data)
    (tmp_path / "other" / "rose" / "refused.png").write_bytes(REFUSED)
    (tmp_path / "other" / "rose" / "sound.jpg").write_bytes(pictures.jpeg(seed=9))
    with monkeypatch.context() as patch:
        patch.setattr(compute, "decode_apart", by_old_rules)
        assert embed(tmp_path / "pictures", tmp_path / "store").rejected == 4
        embed(tmp_path / "other", tmp_path / "store")
    return tmp_path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of the five flowers."""
    base = tmp_path_factory.mktemp("model")
    embed(photos(base / "photos", 4), base / "store")
    assert cli("train", base / "store", "--model", base / "model") == 0
    return base / "model"


@pytest.fixture
def read(monkeypatch):
    """Names of the images that are read."""
    names, read_bytes = [], files.read_bytes

    def noted(uri, limit=None):
        if "/rose/" in uri:
            names.append(uri.rpartition("/")[2])
        return read_bytes(uri, limit)

    monkeypatch.setattr(files, "read_bytes", noted)
    return names


PNGS = ["0.png", "1.png", "2.png", "accepted.png", "bad.png", "c.png", "refused.png"]


def dataset_hash(store):
    return latest(str(store)).sections.popitem()[1].dataset_hash


def test_an_old_store_that_is_updated_equals_a_fresh_one(old, read, monkeypatch):
    before = {row["uri"]: row for row in rows(old / "store")}
    embed(old / "pictures", old / "store")
    assert read == []
    monkeypatch.setitem(RULES, "PNG", 2)
    summary = embed(old / "pictures", old / "store")
    assert sorted(set(read)) == PNGS
    assert summary.rejected == 4
    assert summary.reasons == {"NotAnImage": 1, "Truncated": 3}
    after = {row["uri"]: row for row in rows(old / "store")}
    changed = {uri.rpartition("/")[2] for uri in {*before, *after} if uri in before} - {
        uri.rpartition("/")[2] for uri, row in after.items() if row == before.get(uri)
    }
    assert changed == {"accepted.png"}
    read.clear()
    number = versions(str(old / "store"))
    embed(old / "pictures", old / "store")
    assert (read, versions(str(old / "store"))) == ([], number)
    # What was not listed is looked at when it is.
    assert str(old / "other" / "rose" / "refused.png") in rejects(old / "store")
    embed(old / "other", old / "store")
    assert read == ["refused.png"]
    for folder in ("pictures", "other"):
        embed(old / folder, old / "fresh")
    assert dataset_hash(old / "store") == dataset_hash(old / "fresh")
    read.clear()
    embed(old / "pictures", old / "store")
    assert read == []


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("JPEG", ["0.jpg", "1.jpg", "2.jpg", "bad.jpg"]),
        ("Truncated", ["bad.jpg", "bad.png"]),
        ("Undecodable", ["refused.png"]),
        ("NotAnImage", ["text.txt"]),
        ("GIF", []),
        ("EmptyFile", []),
    ],
)
def test_only_what_the_rule_speaks_of_is_read(old, read, monkeypatch, rule, expected):
    monkeypatch.setitem(RULES, rule, 2)
    embed(old / "pictures", old / "store")
    assert sorted(set(read)) == expected


def test_rows_and_rejects_that_are_written_again_stay_verdicts_of_the_old_rules(
    old, read, monkeypatch
):
    monkeypatch.setitem(RULES, "PNG", 2)
    for name in ("0.jpg", "bad.jpg"):
        (old / "pictures" / "rose" / name).write_bytes(pictures.jpeg(seed=8))
    embed(old / "pictures" / "rose" / "*.jpg", old / "store")
    read.clear()
    embed(old / "pictures", old / "store")
    assert sorted(set(read)) == PNGS


def test_what_cannot_be_read_now_is_looked_at_by_the_next_run(old, read, monkeypatch):
    monkeypatch.setitem(RULES, "PNG", 2)
    with monkeypatch.context() as patch:
        patch.setattr(files, "read_bytes", refusing(str(old / "pictures" / "rose" / "refused.png")))
        network, said = resolve("efficientnet-lite0"), []
        images, options = [str(old / "pictures")], RunOptions()
        embed_images(images, str(old / "store"), network, options, warn=said.append)
        assert "1 file could not be read" in said[0]
        assert rejects(old / "store")[str(old / "pictures/rose/refused.png")] == "Undecodable"
    read.clear()
    embed(old / "pictures", old / "store")
    assert read == ["refused.png"]
    assert str(old / "pictures/rose/refused.png") not in rejects(old / "store")


def test_vectors_of_images_that_were_only_scored_are_no_source_either(old, read, monkeypatch):
    """The table of scored images was filled by the old rules, the collection is new."""
    shutil.move(old / "store", old / "scored")
    embed(old / "other" / "rose" / "refused.png", old / "store")
    shutil.move(old / "scored", old / "store" / "__scored")
    monkeypatch.setitem(RULES, "PNG", 2)
    embed(old / "pictures", old / "store")
    embed(old / "pictures", old / "fresh")
    mine = {r["uri"]: r["vector"] for r in rows(old / "store") if "/pictures/" in r["uri"]}
    assert mine == {r["uri"]: r["vector"] for r in rows(old / "fresh")}


def test_scores_are_made_again_of_what_may_be_concerned(old, model, read, monkeypatch):
    score = ["score", old / "pictures", "--model", model, "--output"]
    with monkeypatch.context() as patch:
        patch.setattr(compute, "decode_apart", by_old_rules)
        assert cli(*score, old / "table") == 0
    read.clear()
    assert cli(*score, old / "table") == 0
    assert read == []
    monkeypatch.setitem(RULES, "PNG", 2)
    assert cli(*score, old / "table") == 0
    assert "text.txt" not in read
    read.clear()
    assert cli(*score, old / "table") == 0
    assert read == []
    assert cli(*score, old / "again") == 0
    assert dataset_hash(old / "table") == dataset_hash(old / "again")


def test_scores_of_a_store_read_no_image_for_it(old, model, read, monkeypatch):
    score = ["score", old / "store", "--model", model, "--output", old / "table"]
    assert cli(*score) == 0
    number = versions(str(old / "table"))
    read.clear()
    monkeypatch.setitem(RULES, "PNG", 2)
    assert cli(*score) == 0
    assert (read, versions(str(old / "table"))) == ([], number)
