"""What `doctor` finds in collections, and that it finds nothing in a sound one."""

import json
import re

import numpy as np
import pytest
from make_images import bad_files, cmyk_jpeg, grey16, jpeg, oriented, saved, scene
from PIL import Image
from stores import cli, photos

from beam_flowers.doctor import facts as doctor_facts
from beam_flowers.doctor.near import MOST_BITS, groups_alike
from beam_flowers.pages.collection_sections import diagnosis_page
from beam_flowers.workflows.doctor import diagnose


def write(folder, **images):
    """`label__name_ext=bytes` → label/name.ext below the folder."""
    for name, data in images.items():
        label, _, file = name.partition("__")
        place = folder / label / file.replace("_", ".")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return folder


def kinds(folder, **options):
    return {f.kind: f for f in diagnose([str(folder)], **options).findings}


def names(finding):
    return [[uri.rpartition("/")[2] for uri in group] for group in finding.groups]


def test_nothing_is_wrong_with_the_photographs(tmp_path):
    diagnosis = diagnose([str(photos(tmp_path / "images"))], splits=1)
    assert {f.kind for f in diagnosis.findings} <= {"small-class"}
    assert all(usable and not bad for _, usable, _, bad in diagnosis.counts())


@pytest.mark.parametrize(
    ("kind", "severity", "data"),
    [
        ("rotated", "note", oriented(scene(200, 160), 6)),
        ("cmyk", "note", cmyk_jpeg(scene(200, 160))),
        ("16-bit", "note", grey16(np.full((90, 90), 30_000, np.uint16), "PNG")),
        ("alpha", "note", saved(scene(200, 160).convert("RGBA"), "PNG")),
        ("wrong-extension", "note", saved(scene(200, 160), "PNG")),
        ("tiny", "warning", jpeg(200, 63)),
        ("extreme-shape", "warning", jpeg(400, 100)),
    ],
)
def test_a_image_out_of_the_ordinary(tmp_path, kind, severity, data):
    found = kinds(write(tmp_path, a__plain_jpg=jpeg(200, 160, 7), a__odd_jpg=data))
    assert (found[kind].severity, names(found[kind])) == (severity, [["odd.jpg"]])


def test_a_image_of_one_colour_is_blank_and_like_no_other(tmp_path):
    folder = write(
        tmp_path,
        a__1_jpg=saved(Image.new("RGB", (90, 90), "black"), "JPEG"),
        a__2_png=saved(Image.new("RGB", (200, 90), "teal"), "PNG"),
        a__3_jpg=jpeg(90, 90, 1),
    )
    found = kinds(folder)
    assert names(found["blank"]) == [["1.jpg"], ["2.png"]]
    assert "alike" not in found


def test_a_stray_text_is_a_note_and_a_image_that_is_none_a_warning(tmp_path):
    folder = write(tmp_path, a__ok_jpg=jpeg(), a__page_jpg=b"<html>", a__notes_txt=b"to do")
    unusable = [f for f in diagnose([str(folder)]).findings if f.kind == "unusable"]
    assert [(f.severity, f.error_class, names(f)) for f in unusable] == [
        ("warning", "NotAnImage", [["page.jpg"]]),
        ("note", "NotAnImage", [["notes.txt"]]),
    ]


def test_sound_jpegs_have_no_traits(tmp_path):
    """Offsets in a file that happen to hold the digits 16 are no depth."""
    folder = write(tmp_path, **{f"a__{n}_jpg": jpeg(160, 116 + n, n) for n in range(30)})
    assert set(kinds(folder)) == {"one-class"}


def test_what_will_be_rejected_is_named_with_its_reason(tmp_path):
    (tmp_path / "a").mkdir()
    for name, data in bad_files().items():
        (tmp_path / "a" / name).write_bytes(data)
    diagnosis = diagnose([str(write(tmp_path, b__good_jpg=jpeg(200, 160)))])
    unusable = [f for f in diagnosis.findings if f.kind == "unusable"]
    assert sum(f.files for f in unusable) == len(bad_files())
    assert any("Truncated" in f.message and f.severity == "warning" for f in unusable)
    assert ("a", 0, 0, len(bad_files())) in diagnosis.counts()


def test_copies_and_their_labels(tmp_path):
    data = jpeg(300, 200, 1)
    found = kinds(
        write(tmp_path, a__1_jpg=data, a__2_jpg=data, b__3_jpg=jpeg(300, 200, 2), c__4_jpg=data)
    )
    assert found["two-labels"].severity == "warning"
    assert names(found["two-labels"]) == [["1.jpg", "2.jpg", "4.jpg"]]


def test_images_that_look_alike(tmp_path):
    pytest.importorskip("imagehash")
    better, worse = jpeg(400, 300, 3), jpeg(200, 150, 3, quality=40)
    found = kinds(write(tmp_path, a__1_jpg=better, a__2_jpg=worse, a__3_jpg=jpeg(400, 300, 9)))
    assert names(found["alike"]) == [["1.jpg", "2.jpg"]]
    found = kinds(write(tmp_path, b__4_jpg=worse))
    assert names(found["alike-two-labels"]) == [["1.jpg", "2.jpg", "4.jpg"]]


def test_without_the_package_it_says_what_was_not_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_facts, "find_spec", lambda name: None)
    found = kinds(write(tmp_path, a__1_jpg=jpeg(400, 300)))
    assert "pip install 'beam-flowers[doctor]'" in found["not-checked"].message


