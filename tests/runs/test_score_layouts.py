"""Score tables by label, in columns, of several models; images copied by label."""

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from stores import rows
from vectors import add, embeddings, make_store, train_run

from beam_flowers import files
from beam_flowers.errors import InputError
from beam_flowers.records import Image
from beam_flowers.scoring.copying import CopiedImages, Labelled, copy_images
from beam_flowers.scoring.decision import AcceptanceRule
from beam_flowers.scoring.folders import label_folder, partition_folder
from beam_flowers.store.commits import latest
from beam_flowers.store.vacuum import vacuum
from beam_flowers.workflows.score import score_images
from beam_flowers.workflows.score_options import ScoreOptions

ODD = ("a/b", "007", "50% 玫瑰")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A store of 120 images that are only vectors."""
    return make_store(tmp_path_factory.mktemp("layouts"))


@pytest.fixture(scope="module")
def model(base):
    return train_run(base, "small").bundle


@pytest.fixture(scope="module")
def odd(model):
    """The same model with odd names for its labels."""
    return replace(model, labels=ODD)


def score(store, output, models, **job):
    return score_images(ScoreOptions((str(store),), str(output), **job), models, warn=pytest.fail)


def versions(table):
    return latest(str(table)).version


@pytest.fixture(scope="module")
def table(base, odd, tmp_path_factory):
    """A folder of parts by label, some `unknown`."""
    out = tmp_path_factory.mktemp("partitions") / "out"
    score(base, out, odd, partition_by_label=True, rule=AcceptanceRule(threshold=0.5))
    return out


class TestByLabel:
    def test_a_folder_for_each_label(self, table):
        folders = {p.name for p in table.iterdir() if not p.name.startswith("__")}
        assert folders == {"label=a%2Fb", "label=007", "label=50%25 玫瑰", "label=unknown"}

    def test_readers_find_rows_and_labels(self, table, base, odd, tmp_path):
        frame = pd.read_parquet(table)
        assert len(frame) == 120
        assert (frame["label"].astype(str) == frame["label_text"]).all()
        dataset = pyarrow.dataset.dataset(table, partitioning="hive")
        assert dataset.to_table()["label"].to_pylist() == frame["label"].to_list()
        score(base, tmp_path / "flat.parquet", odd, rule=AcceptanceRule(threshold=0.5))
        flat = pd.read_parquet(tmp_path / "flat.parquet")
        found = frame.sort_values("uri")[["uri", "label_text", "score"]].to_numpy().tolist()
        assert found == flat[["uri", "label", "score"]].to_numpy().tolist()

    def test_names_that_look_like_numbers_stay_text_in_their_own_column(
        self, base, model, tmp_path
    ):
        numbers = replace(model, labels=("007", "08", "1"))
        score(base, tmp_path / "out", numbers, partition_by_label=True)
        frame = pd.read_parquet(tmp_path / "out")
        assert set(frame["label"]) == {7, 8, 1}  # What readers make of the folders' names.
        assert set(frame["label_text"]) == {"007", "08", "1"}

    def test_a_second_run_changes_nothing_and_another_rule_all(self, base, odd, tmp_path):
        out = tmp_path / "out"
        for _ in range(2):
            score(base, out, odd, partition_by_label=True)
        assert versions(out) == 1
        score(base, out, odd, partition_by_label=True, rule=AcceptanceRule(threshold=1.0))
        assert versions(out) == 2
        assert {path.parent.name for path in out.glob("label=*/*")} == {"label=unknown"}
        before = len(rows(out))
        vacuum(str(out), older_than=0, retention=0)
        assert len(rows(out)) == before == 120

    def test_images_that_go_and_come(self, odd, tmp_path):
        add(tmp_path / "store", "small", embeddings(range(30), 6))
        add(tmp_path / "other", "small", embeddings(range(20, 40), 6))
        out = tmp_path / "out"
        score(tmp_path / "store", out, odd, partition_by_label=True)
        score(tmp_path / "other", out, odd, partition_by_label=True)
        assert [row["uri"] for row in rows(out)] == sorted(f"/r/{i}.jpg" for i in range(20, 40))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"output": "labels.csv"}, "is a folder; .* is the name of a file"),
            ({"labels": ("x" * 250, "b", "c")}, "is too long for the name of a folder"),
            ({"labels": ("", "b", "c")}, "empty label"),
            ({"twice": True}, "takes one model"),
        ],
        ids=str,
    )
    def test_what_cannot_be_laid_out_so(self, base, model, tmp_path, change, message):
        bundle = replace(model, labels=change.get("labels", model.labels))
        models = [bundle, replace(bundle, seed=7)] if "twice" in change else bundle
        with pytest.raises(InputError, match=message):
            score(base, tmp_path / change.get("output", "o"), models, partition_by_label=True)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".arrow", ".feather"])
def test_separate_columns(base, model, tmp_path, suffix):
    path = tmp_path / f"o{suffix}"
    score(base, path, model, top_k=2, separate_columns=True)
    readers = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    readers |= dict.fromkeys([".arrow", ".feather"], _arrow)
    first = readers[suffix](path)[0]
    ranks = ["label_1", "score_1", "label_2", "score_2"]
    assert list(first) == ["uri", "sha256", "label", "score", *ranks, "model_id", "label_id",
                           "given_label", "relative_path"]  # fmt: skip
    assert (first["label"], first["score"]) == (first["label_1"], first["score_1"])
    assert float(first["score_1"]) > float(first["score_2"])


def _csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _jsonl(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def _arrow(path):
    return pa.ipc.open_file(path).read_all().to_pylist()


def _parquet(path):
    return pq.read_table(path).to_pylist()


class TestSeveralModels:
    @pytest.fixture
    def models(self, model):
        return [model, replace(model, seed=99)]

    def test_a_row_of_each_for_every_image(self, base, models, tmp_path):
        summary = score(base, tmp_path / "o.jsonl", models, rule=AcceptanceRule(min_margin=0.3))
        assert (summary.rows, summary.total) == (120, 120)
        found = _jsonl(tmp_path / "o.jsonl")
        keys = [(row["uri"], row["model_id"]) for row in found]
        assert len(set(keys)) == 240
        assert keys == sorted(keys)
        assert {row["rule"] for row in found} == {"margin >= 0.3"}

    def test_models_may_come_and_go(self, base, models, tmp_path):
        out = tmp_path / "out"
        for some in (models[:1], models, models[::-1], models[1:]):
            score(base, out, some)
            assert len(_plain(out)) == 120 * len(some)
        assert versions(out) == 3  # The order of the models is none of the table's.

    def test_images_may_come_and_go(self, models, tmp_path):
        add(tmp_path / "store", "small", embeddings(range(30), 6))
        add(tmp_path / "other", "small", embeddings(range(20, 40), 6))
        score(tmp_path / "store", tmp_path / "out", models)
        score(tmp_path / "other", tmp_path / "out", models)
        score(tmp_path / "other", tmp_path / "fresh", models)
        assert _plain(tmp_path / "out") == _plain(tmp_path / "fresh")
        assert len(_plain(tmp_path / "out")) == 40


def _plain(table):
    """What a plain reader sees, without the order of parts."""
    found = pd.concat(pd.read_parquet(path) for path in Path(table).glob("part-*.parquet"))
    return sorted((r.uri, r.model_id, r.label, r.score) for r in found.itertuples())


class TestCopying:
    @pytest.fixture
    def pictures(self, tmp_path):
        """Three files of two names, as labelled images."""
        found = []
        for name, data in (("a/x.jpg", b"1"), ("b/x.jpg", b"2"), ("b/y", b"3")):
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            found.append(Labelled(str(path), sha(data), ("rose",)))
        return found

    def test_nothing_is_moved_and_equal_names_are_kept_apart(self, pictures, tmp_path):
        assert copy_images(pictures, str(tmp_path / "out")) == CopiedImages(3)
        found = contents(tmp_path / "out")
        assert found == {
            "rose/x.jpg": b"1",
            f"rose/x-{sha(b'2')[:8]}.jpg": b"2",
            "rose/y": b"3",
        }
        assert len(contents(tmp_path / "images")) == 3
        assert copy_images(pictures[::-1], str(tmp_path / "out")) == CopiedImages(0, 3)
        assert contents(tmp_path / "out") == found

    def test_what_is_there_is_never_overwritten(self, pictures, tmp_path):
        mine = tmp_path / "out" / "rose"
        mine.mkdir(parents=True)
        (mine / "x.jpg").write_bytes(b"precious")
        (mine / f"x-{sha(b'1')[:8]}.jpg").write_bytes(b"precious too")
        copied = copy_images(pictures[:1], str(tmp_path / "out"))
        ((uri, reason),) = copied.failed
        assert (uri, copied.copied) == (pictures[0].uri, 0)
        assert "is there and is another file" in reason
        assert set(contents(tmp_path / "out").values()) == {b"precious", b"precious too"}

    def test_failures_are_named_and_the_rest_goes_on(self, pictures, tmp_path):
        Path(pictures[0].uri).unlink()
        Path(pictures[1].uri).write_bytes(b"other")
        copied = copy_images(pictures, str(tmp_path / "out"))
        assert str(copied) == "copied 1, there already 0, failed 2"
        reasons = dict(copied.failed)
        assert reasons[pictures[0].uri] == "No such file or directory"
        assert "was changed since it was scored" in reasons[pictures[1].uri]

    def test_a_image_of_several_labels_lies_with_each(self, pictures, tmp_path):
        several = pictures[0]._replace(labels=("a/b", "..", "rose"))
        assert copy_images([several], str(tmp_path / "out")).copied == 3
        assert set(contents(tmp_path / "out")) == {"a%2Fb/x.jpg", "%2E./x.jpg", "rose/x.jpg"}

    def test_score_copies_what_it_labelled(self, pictures, model, tmp_path):
        store, out = tmp_path / "store", tmp_path / "sorted"
        vectors = embeddings(range(3), 6)
        images = [
            b._replace(image=Image(p.uri, str(tmp_path / "images"), p.uri), sha256=p.sha256)
            for b, p in zip(vectors, pictures, strict=True)
        ]
        add(store, "small", images)
        Path(pictures[2].uri).unlink()
        warnings = []
        job = ScoreOptions((str(store),), str(tmp_path / "o.csv"), copy_to=str(out))
        summary = score_images(job, model, warn=warnings.append)
        labels = {row["uri"]: row["label"] for row in _csv(tmp_path / "o.csv")}
        assert str(summary.copied) == "copied 2, there already 0, failed 1"
        assert warnings == [f"{pictures[2].uri} was not copied: No such file or directory"]
        assert {name.split("/")[0] for name in contents(out)} == {
            labels[p.uri] for p in pictures[:2]
        }

    @pytest.mark.parametrize("inside", ["", "/sorted", "/.hidden/deep"])
    def test_copies_may_not_lie_among_the_images(self, base, model, tmp_path, inside):
        (tmp_path / "p").mkdir()
        (tmp_path / "link").symlink_to("p")
        job = ScoreOptions(
            (str(tmp_path / "p"),), str(tmp_path / "o.csv"), copy_to=f"{tmp_path}/link{inside}"
        )
        with pytest.raises(InputError, match="taken for images of the collection"):
            score_images(job, model)
        globbed = replace(job, images=(f"{tmp_path}/p/*.jpg",))
        with pytest.raises(InputError, match="taken for images of the collection"):
            score_images(globbed, model)
        with pytest.raises(InputError, match="taken for images of the collection"):
            score(base, tmp_path / "out", model, copy_to=str(tmp_path / "out" / "x"))

    def test_copies_are_of_one_model_into_a_folder(self, base, model, tmp_path):
        both = [model, replace(model, seed=7)]
        with pytest.raises(InputError, match="labels of one model"):
            score(base, tmp_path / "o.csv", both, copy_to=str(tmp_path / "x"))
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match="is a file"):
            score(base, tmp_path / "o.csv", model, copy_to=str(tmp_path / "file"))


def sha(data):
    return hashlib.sha256(data).hexdigest()


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("label", "partition", "folder"),
    [
        ("rose", "label=rose", "rose"),
        ("two words", "label=two words", "two words"),
        ("a=b:c%", "label=a%3Db%3Ac%25", "a%3Db%3Ac%25"),
        (".git", "label=.git", "%2Egit"),
        ("..", "label=..", "%2E."),
    ],
)
def test_labels_as_names_of_folders(label, partition, folder):
    assert (partition_folder(label), label_folder(label)) == (partition, folder)
    assert files.parent(files.join("/r", partition)) == "/r"
