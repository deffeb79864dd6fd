"""What becomes of the store when the images change; the network is the real one."""

import os
import shutil

import make_images
import pytest
from stores import embed, labels, rejects, rows, visible

from beam_flowers.backbones.resolve import resolve
from beam_flowers.errors import InputError, StoreError
from beam_flowers.store.commits import latest
from beam_flowers.store.features import read_features
from beam_flowers.store.vacuum import vacuum
from beam_flowers.workflows.embed import embed_images


def first(folder, label):
    return sorted((folder / "images" / label).iterdir())[0]


def move(folder):
    first(folder, "daisy").rename(folder / "images" / "daisy" / "moved.jpg")


def copy(folder):
    shutil.copy(first(folder, "daisy"), folder / "images" / "daisy" / "copied.jpg")


def copy_to_another_name_twice(folder):
    data = make_images.jpeg(seed=77)
    for name in ("roses/b.jpg", "roses/a.jpg"):
        (folder / "images" / name).write_bytes(data)


def edit_to_the_same_size(folder):
    path = first(folder, "daisy")
    data = make_images.jpeg(seed=5)
    path.write_bytes(data + bytes(path.stat().st_size - len(data)))


def touch(folder):
    os.utime(first(folder, "daisy"), (1_600_000_000, 1_600_000_000))


def delete(folder):
    first(folder, "daisy").unlink()


def add(folder):
    for seed in range(3):
        (folder / "images" / "roses" / f"new{seed}.jpg").write_bytes(make_images.jpeg(seed=seed))


def relabel(folder):
    (folder / "images" / "roses").rename(folder / "images" / "Rosa")


def swap(folder):
    one, other = first(folder, "daisy"), first(folder, "roses")
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)


def spoil(folder):
    path = first(folder, "daisy")
    path.write_bytes(path.read_bytes()[:2000])


def hide(folder):
    path = first(folder, "daisy")
    path.rename(path.with_name("." + path.name))


def all_at_once(folder):
    delete(folder)
    move(folder)
    add(folder)
    relabel(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (move, "embedded 0, reused 10, rejected 0, hidden 0, of 10"),
        (copy, "embedded 0, reused 11, rejected 0, hidden 0, of 11"),
        (copy_to_another_name_twice, "embedded 1, reused 11, rejected 0, hidden 0, of 12"),
        (edit_to_the_same_size, "embedded 1, reused 9, rejected 0, hidden 0, of 10"),
        (touch, "embedded 0, reused 10, rejected 0, hidden 0, of 10"),
        (relabel, "embedded 0, reused 10, rejected 0, hidden 0, of 10"),
        (swap, "embedded 0, reused 10, rejected 0, hidden 0, of 10"),
        (spoil, "embedded 0, reused 9, rejected 1, hidden 0, of 10"),
        (hide, "embedded 0, reused 9, rejected 0, hidden 1, of 10"),
        (all_at_once, "embedded 3, reused 9, rejected 0, hidden 0, of 12"),
    ],
)
def test_a_change_costs_what_is_new_and_the_table_is_as_if_made_now(work, change, expected):
    change(work)
    summary = embed(work / "images", work / "store")
    assert str(summary) == expected
    folder, store = work / "images", work / "store"
    assert {r["uri"] for r in rows(store)} | set(rejects(store)) == visible(folder)
    assert labels(store) == {
        r["relative_path"]: r["relative_path"].split("/")[0] for r in rows(store)
    }
    assert summary.dataset_hash == embed(folder, work / "scratch").dataset_hash
    again = embed(folder, store)
    assert (again.embedded, again.dataset_hash) == (0, summary.dataset_hash)


def test_the_normalised_label_follows_the_label(work):
    relabel(work)
    embed(work / "images", work / "store")
    names = {(row["label"], row["label_normalized"]) for row in rows(work / "store")}
    assert ("Rosa", "rosa") in names
    assert ("roses", "roses") not in names


def test_a_listing_of_one_folder_changes_no_label_and_deletes_nothing_elsewhere(work):
    before = labels(work / "store")
    summary = embed(work / "images" / "roses", work / "store")
    assert str(summary) == "embedded 0, reused 2, rejected 0, hidden 0, of 2"
    assert labels(work / "store") == before