def test_classes(tmp_path):
    folder = write(tmp_path, a__1_jpg=jpeg(90, 90, 1), Rose__2_jpg=jpeg(90, 90, 2))
    write(folder, rose__3_jpg=jpeg(90, 90, 3), b__torn_jpg=jpeg(90, 90)[:200])
    (folder / "empty").mkdir()
    found = [(f.kind, f.severity) for f in diagnose([str(folder)]).findings]
    assert found.count(("empty-class", "error")) == 2
    assert ("colliding-labels", "error") in found
    assert found.count(("small-class", "error")) == 3


def test_splits_that_nobody_asks_for_need_no_images(tmp_path):
    folder = write(tmp_path, a__1_jpg=jpeg(90, 90, 1), b__2_jpg=jpeg(90, 90, 2))
    assert kinds(folder, splits=1)["small-class"].severity == "warning"


def test_split_folders_are_no_classes(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / split, a__1_jpg=jpeg(90, 90, 1), b__2_jpg=jpeg(90, 90, 2))
    assert "empty-class" not in kinds(tmp_path)


def test_the_command(tmp_path, capsys):
    folder = write(tmp_path / "p", a__1_jpg=jpeg(90, 90, 1), b__2_jpg=jpeg(90, 90, 2))
    assert cli("doctor", folder, "--output", tmp_path / "d.json") == 0
    printed = capsys.readouterr().out
    assert "error: class 'a' has 1 different image;" in printed
    assert "2 files, 0 hidden: 2 errors, 0 warnings, 0 notes" in printed
    document = json.loads((tmp_path / "d.json").read_text())
    assert document["labels"][0] == {"label": "a", "images": 1, "copies": 0, "unusable": 0}
    assert cli("doctor", folder, "--fail-on", "error") == 1
    assert cli("doctor", folder, "--fail-on", "error", "--testing-percentage", "0") == 1
    (tmp_path / "none").mkdir()
    assert cli("doctor", tmp_path / "none") == 1
    assert "there is no file in" in capsys.readouterr().err


def test_the_page_shows_each_finding_with_its_images(tmp_path, capsys):
    pytest.importorskip("vl_convert", reason="the report's extra is not installed")
    data, hostile = jpeg(300, 200, 1), "<script>alert(1)<"
    folder = write(tmp_path / "p", a__1_jpg=data, a__2_jpg=data, b__3_jpg=jpeg(300, 200, 2))
    write(folder, b__torn_jpg=jpeg()[:200], **{f"{hostile}__4_jpg": data})
    page, found = tmp_path / "d.HTML", tmp_path / "d.json"
    assert cli("doctor", folder, "--output", page, "--output", found, "--thumbnails", 3) == 0
    assert f"page: {page}\nfindings: {found}\nnext: " in capsys.readouterr().out
    html = page.read_text()
    assert f"label {hostile}" not in html
    shown = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    cards = shown["sections"]["same-bytes-two-labels"]
    assert (len(cards["cards"]), cards["groups"]) == (3, [3])
    assert {head for _, head, _ in cards["cards"]} == {"a", hostile}
    images = {image["name"].rpartition("/")[2]: image for image in shown["images"]}
    assert images["1.jpg"]["thumb"].startswith("data:image/webp;base64,")
    assert (images["torn.jpg"]["thumb"], images["torn.jpg"]["problem"][:4]) == (None, "JPEG")
    assert html.count('href="#same-bytes-two-labels"') == 2


def test_a_page_of_many_copies_shows_some_of_them(tmp_path):
    pytest.importorskip("vl_convert", reason="the report's extra is not installed")
    data = jpeg(90, 90)
    copies = {f"a__{i}_jpg": data for i in range(20)}
    found = diagnose([str(write(tmp_path / "p", b__x_jpg=jpeg(90, 90, 5), **copies))])
    page = diagnosis_page(found.findings, found.files, found.counts(), [])
    gallery = next(s for s in page.sections if s.id == "copies")
    assert (len(gallery.cards), gallery.total, gallery.groups) == (12, 20, [12])
    assert "Shown are 12 of 20" in gallery.note


def test_alike_is_what_a_comparison_of_all_pairs_says():
    generator = np.random.default_rng(0)
    centres = generator.integers(0, 2**64, 60, np.uint64)
    flips = [np.uint64(1) << generator.integers(0, 64, MOST_BITS, np.uint64) for _ in centres]
    near = centres ^ np.array([np.bitwise_or.reduce(f) for f in flips])
    looks = np.concatenate([centres, near]).tolist()
    expected = sorted([i, i + 60] for i in range(60))
    assert sorted(groups_alike(looks)) == expected
    assert groups_alike([]) == []
    assert groups_alike([5, 5, 2**40 - 1]) == [[0, 1]]


def test_the_table_stands_in_columns_whatever_the_script(tmp_path, capsys):
    names = ["rose", "蔷薇蔷薇", "e\u0301glantine", "b\u0007ell"]
    folder = write(tmp_path / "in", **{f"{name}__1_jpg": jpeg(64, 64) for name in names})
    cli("doctor", folder)
    lines = capsys.readouterr().out.splitlines()[: len(names) + 1]
    wide = {"蔷": 4, "\u0301": -1}  # Columns of a terminal more than characters.
    shifts = [next((s for c, s in wide.items() if c in line), 0) for line in lines]
    ends = {len(line) + shift for line, shift in zip(lines, shifts, strict=True)}
    assert len(lines) == len(names) + 1
    assert len(ends) == 1
