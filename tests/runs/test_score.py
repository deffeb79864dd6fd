"""Tables of labels: from pixels, with a store, from a store; as one file and as a folder."""

import csv
import json
import shutil

import make_images
import pandas as pd
import pyarrow.parquet as pq
import pytest
from stores import cli, embed, photos, refusing, rejects, rows, visible

from beam_flowers import files
from beam_flowers.backbones.resolve import resolve
from beam_flowers.errors import InputError, ModelError, OutputError, StoreError
from beam_flowers.head.bundle import model_id, read_bundle
from beam_flowers.scoring.read_table import read_scores
from beam_flowers.store.commits import latest
from beam_flowers.store.features import read_features
from beam_flowers.workflows.embed import RunOptions
from beam_flowers.workflows.score import score_images
from beam_flowers.workflows.score_options import ScoreOptions

NETWORK = resolve("efficientnet-lite0")
COLUMNS = ["uri", "sha256", "label", "score", "top_k", "model_id", "label_id"]
REJECTS = ["uri", "stage", "error_class", "message", "bytes", "sha256"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Folder of `images` (30 good, 3 bad, 1 hidden), a `store` of them, `model`."""
    base = tmp_path_factory.mktemp("score")
    folder = photos(base / "images", 6)
    (folder / "bad.txt").write_bytes(make_images.TEXT)
    (folder / "tulips" / "cut.jpg").write_bytes(make_images.truncated(make_images.jpeg()))
    (folder / "tulips" / "dangling.jpg").symlink_to("nowhere")
    (folder / ".hidden.jpg").write_bytes(b"")
    assert embed(folder, base / "store").embedded == 30
    assert cli("train", base / "store", "--model", base / "model") == 0
    return base


@pytest.fixture(scope="module")
def model(base):
    return read_bundle(str(base / "model"))


def score(images, output, model, store=None, top_k=5, **options):
    job = ScoreOptions((str(images),), str(output), store and str(store), top_k)
    said = []
    summary = score_images(job, model, NETWORK, RunOptions(**options), said.append)
    assert not said
    return summary


@pytest.fixture(scope="module")
def table(base, model):
    """Parquet table from pixels."""
    path = base / "pixels.parquet"
    summary = score(base / "images", path, model)
    assert str(summary) == "embedded 30, reused 0, rejected 3, hidden 1, of 34"
    assert (summary.failures, summary.bad_fraction) == (2, 2 / 32)
    return path


def test_the_columns_are_those_of_the_contract(table, model):
    rows = pq.read_table(table)
    assert rows.schema.names == [*COLUMNS, "given_label", "relative_path"]
    assert set(rows["model_id"].to_pylist()) == {model_id(model)}
    assert pq.read_schema(table.with_suffix(".rejects.parquet")).names[:6] == REJECTS


def test_given_labels_and_paths_are_those_of_the_listing(base, table):
    for row in pq.read_table(table).to_pylist():
        assert row["relative_path"] == row["uri"].removeprefix(f"{base}/images/")
        assert row["given_label"] == row["relative_path"].partition("/")[0]


def test_columns_of_a_manifest_travel_to_the_table(base, model, tmp_path):
    first, second, *_ = sorted((base / "images").glob("*/*.jpg"))
    lines = ["Price;File_Name;class;score", f"1,50;{first};petal;9", f"2;{second};;8"]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    for name in ("out.csv", "out.csv"):  # The second time over a file that is known as ours.
        score(tmp_path / "m.csv", tmp_path / name, model, base / "store")
    with open(tmp_path / "out.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == [
        *COLUMNS,
        *("given_label", "Price", "input_score", "relative_path"),
    ]
    assert [(r["given_label"], r["Price"], r["input_score"]) for r in found] == [
        ("petal", "1,50", "9"),
        ("", "2", "8"),
    ]
    assert read_scores(str(tmp_path / "out.csv")).uris == [str(first), str(second)]


def test_the_screen_has_the_answer(base, tmp_path, capsys):
    command = ("score", base / "store", "--model", base / "model", "--output", tmp_path / "o.csv")
    assert cli(*command) == 0
    said = capsys.readouterr()
    assert "labels predicted for 30 images:\n" in said.err
    assert "median score " in said.err
    assert "of 30 images (95 % interval " in said.err
    assert (
        f"3 files rejected (DanglingLink 1, NotAnImage 1, Truncated 1): see {tmp_path}" in said.err
    )
    assert "predicted" not in said.out
    assert cli(*command, "--threshold", "0.9", "--progress", "json") == 0
    assert "predicted" not in capsys.readouterr().err


def test_each_file_is_in_one_of_the_two_tables(base, table):
    good = pq.read_table(table)["uri"].to_pylist()
    bad = pq.read_table(table.with_suffix(".rejects.parquet"))["uri"].to_pylist()
    assert sorted(good + bad) == sorted(visible(base / "images"))
    assert good == sorted(good)


def test_the_labels_are_ranked(table, model):
    for row in pq.read_table(table).to_pylist():
        scores = [best["score"] for best in row["top_k"]]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-5)  # All five of them.
        assert (row["label"], row["score"]) == tuple(row["top_k"][0].values())
        assert model.labels[row["label_id"]] == row["label"]


def test_the_head_has_learnt_something(table):
    found = pq.read_table(table).to_pylist()
    right = sum(row["label"] == row["uri"].split("/")[-2] for row in found)
    assert right >= 24


def test_class_names_are_told_to_hugging_face(table, model):
    features = json.loads(pq.read_schema(table).metadata[b"huggingface"])["info"]["features"]
    assert features == {"label_id": {"names": list(model.labels), "_type": "ClassLabel"}}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("way", ["from the store", "with the store"])
def test_all_ways_give_the_same_tables(base, model, table, tmp_path, suffix, way):
    path = tmp_path / f"labels{suffix}"
    images, store = base / "images", base / "store"
    if way == "from the store":
        summary = score(store, path, model)
        assert str(summary) == "embedded 0, reused 30, rejected 3, hidden 0, of 33"
    else:
        summary = score(images, path, model, store)
        assert str(summary) == "embedded 0, reused 30, rejected 3, hidden 1, of 34"
    assert summary.failures == 2
    assert _plain(path) == _plain(table)
    assert _errors(path) == _errors(table)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [f"labels.rejects{suffix}", path.name]
    )


def _plain(path):
    """Rows of a table of any kind, as Parquet gives them."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    found = _read(path)
    for row in found:
        row["top_k"] = json.loads(row["top_k"]) if path.suffix == ".csv" else row["top_k"]
        row["label_id"] = int(row["label_id"])
        for best in (row, *row["top_k"]):
            best["score"] = pd.Series([best["score"]], dtype="float32").astype("float64")[0]
    return found


def _errors(path):
    path = path.with_suffix(f".rejects{path.suffix}")
    found = pq.read_table(path).to_pylist() if path.suffix == ".parquet" else _read(path)
    return [(row["uri"], row["error_class"], row["sha256"] or None) for row in found]


def _read(path):
    with path.open(newline="") as file:
        if path.suffix == ".csv":
            return list(csv.DictReader(file))
        return [json.loads(line) for line in file]


def test_a_csv_holds_any_name(model, base, tmp_path):
    folder = tmp_path / 'a, "b"\n=c()'
    folder.mkdir()
    shutil.copy(next((base / "images" / "roses").iterdir()), folder / "x.jpg")
    score(folder, tmp_path / "labels.csv", model)
    assert [row["uri"] for row in _read(tmp_path / "labels.csv")] == [str(folder / "x.jpg")]


@pytest.mark.parametrize("top_k", [1, 2, 99])
def test_top_k(base, model, tmp_path, top_k):
    score(base / "store", tmp_path / "labels.parquet", model, top_k=top_k)
    lengths = {len(row["top_k"]) for row in pq.read_table(tmp_path / "labels.parquet").to_pylist()}
    assert lengths == {min(top_k, 5)}


@pytest.mark.slow
def test_what_the_store_lacks_is_embedded_beside_its_collection(base, model, tmp_path):
    store, folder = tmp_path / "store", tmp_path / "more"
    shutil.copytree(base / "store", store)
    folder.mkdir()
    (folder / "new.jpg").write_bytes(make_images.jpeg())
    shutil.copy(next((base / "images" / "roses").iterdir()), folder / "known.jpg")
    summary = score(folder, tmp_path / "labels.parquet", model, store)
    assert str(summary) == "embedded 1, reused 1, rejected 0, hidden 0, of 2"
    assert len(pq.read_table(tmp_path / "labels.parquet")) == 2
    assert len(rows(store)) == 30
    again = score(folder, tmp_path / "labels.parquet", model, store)
    assert str(again) == "embedded 0, reused 2, rejected 0, hidden 0, of 2"


def test_a_file_that_came_between_two_listings_is_in_the_reject_table(
    base, model, tmp_path, monkeypatch
):
    from beam_flowers.workflows import score as score_run
    from beam_flowers.workflows.embed_scored import embed_scored

    folder, store = tmp_path / "more", tmp_path / "store"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(make_images.jpeg())

    def embed_then_add(*arguments):
        summary = embed_scored(*arguments)
        (folder / "b.jpg").write_bytes(make_images.jpeg(seed=2))
        return summary

    with monkeypatch.context() as patch:
        patch.setattr(score_run, "embed_scored", embed_then_add)
        summary = score(folder, tmp_path / "out", model, store)
    assert (summary.rows, summary.rejected) == (1, 1)
    assert rejects(tmp_path / "out") == {str(folder / "b.jpg"): "NotInStore"}
    assert score(folder, tmp_path / "out", model, store).rows == 2


class TestFolder:
    """A table of parts, which commits and resumes as a store does."""

    @pytest.fixture
    def out(self, base, model, tmp_path):
        score(base / "store", tmp_path / "out", model)
        return tmp_path / "out"

    def test_it_holds_what_the_file_holds(self, out, table):
        wanted = [{name: row[name] for name in COLUMNS} for row in rows(out)]
        assert wanted == pq.read_table(table, columns=COLUMNS).to_pylist()
        assert sorted(rejects(out)) == [uri for uri, _, _ in _errors(table)]

    @pytest.mark.parametrize("source", ["images", "store"])
    def test_a_second_run_changes_nothing(self, base, model, out, source, monkeypatch):
        before = score(base / source, out, model).dataset_hash
        version = latest(str(out)).version
        monkeypatch.setattr(
            "beam_flowers.workflows.score.run_plan", lambda *_, **__: pytest.fail("it ran")
        )
        summary = score(base / source, out, model)
        hidden = {"images": 1, "store": 0}[source]
        assert (summary.embedded, summary.reused, summary.rejected) == (0, 30, 3)
        assert (summary.hidden, summary.dataset_hash) == (hidden, before)
        assert latest(str(out)).version == version

    def test_what_is_not_listed_leaves_the_table(self, base, model, out):
        summary = score(base / "images" / "roses", out, model)
        assert (summary.rows, summary.rejected, len(rows(out))) == (6, 0, 6)
        assert rejects(out) == {}

    def test_another_model_replaces_all_rows(self, base, out, tmp_path):
        other = tmp_path / "model"
        cli("train", base / "store", "--model", other, "--l2", "1")
        summary = score(base / "store", out, read_bundle(str(other)))
        assert (summary.reused, summary.rejected) == (30, 3)
        (identity,) = {row["model_id"] for row in rows(out)}
        assert identity == model_id(read_bundle(str(other)))
        assert len(rejects(out)) == 3

    def test_another_top_k_replaces_all_rows(self, base, model, out):
        score(base / "store", out, model, top_k=1)
        assert {len(row["top_k"]) for row in rows(out)} == {1}

    def test_a_reject_that_the_store_took_in_since_gets_its_row(self, base, model, tmp_path):
        folder, store, out = tmp_path / "p", tmp_path / "s", tmp_path / "out2"
        shutil.copytree(base / "images" / "roses", folder)
        locked = str(next(folder.iterdir()))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "read_bytes", refusing(locked))
            embed(folder, store)
        assert score(store, out, model).rejected == 1
        embed(folder, store, retry_rejects=True)
        summary = score(store, out, model)
        assert (summary.rows, summary.rejected, len(rows(out))) == (6, 0, 6)

    def test_a_run_from_pixels_goes_on_where_it_was_killed(self, base, model, tmp_path):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("beam_flowers.store.rebase.commit", lambda *_: 1 / 0)
            with pytest.raises(Exception, match="division"):
                score(base / "images", tmp_path / "half", model, shards=3)
        summary = score(base / "images", tmp_path / "half", model)
        assert str(summary) == "embedded 0, reused 30, rejected 3, hidden 1, of 34"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"output": "labels.xlsx"}, InputError, r"\.xlsx is not written; use \.parquet"),
        ({"output": "labels.json"}, InputError, r"\.json is not written"),
        ({"output": "folder.csv"}, InputError, "is a folder"),
        ({"output": "file/labels.csv"}, InputError, "cannot be written"),
        ({"output": "images"}, OutputError, "is an input of this command"),
        ({"output": "images/out"}, InputError, "put it elsewhere"),
        ({"output": "store"}, OutputError, "holds other things and is no table"),
        ({"top_k": 0}, InputError, "top-k must be 1 or more, not 0"),
        ({"images": "nowhere"}, InputError, "is not there"),
        ({"images": "store", "store": "store"}, InputError, "score it alone"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused(base, model, arguments, error, message):
    (base / "folder.csv").mkdir(exist_ok=True)
    (base / "file").touch()
    given = {"images": "images", "output": "labels.csv", "store": None, "top_k": 5} | arguments
    paths = {n: base / given[n] for n in ("images", "output", "store") if given[n]}
    with pytest.raises(error, match=message):
        score(model=model, top_k=given["top_k"], **paths)
    assert not (base / "labels.csv").exists()


def test_a_table_of_scores_is_no_store(base, model, tmp_path):
    score(base / "store", tmp_path / "out", model)
    with pytest.raises(StoreError, match="is a table of scores"):
        score(tmp_path / "out", tmp_path / "labels.csv", model)
    with pytest.raises(StoreError, match="is a table of scores"):
        read_features(str(tmp_path / "out"))
    with pytest.raises(StoreError, match="is a table of scores"):
        embed(base / "images", tmp_path / "out")


def test_the_output_may_lie_among_the_images(base, model, tmp_path):
    folder = tmp_path / "roses"
    shutil.copytree(base / "images" / "roses", folder)
    assert score(folder, folder / "labels.csv", model).total == 6
    again = score(folder, folder / "labels.csv", model)
    assert (again.rows, again.rejected, again.failures) == (6, 2, 0)


@pytest.mark.parametrize("source", ["images", "store"])
def test_a_model_of_another_backbone_is_refused(base, model, tmp_path, source):
    from dataclasses import replace

    other = replace(model, backbone="inception-v3", fingerprint="ab" * 32)
    with pytest.raises(ModelError, match="inception-v3") as caught:
        score(base / source, tmp_path / "labels.csv", other)
    assert "efficientnet-lite0" in str(caught.value)


def test_nothing_usable_is_an_error_after_the_reasons_are_written(model, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.txt").write_bytes(make_images.TEXT)
    with pytest.raises(InputError, match="none of the 1 files"):
        score(tmp_path / "images", tmp_path / "labels.csv", model)
    assert [r["error_class"] for r in _read(tmp_path / "labels.rejects.csv")] == ["NotAnImage"]
    assert _read(tmp_path / "labels.csv") == []


def test_a_row_of_another_scheme_costs_itself_and_all_of_an_allowed_one_the_run(
    base, tmp_path, capsys
):
    photo = min((base / "images" / "roses").iterdir())
    (tmp_path / "list.csv").write_text(f"uri\n{photo}\nother://b/a.jpg\n")
    command = ("score", tmp_path / "list.csv", "--model", base / "model")
    assert cli(*command, "--output", tmp_path / "a.csv") == 0
    with (tmp_path / "a.rejects.csv").open() as file:
        assert [row["error_class"] for row in csv.DictReader(file)] == ["SchemeNotAllowed"]
    assert cli(*command, "--output", tmp_path / "b.csv", "--manifest-schemes", "other") == 1
    assert "no file that it names by other:// can be read (1 rows)" in capsys.readouterr().err
    assert not (tmp_path / "b.csv").exists()


def test_too_many_failures_end_in_exit_code_3(base, tmp_path, capsys):
    command = ("score", base / "store", "--model", base / "model", "--output", tmp_path / "l.csv")
    assert cli(*command, "--max-bad-fraction", "0.05") == 3
    assert len(_read(tmp_path / "l.csv")) == 30
    assert cli(*command, "--max-bad-fraction", "0.07") == 0


class TestTwoModels:
    """In one pass of the network, from the command line."""

    @pytest.fixture(scope="class")
    @classmethod
    def models(cls, base):
        assert cli("train", base / "store", "--model", base / "other", "--l2", "1") == 0
        return ["--model", base / "model", "--model", base / "other"]

    def test_from_pixels_and_from_the_store_they_give_the_same(
        self, base, models, tmp_path, capsys
    ):
        for name in ("images", "store"):
            output = ("--output", tmp_path / f"{name}.csv", "--target-precision", "0.5")
            assert cli("score", base / name, *models, *output) == 0
        found = _read(tmp_path / "images.csv")
        assert found == _read(tmp_path / "store.csv")
        assert len(found) == 60
        assert {row["rule"][:9] for row in found} == {"score >= "}
        said = capsys.readouterr().out
        for name in ("model", "other"):
            assert f"{base / name}: threshold 0." in said
        assert "chosen on held-out images: " in said

    def test_classify_prints_a_line_for_each(self, base, models, capsys):
        image = next((base / "images" / "roses").iterdir())
        assert cli("classify", image, *models, "--threshold", "1", "--top-k", "1") == 0
        lines = capsys.readouterr().out.splitlines()
        starts = [f"{image}  {base / name}  [unknown]  " for name in ("model", "other")]
        assert sorted(
            line[: len(start)] for line, start in zip(sorted(lines), starts, strict=True)
        ) == (starts)

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--threshold", "2"], "threshold is from 0 to 1, not 2.0"),
            (["--min-margin", "nan"], "--min-margin is from 0 to 1, not nan"),
            (["--target-precision", "0"], "above 0 and up to 1, not 0.0"),
            (["--partition-by", "label"], "is the name of a file"),
            (["--copy-to", "copies"], "by the labels of one model"),
            (["--model", "nowhere"], "no whole model in"),
            (["--model", "nowhere"], "nowhere` makes one"),
        ],
        ids=str,
    )
    def test_wrong_flags(self, base, models, tmp_path, capsys, flags, message):
        command = ("score", base / "store", *models, "--output", tmp_path / "l.csv")
        assert cli(*command, *flags) == 1
        assert message in capsys.readouterr().err
        assert not list(tmp_path.iterdir())


def test_a_killed_run_by_label_goes_on(base, model, tmp_path):
    job = ScoreOptions((str(base / "images"),), str(tmp_path / "half"), partition_by_label=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("beam_flowers.store.rebase.commit", lambda *_: 1 / 0)
        with pytest.raises(Exception, match="division"):
            score_images(job, model, NETWORK, RunOptions(shards=3))
    assert not list((tmp_path / "half").glob("label=*"))
    summary = score_images(job, model, NETWORK)
    assert str(summary) == "embedded 0, reused 30, rejected 3, hidden 1, of 34"
    assert len(pd.read_parquet(tmp_path / "half")) == 30
