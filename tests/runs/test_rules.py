"""What a changed rule of decoding does to a store that was made by the old one."""

import io
import shutil
import sys

import bmps
import make_images
import pytest
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import TiffImageFile
from raws import RAWS
from stores import cli, embed, photos, refusing, rejects, rows

from beam_flowers import files
from beam_flowers.backbones import compute
from beam_flowers.backbones.resolve import resolve
from beam_flowers.errors import ImageError
from beam_flowers.images import heif
from beam_flowers.images.decode import decode
from beam_flowers.images.rules import RULES
from beam_flowers.store.commits import latest, versions
from beam_flowers.workflows.embed import RunOptions, embed_images

REFUSED, ACCEPTED = make_images.png(seed=5), make_images.png(seed=6)[:1500]
"""PNG files that the old rules refuse and accept, the other way round than those of today."""


def by_old_rules(data, recipe, limits):
    if data == REFUSED:
        raise ImageError("Undecodable", "PNG cannot be decoded: by the old rules")
    return decode(make_images.png(seed=6) if data == ACCEPTED else data, recipe, limits)


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A folder `images` and a `store` of it by the old rules."""
    for name in ("images", "images/rose", "other", "other/rose"):
        (tmp_path / name).mkdir()
    for seed in range(3):
        (tmp_path / "images" / "rose" / f"{seed}.jpg").write_bytes(make_images.jpeg(seed=seed))
        (tmp_path / "images" / "rose" / f"{seed}.png").write_bytes(make_images.png(seed=seed))
    shutil.copy(tmp_path / "images" / "rose" / "0.png", tmp_path / "images" / "rose" / "c.png")
    bad = {
        "refused.png": REFUSED,
        "accepted.png": ACCEPTED,
        "bad.png": make_images.png()[:900],
        "bad.jpg": make_images.jpeg()[:500],
        "text.txt": make_images.TEXT,
    }
    for name, data in bad.items():
        (tmp_path / "images" / "rose" / name).write_bytes(data)
    (tmp_path / "other" / "rose" / "refused.png").write_bytes(REFUSED)
    (tmp_path / "other" / "rose" / "sound.jpg").write_bytes(make_images.jpeg(seed=9))
    with monkeypatch.context() as patch:
        patch.setattr(compute, "decode_apart", by_old_rules)
        assert embed(tmp_path / "images", tmp_path / "store").rejected == 4
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


@pytest.mark.slow
def test_an_old_store_that_is_updated_equals_a_fresh_one(old, read, monkeypatch):
    before = {row["uri"]: row for row in rows(old / "store")}
    embed(old / "images", old / "store")
    assert read == []
    monkeypatch.setitem(RULES, "PNG", RULES["PNG"] + 1)
    summary = embed(old / "images", old / "store")
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
    embed(old / "images", old / "store")
    assert (read, versions(str(old / "store"))) == ([], number)
    # What was not listed is looked at when it is.
    assert str(old / "other" / "rose" / "refused.png") in rejects(old / "store")
    embed(old / "other", old / "store")
    assert read == ["refused.png"]
    for folder in ("images", "other"):
        embed(old / folder, old / "fresh")
    assert dataset_hash(old / "store") == dataset_hash(old / "fresh")
    read.clear()
    embed(old / "images", old / "store")
    assert read == []


@pytest.mark.slow
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
    monkeypatch.setitem(RULES, rule, RULES[rule] + 1)
    embed(old / "images", old / "store")
    assert sorted(set(read)) == expected


@pytest.mark.slow
def test_rows_and_rejects_that_are_written_again_stay_verdicts_of_the_old_rules(
    old, read, monkeypatch
):
    monkeypatch.setitem(RULES, "PNG", RULES["PNG"] + 1)
    for name in ("0.jpg", "bad.jpg"):
        (old / "images" / "rose" / name).write_bytes(make_images.jpeg(seed=8))
    embed(old / "images" / "rose" / "*.jpg", old / "store")
    read.clear()
    embed(old / "images", old / "store")
    assert sorted(set(read)) == PNGS


@pytest.mark.slow
def test_what_cannot_be_read_now_is_looked_at_by_the_next_run(old, read, monkeypatch):
    monkeypatch.setitem(RULES, "PNG", RULES["PNG"] + 1)
    with monkeypatch.context() as patch:
        patch.setattr(files, "read_bytes", refusing(str(old / "images" / "rose" / "refused.png")))
        network, said = resolve("efficientnet-lite0"), []
        images, options = [str(old / "images")], RunOptions()
        embed_images(images, str(old / "store"), network, options, warn=said.append)
        assert "1 file could not be read" in said[0]
        assert rejects(old / "store")[str(old / "images/rose/refused.png")] == "Undecodable"
    read.clear()
    embed(old / "images", old / "store")
    assert read == ["refused.png"]
    assert str(old / "images/rose/refused.png") not in rejects(old / "store")


@pytest.mark.slow
def test_vectors_of_images_that_were_only_scored_are_no_source_either(old, read, monkeypatch):
    """The table of scored images was filled by the old rules, the collection is new."""
    shutil.move(old / "store", old / "scored")
    embed(old / "other" / "rose" / "refused.png", old / "store")
    shutil.move(old / "scored", old / "store" / "__scored")
    monkeypatch.setitem(RULES, "PNG", RULES["PNG"] + 1)
    embed(old / "images", old / "store")
    embed(old / "images", old / "fresh")
    mine = {r["uri"]: r["vector"] for r in rows(old / "store") if "/images/" in r["uri"]}
    assert mine == {r["uri"]: r["vector"] for r in rows(old / "fresh")}


@pytest.mark.slow
def test_scores_are_made_again_of_what_may_be_concerned(old, model, read, monkeypatch):
    score = ["score", old / "images", "--model", model, "--output"]
    with monkeypatch.context() as patch:
        patch.setattr(compute, "decode_apart", by_old_rules)
        assert cli(*score, old / "table") == 0
    read.clear()
    assert cli(*score, old / "table") == 0
    assert read == []
    monkeypatch.setitem(RULES, "PNG", RULES["PNG"] + 1)
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
    monkeypatch.setitem(RULES, "PNG", RULES["PNG"] + 1)
    assert cli(*score) == 0
    assert (read, versions(str(old / "table"))) == ([], number)


def flipped(name):
    """A PNG with a wrong bit in the first chunk of that name."""
    data = make_images.png(seed=20, pnginfo=texts())
    at = data.index(name) + 6
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def texts():
    info = PngInfo()
    info.add_text("Author", "somebody")
    return info


def fax_without_its_end():
    data = make_images.saved(
        make_images.scene(64, 48).convert("1"), "TIFF", compression="group4", strip_size=2**20
    )
    tags = TiffImageFile(io.BytesIO(data)).tag_v2
    start, size = tags[273][0], tags[279][0]
    return data[: start + size // 2] + bytes(size - size // 2) + data[start + size :]


FORMATS = make_images.each_format()

OLD_VERDICTS = {
    "text.png": (flipped(b"tEXt"), "Undecodable", "PNG cannot be decoded: bad header checksum"),
    "pixels.png": (flipped(b"IDAT"), "", ""),
    "end.jpg": (make_images.jpeg(seed=21)[:-2], "Truncated", "JPEG ends before its image does"),
    "huge.jpg": (make_images.flat_jpeg(16_320, 12_288), "TooManyPixels", "16320 x 12288 is"),
    "fax.tif": (fax_without_its_end(), "", ""),
    "camera.nef": (RAWS["NEF"], "", ""),
    "camera.dng": (RAWS["DNG"], "Truncated", "TIFF ends before its image does"),
    "rle.bmp": (bmps.bmp(b"\3\x12\0\1", 4, compression=2, colours=16, width=3, height=1), "", ""),
    "masks.bmp": (bmps.variants()["16 masks f00 f0 f header 40"][0], "Undecodable", "BMP cannot"),
    "short.bmp": (bmps.variants()["palette 8 header 16"][0], "NotAnImage", "not an image"),
    "new.avif": (FORMATS["AVIF"], "UnsupportedFormat", "AVIF is not read: convert it"),
    "new.jp2": (FORMATS["JPEG2000"], "UnsupportedFormat", "JPEG 2000 is not read: convert it"),
    "phone.heic": (FORMATS["HEIC"], "UnsupportedFormat", "HEIC is not read: convert it"),
    "brand.heic": (FORMATS["HEIC"].replace(b"heic", b"mif2", 1), "NotAnImage", "not an image"),
    "long.pgm": (b"P5 65536 1 255\n" + bytes(65536), "", ""),
}
"""Files with the class and the beginning of the message that version 0.2 gave, none if it took
them."""


def by_the_rules_of_0_2(data, recipe, limits):
    for content, error_class, message in OLD_VERDICTS.values():
        if content == data:
            if error_class:
                raise ImageError(error_class, message)
            starts = {b"\x89P": "PNG", b"BM": "BMP", b"II": "TIFF", b"MM": "TIFF", b"P5": "PPM"}
            shown = decode(make_images.png(seed=6), recipe, limits)
            return shown._replace(format=starts[data[:2]])
    return decode(data, recipe, limits)


@pytest.mark.slow
def test_a_store_of_version_0_2_that_is_updated_equals_a_fresh_one(tmp_path, monkeypatch, read):
    folder = photos(tmp_path / "images", 1)
    (folder / "rose").mkdir()
    for name, (data, *_) in OLD_VERDICTS.items():
        (folder / "rose" / name).write_bytes(data)
    (folder / "rose" / "sound.gif").write_bytes(make_images.each_format()["GIF"])
    with monkeypatch.context() as patch:
        patch.setattr(compute, "decode_apart", by_the_rules_of_0_2)
        for name in RULES:
            patch.setitem(RULES, name, 1)
        embed(folder, tmp_path / "store")
    refused = {
        uri.rpartition("/")[2]: reason for uri, reason in rejects(tmp_path / "store").items()
    }
    assert refused == {name: c for name, (_, c, _) in OLD_VERDICTS.items() if c}
    read.clear()
    embed(folder, tmp_path / "store")
    assert set(read) == set(OLD_VERDICTS)
    embed(folder, tmp_path / "fresh")
    assert rejects(tmp_path / "store") == rejects(tmp_path / "fresh")
    assert dataset_hash(tmp_path / "store") == dataset_hash(tmp_path / "fresh")
    refused = {
        uri.rpartition("/")[2]: reason for uri, reason in rejects(tmp_path / "store").items()
    }
    assert refused == {
        "pixels.png": "Undecodable",
        "fax.tif": "Undecodable",
        "camera.nef": "UnsupportedFormat",
        "camera.dng": "UnsupportedFormat",
        "rle.bmp": "UnsupportedFormat",
        "long.pgm": "TooManyPixels",
    }


def test_a_store_made_without_an_extra_equals_a_fresh_one_once_it_is_installed(
    tmp_path, monkeypatch, read
):
    folder = tmp_path / "images" / "rose"
    folder.mkdir(parents=True)
    (folder / "sound.jpg").write_bytes(make_images.jpeg())
    (folder / "phone.heic").write_bytes(FORMATS["HEIC"])
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", None)
        patch.setattr(compute, "decode_apart", decode)
        heif._heif.cache_clear()
        embed(folder, tmp_path / "store")
        read.clear()
        assert embed(folder, tmp_path / "store").reasons == {"UnsupportedFormat": 1}
        assert read == []
    heif._heif.cache_clear()
    assert embed(folder, tmp_path / "store").embedded == 1
    assert read == ["phone.heic"]
    embed(folder, tmp_path / "fresh")
    assert rejects(tmp_path / "store") == {}
    assert dataset_hash(tmp_path / "store") == dataset_hash(tmp_path / "fresh")
