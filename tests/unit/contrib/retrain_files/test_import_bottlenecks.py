"""retrain.py's text files become rows of a store; what cannot is a reject."""

import shlex
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from make_images import jpeg
from stores import cli, photos, rows

from beam_flowers.cli.import_bottlenecks import EXAMPLE
from beam_flowers.contrib.retrain_files import import_bottlenecks as module_under_test
from beam_flowers.contrib.retrain_files.import_bottlenecks import (
    ImportJob,
    backbone_of,
    fingerprint_of,
    import_bottlenecks,
    parse_name,
    parse_vector,
)
from beam_flowers.errors import ImageError, InputError

HUB = "https~tfhub.dev~google~imagenet~inception_v3~feature_vector~3"


@pytest.mark.parametrize(
    ("path", "image", "module"),
    [
        ("roses/1.jpg.txt", "roses/1.jpg", ""),
        ("roses/1.jpg_inception_v3.txt", "roses/1.jpg", "inception_v3"),
        ("roses/1.JPG_mobilenet_1.0_224.txt", "roses/1.JPG", "mobilenet_1.0_224"),
        (f"roses/1.png_{HUB}.txt", "roses/1.png", HUB),
        ("roses/a.jpg_copy.jpeg_x.txt", "roses/a.jpg_copy.jpeg", "x"),
        ("roses/a b [1]_nohash_2.jpg_x.txt", "roses/a b [1]_nohash_2.jpg", "x"),
        ("1.jpg_x.txt", "1.jpg", "x"),
    ],
)
def test_the_name_of_a_text_file(path, image, module):
    assert parse_name(path) == (image, module)


@pytest.mark.parametrize("path", ["roses/notes.txt", "roses/1.jpg", "roses/.jpg.txt", "1.jpg_.txt"])
def test_names_that_retrain_did_not_write(path):
    assert parse_name(path) is None


def test_numbers_are_read_as_retrain_read_them():
    text = "0.1,1e-05, 3.4028234e+38,0.0,16777217\n"
    expected = np.array([float(word) for word in text.split(",")]).astype(np.float32)
    assert parse_vector(text.encode()).tolist() == expected.tolist()
    assert parse_vector(b"1").dtype == np.float32


@pytest.mark.parametrize(
    ("data", "error_class", "message"),
    [
        (b"", "EmptyFile", "no number"),
        (b" \n", "EmptyFile", "no number"),
        (b"1,2,x3", "NotNumbers", "number 3 of 3 is 'x3'"),
        (b"1,,2", "NotNumbers", "number 2 of 3 is ''"),
        (b"1,2.", "", ""),
        (b"1,\xff\x00", "NotNumbers", "number 2 of 2"),
        (b"1,nan", "NotFinite", "number 2 of 2 is 'nan'"),
        (b"1e99,2", "NotFinite", "number 1 of 2 is '1e99'"),
    ],
)
def test_numbers_that_are_none(data, error_class, message):
    if not error_class:
        assert parse_vector(data).tolist() == [1, 2]
        return
    with pytest.raises(ImageError, match=f"{error_class}: .*{message}"):
        parse_vector(data)


def test_networks_have_names_and_fingerprints_of_their_own():
    assert backbone_of("") == "imported"
    assert backbone_of("a+b c") == "imported-a-b-c"
    assert backbone_of(HUB) == f"imported-{HUB}"
    assert len({fingerprint_of(m) for m in ("", "inception_v3", HUB)}) == 3


def write_texts(images, folder, module="inception_v3", length=8):
    """A text file for each image; gives the vectors by the images' names."""
    random, vectors = np.random.default_rng(0), {}
    labels = sorted(p.name for p in images.iterdir())
    for image in sorted(images.glob("*/*")):
        vector = random.random(length, np.float32)
        vector[labels.index(image.parent.name)] += 3
        name = image.name + (f"_{module}" if module else "")
        (folder / image.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / image.parent.name / f"{name}.txt").write_text(",".join(map(str, vector)))
        vectors[str(image)] = vector
    return vectors


@pytest.fixture
def given(tmp_path):
    """Images, their text files and the vectors in them."""
    images = photos(tmp_path / "images", 4)
    return images, tmp_path / "texts", write_texts(images, tmp_path / "texts")