def test_the_same_images_under_two_labels_both_stay_with_one_warning(work):
    daisy = first(work, "daisy")
    shutil.copy(daisy, work / "images" / "roses" / "twin.jpg")
    said = []
    images, network = [str(work / "images")], resolve("efficientnet-lite0")
    summary = embed_images(images, str(work / "store"), network, warn=said.append)
    assert (summary.embedded, summary.reused) == (0, 11)
    (line,) = said
    assert all(name in line for name in (str(daisy), "twin.jpg", "'daisy'", "'roses'"))


def test_labels_that_differ_in_writing_only_are_named(work):
    (work / "images" / "Roses").mkdir()
    (work / "images" / "Roses" / "x.jpg").write_bytes(make_images.jpeg())
    with pytest.raises(AssertionError):  # A warning; see stores.embed.
        embed(work / "images", work / "store")


def test_verify_reads_again_what_looks_unchanged(work):
    path = first(work, "daisy")
    times, size = path.stat(), path.stat().st_size
    data = make_images.jpeg(seed=5)
    path.write_bytes(data + bytes(size - len(data)))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert embed(work / "images", work / "store").embedded == 0
    summary = embed(work / "images", work / "store", verify=True)
    assert (summary.embedded, summary.reused) == (1, 9)
    assert summary.dataset_hash == embed(work / "images", work / "scratch").dataset_hash


@pytest.mark.parametrize("folder", ["empty", "hidden only"])
def test_a_folder_that_became_empty_deletes_nothing(work, folder):
    for path in (work / "images").glob("*/*"):
        path.rename(path.with_name("." + path.name)) if folder == "hidden only" else path.unlink()
    version = latest(str(work / "store")).version
    with pytest.raises(InputError, match="no file to read"):
        embed(work / "images", work / "store")
    assert latest(str(work / "store")).version == version
    assert len(rows(work / "store")) == 10


@pytest.mark.parametrize("kind", ["rows", "damaged rows"])
def test_a_lost_part_is_made_again(work, kind):
    before = latest(str(work / "store")).sections.popitem()[1].dataset_hash
    (part,) = (work / "store").glob("backbone=*/*.parquet")
    said = []
    if kind == "damaged rows":
        part.write_bytes(b"PAR1")
    else:
        part.unlink()
    with pytest.raises(StoreError, match="is gone" if kind == "rows" else "is damaged"):
        read_features(str(work / "store"))
    images, network = [str(work / "images")], resolve("efficientnet-lite0")
    summary = embed_images(images, str(work / "store"), network, warn=said.append)
    assert (summary.embedded, summary.dataset_hash, summary.lost) == (10, before, 10)
    assert part.name in said[0]
    assert "of its 10 rows those of images that were listed now were made again" in said[0]
    (section,) = latest(str(work / "store")).sections.values()
    assert [lost.name for lost in section.lost] == [part.name]
    assert not part.exists()
    assert len(list((work / "store").glob("__damaged/*/*.damaged"))) == (kind != "rows")


def test_a_store_that_a_pattern_matches_is_not_read(work):
    inside = work / "images" / "daisy" / "store"
    for _ in range(2):
        summary = embed(work / "images" / "*", inside)
        assert (summary.rows, summary.rejected) == (10, 0)


@pytest.mark.slow
def test_a_killed_run_on_other_images_leaves_nothing_in_the_table(work, tmp_path, monkeypatch):
    other = tmp_path / "other"
    shutil.copytree(work / "images" / "daisy", other / "violet")
    for path in other.rglob("*.jpg"):
        path.write_bytes(make_images.jpeg(seed=len(path.name)))
    with monkeypatch.context() as patch:
        patch.setattr("beam_flowers.store.plan.commit_under_lease", lambda *_: 1 / 0)
        with pytest.raises(Exception, match="division"):
            embed(other, work / "store")
    touch(work)
    assert embed(work / "images", work / "store").total == 10
    assert {row["root"] for row in rows(work / "store")} == {str(work / "images")}
    assert embed(other, work / "store").embedded == 0


def test_vacuum_leaves_what_the_newest_commit_names(work):
    relabel(work)
    embed(work / "images", work / "store")
    (work / "images" / "Rosa").rename(work / "images" / "roses")
    summary = embed(work / "images", work / "store")
    vacuum(str(work / "store"), older_than=0, retention=0)
    assert sorted(p.name for p in (work / "store" / "__commits").glob("*.json")) == [
        "00000002.json",
        "00000003.json",
    ]
    again = embed(work / "images", work / "store")
    assert (again.embedded, again.dataset_hash) == (0, summary.dataset_hash)
