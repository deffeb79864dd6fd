"""`score --store` keeps vectors of images in a table of their own; `forget` cleans older stores."""

import json
import os
import shutil

import make_images
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from places import OLD
from stores import cli, embed, photos, refusing, rejects, rows

from beam_flowers import files
from beam_flowers.backbones.resolve import resolve
from beam_flowers.contrib.augment.table import forget_everywhere
from beam_flowers.errors import InputError, StoreError
from beam_flowers.head.bundle import read_bundle
from beam_flowers.store.commits import NEWEST_LAYOUT, latest
from beam_flowers.store.forget import Forgotten, forget
from beam_flowers.store.names import AUGMENTED, SCORED
from beam_flowers.workflows.embed import RunOptions
from beam_flowers.workflows.score import score_images
from beam_flowers.workflows.score_options import ScoreOptions

NETWORK = resolve("efficientnet-lite0")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A collection of `photos`, its `store`, a `model`, and `more` images in two folders."""
    base = tmp_path_factory.mktemp("scored")
    assert embed(photos(base / "photos", 4), base / "store").embedded == 20
    assert cli("train", base / "store", "--model", base / "model") == 0
    for number, name in enumerate(["unsorted", "holiday2024"]):
        (base / "more" / name).mkdir(parents=True)
        for seed in range(3):
            data = make_images.jpeg(seed=10 * number + seed)
            (base / "more" / name / f"{seed}.jpg").write_bytes(data)
    return base


@pytest.fixture
def collection(made):
    """The same folders at the same path, to be changed; put back afterwards."""
    kept = made.with_name(made.name + "-kept")
    shutil.copytree(made, kept)
    yield made
    shutil.rmtree(made)
    kept.rename(made)


def score(base, *images, store="store", **options):
    job = ScoreOptions(tuple(map(str, images)), str(base / "out.parquet"), str(base / store))
    said = []
    model = read_bundle(str(base / "model"))
    summary = score_images(job, model, NETWORK, RunOptions(**options), said.append)
    assert not said
    return summary


def scores(base):
    return {row["uri"]: row["top_k"] for row in pq.read_table(base / "out.parquet").to_pylist()}


def test_the_collection_is_as_it_was(collection, capsys):
    before = latest(str(collection / "store"))
    made = {"command": "score"}
    assert str(score(collection, collection / "more", made=made)) == (
        "embedded 6, reused 0, rejected 0, hidden 0, of 6"
    )
    assert latest(str(collection / "store")) == before
    assert latest(str(collection / "store" / "__scored")).made["command"] == "score"
    assert len(rows(collection / "store")) == 20
    assert len(pd.read_parquet(collection / "store")) == 20
    assert ds.dataset(collection / "store").count_rows() == 20
    assert len(rows(collection / "store" / "__scored")) == 6
    model = collection / "again"
    assert cli("train", collection / "store", "--model", model) == 0
    assert read_bundle(str(model)).labels == read_bundle(str(collection / "model")).labels
    measured = collection / "evaluation"
    assert cli("evaluate", collection / "store", "--model", model, "--output", measured) == 0
    assert cli("report", collection / "store", "--output", collection / "r.html") == 0
    page = (collection / "r.html").read_text()
    assert "unsorted" not in page
    assert "holiday2024" not in page
    found = json.loads((measured / "evaluation.json").read_text())
    assert "holiday2024" not in json.dumps(found)


def test_images_that_the_collection_has_are_read_from_there(collection):
    photo = next((collection / "photos" / "roses").iterdir())
    shutil.copy(photo, collection / "more" / "unsorted" / "copy.jpg")
    images = [collection / "more", collection / "photos" / "roses"]
    summary = score(collection, *images)
    assert (summary.embedded, summary.reused, summary.total) == (6, 5, 11)
    uris = {row["uri"] for row in rows(collection / "store" / "__scored")}
    assert uris == {str(p) for p in (collection / "more").glob("*/*.jpg")}
    assert str(score(collection, *images)) == "embedded 0, reused 11, rejected 0, hidden 0, of 11"
    assert len(scores(collection)) == 11


def test_nothing_new_leaves_no_table(collection):
    assert score(collection, collection / "photos").reused == 20
    assert not (collection / "store" / "__scored" / "__commits").exists()


@pytest.mark.slow
def test_a_later_embed_of_the_same_files_runs_no_network(collection):
    score(collection, collection / "more")
    summary = embed(collection / "more", collection / "store")
    assert str(summary) == "embedded 0, reused 6, rejected 0, hidden 0, of 6"
    fresh = collection / "fresh"
    embed(collection / "photos", fresh)
    embed(collection / "more", fresh)
    assert rows(collection / "store") == rows(fresh)
    assert {row["label"] for row in rows(fresh)} > {"unsorted", "holiday2024"}
    # They are the collection's now, and leave the other table with the next listing.
    assert score(collection, collection / "more").reused == 6
    assert rows(collection / "store" / "__scored") == []


@pytest.mark.slow
@pytest.mark.parametrize("verify", [False, True])
def test_an_edited_image_is_scored_as_it_is_now(collection, verify):
    photo = next((collection / "photos" / "roses").iterdir())
    status = photo.stat()
    photo.write_bytes(make_images.jpeg(seed=77))
    if verify:  # Neither size nor time tell.
        photo.write_bytes(photo.read_bytes().ljust(status.st_size, b"\0")[: status.st_size])
        os.utime(photo, ns=(status.st_atime_ns, status.st_mtime_ns))
    summary = score(collection, collection / "photos", verify=verify)
    assert summary.embedded == 1
    found = scores(collection)
    score(collection, collection / "photos", store="fresh")
    assert found == scores(collection)
    assert len(found) == 20


@pytest.mark.slow
def test_rejects_of_the_collection_are_rejects_of_the_table(collection):
    bad = collection / "photos" / "roses" / "bad.jpg"
    bad.write_bytes(make_images.truncated(make_images.jpeg()))
    embed(collection / "photos", collection / "store")
    assert score(collection, collection / "photos").rejected == 1
    bad.write_bytes(make_images.jpeg(seed=5))
    assert score(collection, collection / "photos").rejected == 0
    bad.write_bytes(b"text")
    assert score(collection, collection / "photos", collection / "more").rejected == 1
    assert rejects(collection / "store" / "__scored") == {str(bad): "NotAnImage"}


@pytest.mark.slow
def test_a_store_of_an_older_layout_gets_a_newer_one_first(collection):
    base = collection
    shutil.rmtree(base / "store")
    shutil.copytree(OLD / "store", base / "store")
    before = latest(str(base / "store"))
    assert before.layout == 1
    score(base, base / "more")
    after = latest(str(base / "store"))
    assert (after.version, after.layout) == (before.version + 1, NEWEST_LAYOUT)
    assert after.sections == before.sections
    score(base, base / "photos")
    assert latest(str(base / "store")) == after


@pytest.mark.slow
def test_a_store_that_only_scored_has_no_collection(collection, capsys):
    base = collection
    assert score(base, base / "more", store="new").embedded == 6
    assert cli("train", base / "new", "--model", base / "none") == 1
    assert "beam-flowers embed IMAGES --store" in capsys.readouterr().err
    assert embed(base / "photos", base / "new").embedded == 20
    assert len(rows(base / "new")) == 20


def test_the_map_of_a_score_table_has_images_of_both(collection):
    score(collection, collection / "more", collection / "photos" / "roses")
    arguments = ["--store", collection / "store", "--output", collection / "r.html"]
    assert cli("report", collection / "out.parquet", *arguments) == 0
    assert "Map of 10 images" in (collection / "r.html").read_text()


@pytest.mark.slow
def test_a_lost_part_of_the_collection_is_computed_again(collection):
    for part in (collection / "store").glob("backbone=*/*.parquet"):
        part.unlink()
    job = ScoreOptions(
        (str(collection / "photos"),), str(collection / "out.csv"), str(collection / "store")
    )
    said = []
    model = read_bundle(str(collection / "model"))
    assert score_images(job, model, NETWORK, warn=said.append).embedded == 20
    assert all("is gone; what of it is listed is made again" in line for line in said)
    assert len(said) == 1
    assert score(collection, collection / "more", store="fresh").embedded == 6


def test_a_lost_part_keeps_forget_from_nothing_else(collection, capsys):
    store = collection / "store"
    score(collection, collection / "more")
    (lost,) = (store / "__scored").glob("backbone=*/*.parquet")
    lost.unlink()
    assert forget(str(store), str(collection)) == Forgotten(
        20, inner={SCORED: 0}, lost=(str(lost),)
    )
    assert cli("forget", store, collection) == 0
    assert f"{lost} is gone" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("way", ["images with the store", "the whole store"])
def test_an_embed_that_replaces_parts_meanwhile_ends_no_score(collection, monkeypatch, way):
    """The embed of another process commits new labels just before the rows are read."""
    from beam_flowers.transforms import plan

    real, store = plan.ScorePlan, collection / "store"

    def relabelled_meanwhile(*arguments):
        monkeypatch.setattr(plan, "ScorePlan", real)
        manifest = collection / "labels.csv"
        uris = (collection / "photos" / "roses").iterdir()
        manifest.write_text("uri,label\n" + "".join(f"{uri},rosa\n" for uri in uris))
        assert cli("embed", manifest, "--store", store) == 0
        return real(*arguments)

    monkeypatch.setattr(plan, "ScorePlan", relabelled_meanwhile)
    if way == "the whole store":
        job = ScoreOptions((str(store),), str(collection / "out.parquet"))
        assert score_images(job, read_bundle(str(collection / "model"))).reused == 20
    else:
        assert score(collection, collection / "photos", collection / "more").rows == 26
    assert "rosa" in {row["label"] for row in rows(store)}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["table", "store/__scored", "store/__augmented", "__commits"])
def test_only_a_feature_store_takes_vectors_of_scored_images(collection, place, capsys):
    table = ["--output", collection / "table"]
    assert cli("score", collection / "more", "--model", collection / "model", *table) == 0
    before = latest(str(collection / "table"))
    flags = ["--model", collection / "model", "--output", collection / "out.csv"]
    assert cli("score", collection / "photos", "--store", collection / place, *flags) == 1
    said = capsys.readouterr().err
    assert "is a table of scores. Name another folder" in said or "uses the name" in said
    assert not (collection / "table" / "__scored").exists()
    assert latest(str(collection / "table")) == before


@pytest.mark.parametrize("name", ["__scored", "__augmented", "__work"])
def test_names_that_a_store_uses_itself_are_no_outputs(collection, name, capsys):
    place = collection / "store" / name
    flags = ["--model", collection / "model", "--output", place]
    assert cli("score", collection / "more", *flags) == 1
    assert cli("embed", collection / "more", "--store", place) == 1
    assert capsys.readouterr().err.count(f"a store uses the name {name} for itself") == 2


@pytest.fixture
def mixed(collection):
    """A store into which an older program has put the scored images."""
    before = latest(str(collection / "store")).sections
    (collection / "more" / "unsorted" / "bad.jpg").write_bytes(b"text")
    embed(collection / "more", collection / "store")
    embed(collection / "more" / "unsorted", collection / "store")
    return collection, before


@pytest.mark.slow
@pytest.mark.parametrize("there", [True, False])
def test_forget_cleans_a_store_that_is_mixed(mixed, there, monkeypatch, capsys):
    base, before = mixed
    if not there:
        shutil.rmtree(base / "more")
    monkeypatch.chdir(base)
    assert cli("forget", "store", "more", "--dry-run") == 0
    assert "would forget 6 rows and 1 reject of more" in capsys.readouterr().out
    assert len(rows(base / "store")) == 26
    assert cli("forget", "store", "more") == 0
    assert "forgot 6 rows and 1 reject of more" in capsys.readouterr().out
    (section,) = latest(str(base / "store")).sections.values()
    assert section.dataset_hash == next(iter(before.values())).dataset_hash
    assert section.roots == (str(base / "photos"),)
    assert len(rows(base / "store")) == 20
    assert rejects(base / "store") == {}
    assert cli("train", "store", "--model", "again") == 0
    assert read_bundle("again").labels == read_bundle("model").labels


@pytest.mark.slow
def test_forget_takes_a_part_of_a_root_from_all_tables(collection, capsys):
    store = str(collection / "store")
    score(collection, collection / "more")
    assert cli("embed", collection / "photos", "--store", store, "--augment", "1") == 0
    gone = forget_everywhere(store, str(collection / "more" / "unsorted"))
    assert gone == Forgotten(inner={SCORED: 3, AUGMENTED: 0})
    roses = str(collection / "photos" / "roses")
    gone = Forgotten(rows=4, inner={SCORED: 0, AUGMENTED: 4})
    assert forget_everywhere(store, roses, dry_run=True) == gone
    assert cli("forget", store, roses) == 0
    assert "forgot 4 rows and 0 rejects" in (said := capsys.readouterr().out)
    assert "0 of images that were only scored, 4 of distorted copies\n" in said
    assert said.endswith("older versions have them for 7 days; --now deletes those, too\n")
    assert len(rows(store)) == 16
    assert len(rows(collection / "store" / "__scored")) == 3
    summary = embed(collection / "photos", store)
    assert (summary.embedded, summary.reused) == (4, 16)
    assert cli("embed", collection / "photos", "--store", store, "--augment", "1") == 0


def test_forget_all_leaves_an_empty_store(collection):
    store = str(collection / "store")
    assert forget(store, str(collection)).rows == 20
    assert latest(store).sections == {}
    assert not list((collection / "store").glob("backbone=*/*.parquet"))
    assert embed(collection / "photos", store).embedded == 20


def test_forget_what_is_not_there(collection, capsys):
    with pytest.raises(InputError, match=rf"has no image of .*{collection / 'photos'}"):
        forget(str(collection / "store"), str(collection / "photo"))
    assert cli("forget", collection / "none", "photos") == 1
    assert "no store at" in capsys.readouterr().err
    with pytest.raises(StoreError, match="no store at"):
        forget(str(collection / "more"), "x")


@pytest.mark.slow
def test_what_the_collection_could_not_read_is_tried_again(collection, monkeypatch):
    locked = sorted((collection / "photos" / "roses").iterdir())[0]
    os.utime(locked)
    with monkeypatch.context() as patch:
        patch.setattr(files, "read_bytes", refusing(str(locked)))
        assert embed(collection / "photos", collection / "store").rejected == 1
    assert score(collection, collection / "photos").rows == 20
    assert {row["uri"] for row in rows(collection / "store" / SCORED)} == {str(locked)}


@pytest.mark.slow
def test_images_of_a_renamed_folder_are_in_the_table_once(collection):
    score(collection, collection / "more")
    (collection / "more").rename(collection / "moved")
    assert score(collection, collection / "moved").rows == 6
    kept = rows(collection / "store" / SCORED)
    assert {row["root"] for row in kept} == {str(collection / "moved")}
    assert len(kept) == 6