def rejects(store):
    found = pq.read_table(f"{store}/__rejects").to_pylist()
    return {row["uri"].rpartition("/")[2]: (row["error_class"], row["message"]) for row in found}


@pytest.mark.slow
def test_rows_have_the_images_columns_and_the_texts_vectors(given, tmp_path):
    images, texts, vectors = given
    store = tmp_path / "s"
    found = import_bottlenecks(ImportJob(str(texts), str(images), str(store)))
    assert (found.reused, found.rejected, found.total) == (20, 0, 20)
    imported = {row["uri"]: row for row in rows(store)}
    assert {uri: row["vector"] for uri, row in imported.items()} == {
        uri: vector.tolist() for uri, vector in vectors.items()
    }
    assert cli("embed", images, "--store", tmp_path / "own", "--progress", "none") == 0
    for own in rows(tmp_path / "own"):
        same = {k for k in own if k not in ("fingerprint", "vector")}
        assert {k: imported[own["uri"]][k] for k in same} == {k: own[k] for k in same}
        assert imported[own["uri"]]["fingerprint"] == fingerprint_of("inception_v3")


def test_what_gives_no_row_is_rejected_with_its_reason(given, tmp_path):
    images, texts, _ = given
    names = sorted((texts / "roses").iterdir())
    contents = {"empty": b"", "short": b"1,2,3", "word": b"1,2,3,4,5,6,7,oops", "nan": b"nan," * 8}
    bad = dict(zip(contents, names, strict=True))
    for kind, data in contents.items():
        bad[kind].write_bytes(data)
    tulips = sorted((texts / "tulips").iterdir())
    (images / "tulips" / tulips[0].name.removesuffix("_inception_v3.txt")).unlink()
    (images / "tulips" / tulips[1].name.removesuffix("_inception_v3.txt")).write_bytes(b"broken")
    (texts / "tulips" / "notes.md").write_text("mine")
    (texts / "tulips" / ".hidden_inception_v3.txt").write_text("1")
    store = tmp_path / "s"
    found = import_bottlenecks(ImportJob(str(texts), str(images), str(store)))
    assert (found.reused, found.rejected, found.hidden, found.total) == (14, 7, 1, 22)
    assert len(rows(store)) == found.reused
    told = rejects(store)
    assert len(told) == found.rejected == sum(found.reasons.values())
    assert told[bad["empty"].name] == ("EmptyFile", "the text file holds no number")
    assert told[bad["short"].name] == ("WrongLength", "3 numbers, where others have 8")
    assert told[bad["word"].name] == ("NotNumbers", "number 8 of 8 is 'oops'")
    assert told[bad["nan"].name][0] == "NotNumbers"
    assert told[tulips[0].name][0] == "NoImage"
    assert told[tulips[0].name][1].endswith(tulips[0].name.removesuffix("_inception_v3.txt"))
    assert told[tulips[1].name][0] == "NotAnImage"
    assert told["notes.md"][0] == "NotABottleneck"


def test_a_second_import_replaces_the_first(given, tmp_path):
    images, texts, _ = given
    job = ImportJob(str(texts), str(images), str(tmp_path / "s"))
    gone = sorted((images / "roses").iterdir())[0]
    gone.rename(tmp_path / "aside.jpg")
    first = import_bottlenecks(job)
    assert (first.reused, first.rejected) == (19, 1)
    shutil.move(tmp_path / "aside.jpg", gone)
    second = import_bottlenecks(job)
    assert (second.reused, second.rejected) == (20, 0)
    assert len(rows(tmp_path / "s")) == 20
    assert not list((tmp_path / "s" / "__rejects").rglob("*.parquet"))
    assert import_bottlenecks(job).dataset_hash == second.dataset_hash


def test_parts_are_cut_and_the_length_is_that_of_the_store(given, tmp_path, monkeypatch):
    images, texts, _ = given
    monkeypatch.setattr(module_under_test, "ROWS", 6)
    job = ImportJob(str(texts), str(images), str(tmp_path / "s"))
    assert import_bottlenecks(job).reused == 20
    assert len(list((tmp_path / "s").glob("backbone=*/*.parquet"))) == 4
    others = photos(tmp_path / "other", 1)
    write_texts(others, tmp_path / "other texts", length=9)
    further = import_bottlenecks(ImportJob(str(tmp_path / "other texts"), str(others), job.store))
    assert (further.reused, further.reasons) == (0, {"WrongLength": 5})
    assert len(rows(job.store)) == 20


