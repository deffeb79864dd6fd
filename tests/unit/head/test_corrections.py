"""Corrected labels for images that are in the store already."""

import pytest
from vectors import LABELS, make_store, train_run, write_manifest

from beam_flowers.errors import InputError, TrainingError
from beam_flowers.head.corrections import read_corrections


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path)


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "jsonl"])
def test_corrections_by_uri_and_by_content(tmp_path, kind):
    by_uri = write_manifest(tmp_path, kind, [{"uri": "/r/1.jpg", "label": "7"}])
    assert read_corrections(by_uri).labels == {"/r/1.jpg": "7"}
    by_content = write_manifest(tmp_path, kind, [{"sha256": "AB", "label": "é", "note": "x"}])
    assert read_corrections(by_content).labels == {"ab": "é"}


def test_relative_uris_start_at_the_manifest(tmp_path):
    manifest = write_manifest(tmp_path, "csv", [{"uri": "../a.jpg", "label": "x"}])
    assert read_corrections(manifest).labels == {str(tmp_path.parent / "a.jpg"): "x"}


def test_corrected_labels_train_and_the_store_stays(store, tmp_path):
    rows = [{"uri": f"/r/{i}.jpg", "label": "dog"} for i in range(0, 60, 3)]
    manifest = write_manifest(tmp_path, "csv", [*rows, {"uri": "/r/1.jpg", "label": ""}])
    plain, fixed = train_run(store), train_run(store, labels=manifest)
    assert fixed.bundle.labels == (*LABELS, "dog")
    counts = [fixed.result.metrics[side].count for side in ("training", "testing")]
    assert sum(counts) == 119
    assert fixed.bundle.dataset_hash != plain.bundle.dataset_hash
    assert train_run(store, labels=manifest).model_id == fixed.model_id
    assert train_run(store).model_id == plain.model_id


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([{"uri": "/r/x.jpg", "label": "a"}], TrainingError, r"fix.csv' names 1 .* '/r/x.jpg'"),
        ([{"sha256": "00", "label": "a"}], TrainingError, "by sha256 that the store does not hold"),
        (
            [{"uri": "/r/1.jpg", "label": "a"}, {"uri": "/r/1.jpg", "label": "b"}],
            TrainingError,
            "row 2 gives '/r/1.jpg' the label 'b', an earlier row 'a'",
        ),
        ([{"uri": "", "label": "a"}], InputError, "row 1: uri is empty"),
        ([{"name": "/r/1.jpg", "label": "a"}], InputError, "has the columns name, label; "),
    ],
)
def test_corrections_that_cannot_be_made(store, tmp_path, rows, error, message):
    with pytest.raises(error, match=message):
        train_run(store, labels=write_manifest(tmp_path, "csv", rows))


@pytest.mark.parametrize(
    ("name", "message"), [("a.xlsx", "not '.*a.xlsx'"), ("b.csv", "cannot be read")]
)
def test_manifests_that_cannot_be_read(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        read_corrections(str(tmp_path / name))
