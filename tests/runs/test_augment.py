"""Runs of `embed --augment`: what is made, what stays, what leaves, where it lies."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make_images import jpeg
from stores import cli, embed, photos, rows, scenes

from beam_flowers.backbones.engine import load
from beam_flowers.backbones.resolve import resolve
from beam_flowers.contrib.augment.distort import (
    DEFAULT,
    Augmentation,
    Distortions,
    canvas_recipe,
    distort,
)
from beam_flowers.contrib.augment.job import augment_store
from beam_flowers.errors import InputError, StoreError
from beam_flowers.images.decode import decode_whole
from beam_flowers.store.commits import latest
from beam_flowers.store.vacuum import vacuum
from beam_flowers.workflows.embed import RunOptions, embed_images

LITE0 = resolve("efficientnet-lite0")


def augment(store, copies=2, distortions=DEFAULT, warnings=(), **options):
    """(computed, reused, rejected) of a run, which has to say `warnings`."""
    said = []
    augmentation, options = Augmentation(copies, distortions), RunOptions(**options)
    done = augment_store(str(store), LITE0, augmentation, options, warn=said.append)
    assert len(said) == len(warnings)
    assert all(word in line for word, line in zip(warnings, said, strict=True))
    assert done.computed + done.reused + done.rejected == done.copies * done.images
    return done.computed, done.reused, done.rejected


def copies(store):
    """The rows that a plain reader sees of the copies, by (uri, k), which are unique."""
    parts = sorted((store / "__augmented").glob("backbone=*/*.parquet"))
    table = pa.concat_tables([pq.ParquetFile(p).read() for p in parts])
    found = {(row["uri"], row["k"]): row for row in table.to_pylist()}
    assert len(found) == len(table)
    return found


def dataset_hash(store):
    (section,) = latest(str(store / "__augmented")).sections.values()
    return section.dataset_hash


@pytest.fixture(scope="module")
def made(original, tmp_path_factory):
    """The table of two copies of each of ten photographs."""
    store = tmp_path_factory.mktemp("made") / "store"
    shutil.copytree(original / "store", store)
    assert augment(store) == (20, 0, 0)
    return store / "__augmented"


@pytest.fixture
def augmented(made, work):
    """The store of ten photographs with that table in it, to be changed."""
    shutil.copytree(made, work / "store" / "__augmented")
    return work / "store"


def test_every_labelled_image_has_its_copies_apart_from_its_row(augmented, original):
    plain = rows(augmented)
    assert len(plain) == 10
    found = copies(augmented)
    assert set(found) == {(row["uri"], k) for row in plain for k in (1, 2)}
    columns = {c for c in plain[0] if c not in ("fingerprint", "vector")}
    for row in plain:
        for k in (1, 2):
            assert {c: found[row["uri"], k][c] for c in columns} == {c: row[c] for c in columns}
    vectors = np.array([found[row["uri"], k]["vector"] for row in plain for k in (1, 2)])
    assert len(np.unique(vectors, axis=0)) == 20


def test_a_copy_is_the_network_s_view_of_the_distorted_image(augmented):
    engine = load(LITE0)
    for (uri, k), row in list(copies(augmented).items())[:3]:
        data = Path(uri).read_bytes()
        canvas = decode_whole(data, canvas_recipe(engine.recipe, DEFAULT))
        sha = hashlib.sha256(data).hexdigest()
        pixels = distort(canvas, engine.recipe, DEFAULT, sha, k)
        assert np.array_equal(engine.embed(pixels[np.newaxis])[0], np.float32(row["vector"]))


def test_what_is_there_is_not_computed_again(augmented):
    version = latest(str(augmented / "__augmented")).version
    assert augment(augmented) == (0, 20, 0)
    assert latest(str(augmented / "__augmented")).version == version


def test_more_copies_leave_those_that_are_there_and_fewer_take_the_last_ones(augmented):
    two = copies(augmented)
    assert augment(augmented, 3) == (10, 20, 0)
    three = copies(augmented)
    assert {key: three[key] for key in two} == two
    assert Counter(k for _, k in three) == {1: 10, 2: 10, 3: 10}
    assert augment(augmented, 1) == (0, 10, 0)
    assert copies(augmented) == {key: row for key, row in two.items() if key[1] == 1}


def test_other_distortions_replace_the_copies(augmented):
    flips = Distortions(flip_left_right=True)
    said = ["other distortions, flip_left_right, random_crop 30"]
    assert augment(augmented, 2, flips, said) == (20, 0, 0)
    assert len(copies(augmented)) == 20
    assert augment(augmented, 2, flips) == (0, 20, 0)


def change(pictures):
    """Edits, moves, copies, adds, relabels and deletes images."""
    first, second = (sorted((pictures / name).iterdir()) for name in ("daisy", "roses"))
    first[0].write_bytes(jpeg(seed=1))
    first[1].rename(pictures / "daisy" / "moved.jpg")
    shutil.copy2(second[0], pictures / "tulips" / "copied.jpg")
    second[1].unlink()
    (pictures / "dandelion").rename(pictures / "Löwenzahn")
    (pictures / "Löwenzahn" / "new.jpg").write_bytes(jpeg(seed=2))
    (pictures / "loose.jpg").write_bytes(jpeg(seed=3))


@pytest.mark.slow
def test_changes_of_the_images_reach_the_copies_as_if_they_were_new(augmented, work, tmp_path):
    change(work / "images")
    warned = []
    embed_images([str(work / "images")], str(augmented), LITE0, warn=warned.append)
    assert len(warned) == 1
    # Computed are the edited and the new image; eight of the first ten are there or copied.
    assert augment(augmented) == (4, 18, 0)
    embed_images([str(work / "images")], str(tmp_path / "store"), LITE0, warn=warned.append)
    assert augment(tmp_path / "store") == (20, 2, 0)
    assert dataset_hash(augmented) == dataset_hash(tmp_path / "store")
    assert copies(augmented).keys() == copies(tmp_path / "store").keys()
    assert {row["label"] for row in copies(augmented).values()} >= {"Löwenzahn"}
    assert not any(uri.endswith("loose.jpg") for uri, _ in copies(augmented))


@pytest.mark.parametrize(
    "options",
    [
        {"shards": 3},
        {"pipeline": ["--direct_num_workers=2", "--direct_running_mode=multi_threading"]},
    ],
    ids=str,
)
def test_the_copies_do_not_depend_on_how_they_were_made(augmented, options):
    expected = dataset_hash(augmented)
    shutil.rmtree(augmented / "__augmented")
    assert augment(augmented, **options) == (20, 0, 0)
    assert dataset_hash(augmented) == expected


def test_what_a_killed_run_had_finished_is_taken_up(augmented):
    expected, table = dataset_hash(augmented), augmented / "__augmented"
    section = next(iter(latest(str(table)).sections.values()))
    shutil.rmtree(table)
    assert augment(augmented, shards=4) == (20, 0, 0)
    unfinished = table / "__work" / section.fingerprint[:16]
    unfinished.mkdir(parents=True, exist_ok=True)
    parts = sorted(table.glob("backbone=*/*.parquet"))
    done = 0
    for part in parts[1:]:
        done += pq.ParquetFile(part).metadata.num_rows
        part.rename(unfinished / f"part-{done:024x}.parquet")
    shutil.rmtree(parts[0].parent)
    shutil.rmtree(table / "__commits")
    assert augment(augmented) == (20 - done, done, 0)
    assert dataset_hash(augmented) == expected


def test_a_part_that_was_deleted_is_made_again(augmented):
    expected = dataset_hash(augmented)
    part = next((augmented / "__augmented").glob("backbone=*/*.parquet"))
    lost = pq.ParquetFile(part).metadata.num_rows
    part.unlink()
    warnings = ["is gone; its copies are made again"]
    assert augment(augmented, warnings=warnings) == (lost, 20 - lost, 0)
    assert dataset_hash(augmented) == expected


def test_files_that_changed_since_are_rejected_and_tried_again(work):
    store, roses = work / "store", sorted((work / "images" / "roses").iterdir())
    kept = [path.read_bytes() for path in roses]
    roses[0].write_bytes(kept[0] + b"more")
    roses[1].unlink()
    assert augment(store, warnings=["4 copies could not be made"]) == (16, 0, 4)
    tables = list((store / "__augmented" / "__rejects").rglob("*.parquet"))
    reasons = pa.concat_tables([pq.ParquetFile(p).read() for p in tables]).to_pylist()
    found = {(row["uri"], row["error_class"], row["message"].split(":")[0]) for row in reasons}
    errors = ("Changed", "FileNotFoundError")
    paths = zip(roses, errors, strict=True)
    assert found == {(str(p), e, f"copy {k}") for p, e in paths for k in (1, 2)}
    assert all(not reason.startswith("/tmp") for reason in (row["message"] for row in reasons))
    for path, data in zip(roses, kept, strict=True):
        path.write_bytes(data)
    assert augment(store) == (4, 16, 0)
    assert not list((store / "__augmented" / "__rejects").rglob("*.parquet"))


def test_a_copy_is_made_from_any_file_of_its_content(work):
    pictures, store = work / "images", work / "store"
    first = sorted((pictures / "roses").iterdir())[0]
    shutil.copy2(first, pictures / "roses" / "zz.jpg")
    embed(pictures, store)
    first.unlink()
    assert augment(store) == (20, 2, 0)


def test_images_without_labels_have_no_copies(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "loose.jpg").write_bytes(jpeg())
    assert embed(folder, tmp_path / "store").embedded == 1
    with pytest.raises(InputError, match=r"no image in .* has a label"):
        augment(tmp_path / "store")
    assert not (tmp_path / "store" / "__augmented").exists()


def test_a_store_without_the_backbone_s_vectors(tmp_path):
    with pytest.raises(StoreError, match="embed the images first"):
        augment(tmp_path / "store")


def test_vacuum_clears_both_tables_and_keeps_what_counts(augmented):
    augment(augmented, 1)
    table = augmented / "__augmented"
    leftover = table / "__work" / "0123456789abcdef" / f"part-{0:024x}.parquet"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"")
    before = copies(augmented), rows(augmented)
    found = vacuum(str(augmented), older_than=0, retention=0)
    assert str(leftover) in found.deleted
    assert len(list((table / "__commits").glob("*.json"))) == 2
    assert (copies(augmented), rows(augmented)) == before
    assert augment(augmented, 1) == (0, 10, 0)


def test_vacuum_leaves_copies_that_no_version_names(augmented):
    shutil.rmtree(augmented / "__augmented" / "__commits")
    found = vacuum(str(augmented), older_than=0, retention=0)
    published = list((augmented / "__augmented").rglob("*.parquet"))
    assert published
    assert {str(part) for part in published} == set(found.foreign)
    assert len(rows(augmented)) == 10


def test_another_encoding_writes_the_copies_again(augmented, work):
    expected = dataset_hash(augmented)
    embed_images([str(work / "images")], str(augmented), LITE0, encoding="plain")
    assert augment(augmented) == (0, 20, 0)
    assert dataset_hash(augmented) == expected
    for part in (augmented / "__augmented").glob("backbone=*/*.parquet"):
        footer = pq.ParquetFile(part).metadata.row_group(0)
        columns = map(footer.column, range(footer.num_columns))
        (vector,) = [c for c in columns if c.path_in_schema.startswith("vector")]
        assert "BYTE_STREAM_SPLIT" not in vector.encodings


def test_the_command(tmp_path, capsys):
    folder, store = photos(tmp_path / "images", 1), tmp_path / "store"
    command = ["embed", folder, "--store", store, "--augment", 1]
    assert cli(*command, "--random_brightness", 20, "--flip_left_right") == 0
    said = capsys.readouterr().out
    assert "\n1 distorted copies of 5 labelled images: computed 5, reused 0" in said
    (section,) = latest(str(store / "__augmented")).sections.values()
    chosen = {k: v for k, v in section.about["distortions"].items() if v and k != "rules"}
    assert chosen == {"random_brightness": 20, "flip_left_right": True}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--augment", "0"], "whole number >= 1 of copies, not 0"),
        (["--augment", "-1"], "whole number >= 1 of copies, not -1"),
        (["--augment", "two"], "--augment takes a whole number, not 'two'"),
        (["--augment", "1.5"], "--augment takes a whole number, not '1.5'"),
        (["--random_crop", "10"], "--random-crop distorts copies, and there are none"),
        (["--flip_left_right"], "--flip-left-right distorts copies, and there are none"),
        (["--augment", "1", "--random_crop", "200"], "--random-crop must be from 0 to 100"),
        (["--augment", "1", "--zoom-range", "nan"], "--zoom-range must be from 0 to 0.9"),
        (["--augment", "1", "--random_crop", "0"], "every copy would equal its image"),
    ],
    ids=str,
)
def test_flags_that_are_refused_before_any_work(tmp_path, capsys, flags, message):
    folder = photos(tmp_path / "images", 1)
    try:
        code = cli("embed", folder, "--store", tmp_path / "store", *flags)
    except SystemExit as end:
        code = end.code
    assert code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_kill_9_in_the_middle_of_the_copies(tmp_path):
    folder, store = scenes(tmp_path / "images" / "label", 60).parent, tmp_path / "store"
    command = [sys.executable, "-m", "beam_flowers.cli.main", "embed", str(folder)]
    command += ["--store", str(store), "--augment", "2", "--shards", "30"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    unfinished, deadline = "__augmented/__work/run-*/*/part-*.parquet", time.monotonic() + 300
    while len(list(store.glob(unfinished))) < 2:
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not list(store.glob("__augmented/backbone=*"))
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = [said for said in again.stdout.splitlines() if "distorted copies" in said]
    words = line.split()
    computed, reused = (int(words[words.index(w) + 1].strip(",")) for w in ("computed", "reused"))
    assert computed + reused == len(copies(store)) == 120
    assert 0 < reused < 120