def test_corrected_texts_of_another_length_replace_the_rows_they_correct(given, tmp_path):
    images, texts, _ = given
    job = ImportJob(str(texts), str(images), str(tmp_path / "s"))
    import_bottlenecks(job)
    write_texts(images, texts, length=9)
    assert (import_bottlenecks(job).reused, len(rows(job.store))) == (20, 20)
    assert {len(row["vector"]) for row in rows(job.store)} == {9}


def test_a_text_that_went_bad_takes_its_old_row_along(given, tmp_path):
    images, texts, _ = given
    job = ImportJob(str(texts), str(images), str(tmp_path / "s"))
    import_bottlenecks(job)
    bad, *_ = sorted((texts / "roses").iterdir())
    bad.write_text("oops")
    gone, *_ = sorted((images / "tulips").iterdir())
    gone.unlink()
    assert import_bottlenecks(job).rejected == 2
    assert len(rejects(job.store)) == 2
    left = {row["uri"] for row in rows(job.store)}
    kept = str(images / "roses" / bad.name.removesuffix("_inception_v3.txt"))
    assert len(left) == 18
    assert not left & {str(gone), kept}


def test_several_networks_have_to_be_chosen_from(given, tmp_path):
    images, texts, _ = given
    write_texts(images, texts, "mobilenet_1.0_224", 5)
    write_texts(images, texts, "", 6)
    job = ImportJob(str(texts), str(images), str(tmp_path / "s"))
    with pytest.raises(InputError, match=r"--module: .*'inception_v3' .20 files.") as error:
        import_bottlenecks(job)
    assert "'mobilenet_1.0_224' (20 files)" in str(error.value)
    assert "'' (20 files)" in str(error.value)
    for name, length in {"mobilenet_1.0_224": 5, "": 6}.items():
        store = tmp_path / f"store {name}"
        found = import_bottlenecks(ImportJob(str(texts), str(images), str(store), name))
        assert (found.reused, found.others, found.total) == (20, 40, 60)
        assert {len(row["vector"]) for row in rows(store)} == {length}
    with pytest.raises(InputError, match=r"is of the module 'x'; has .*'inception_v3'"):
        import_bottlenecks(ImportJob(str(texts), str(images), str(tmp_path / "s"), "x"))


def test_folders_without_anything_to_import(tmp_path):
    (tmp_path / "empty").mkdir()
    empty = str(tmp_path / "empty")
    with pytest.raises(InputError, match=r"holds no text file of retrain.py, such as"):
        import_bottlenecks(ImportJob(empty, empty, str(tmp_path / "s")))
    with pytest.raises(InputError, match="'absent' is no folder"):
        import_bottlenecks(ImportJob("absent", empty, str(tmp_path / "s")))
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_the_example_of_help_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_texts(photos(tmp_path / "photos", 2), tmp_path / "bottlenecks")
    assert cli(*shlex.split(EXAMPLE)[1:]) == 0
    assert "imported 10, rejected 0" in capsys.readouterr().out


@pytest.mark.slow
def test_imported_rows_are_trained_on_evaluated_and_scored_but_no_image_is(given, tmp_path, capsys):
    images, texts, _ = given
    (images / "roses" / "new.jpg").write_bytes(jpeg())
    store, model = tmp_path / "s", tmp_path / "m"
    assert cli("import-bottlenecks", texts, "--images", images, "--store", store) == 0
    said = capsys.readouterr().out
    assert "imported 20, rejected 0, hidden 0, of 20" in said
    assert f"next: beam-flowers train {store} --backbone imported-inception_v3" in said
    assert cli("train", store, "--backbone", "imported-inception_v3", "--model", model) == 0
    assert cli("evaluate", store, "--model", model, "--output", tmp_path / "e", "--folds", 0) == 0
    assert cli("score", store, "--model", model, "--output", tmp_path / "o.parquet") == 0
    assert pq.read_table(tmp_path / "o.parquet").num_rows == 20
    capsys.readouterr()
    assert cli("score", images, "--model", model, "--output", tmp_path / "p.csv") == 1
    assert "taken over from retrain.py's text files" in capsys.readouterr().err
    assert not (tmp_path / "p.csv").exists()
