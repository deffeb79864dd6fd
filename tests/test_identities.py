"""Identities that stores, models and tables on users' disks depend on, as literals.

A failure here means that files written before are read as something else: change the code, not the
literal. Only the bytes of a manifest are recorded again when a field is added.
"""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from places import KEY, OLD
from stores import cli

from beam_flowers.backbones.catalogue import CATALOGUE
from beam_flowers.backbones.resolve import ResolvedBackbone, resolve
from beam_flowers.head.bundle import model_id, read_bundle
from beam_flowers.records import Embedding, Image, Reject
from beam_flowers.scoring.read_table import read_scores
from beam_flowers.store.commits import Manifest, Section, decode_manifest, encode_manifest, latest
from beam_flowers.store.features import read_features
from beam_flowers.store.parts import Part, Place, RejectRows, describe_part
from beam_flowers.store.schema import StoreRows, rejects_table

LITE0 = "bdb160ff419f42ea1f5d4abb07901dda66cdbe61b737a0c56f9a57797fcf6680"
LITE0_INT8 = "064edfc0671ad2aee501d7b912706106d152c1f907f889b03532ed39480756aa"
DATASET = "a81bd3bd2e76e2ac9371e6cf20ee34ba96016525ea4488559009bb9026c04ea7"
MODEL = "feef1ee3e6d81b8f7ef15e0ca262dd03812e632d6938fb0db28e821f747118d0"


def test_fingerprint_of_the_packaged_backbone():
    assert resolve("efficientnet-lite0").fingerprint == LITE0
    assert resolve("efficientnet-lite0", precision="int8").fingerprint == LITE0_INT8


FINGERPRINTS = {
    "efficientnet-lite1": "79c993ff3ea569d09bd8cc947bbf74e4b6cb6acb5f5caf95276bf7409961b6e3",
    "inception-v3": "1c8396224cfa4a58d77a56fd010ceafe4f1b2b0c411d26b337dca348cdb111f0",
    "inception-v3 bfloat16": "d4d26b4c26692e42e9818eaa28c273ec9bdad689664d66f3433f6a3e402953c9",
    "inception-v3 float16": "f62d253288e7fa90d8bdc35b321e2d41dde1622bcf99803c5c615cfe56b45b4b",
    "inception-v3 0..1": "783edc4982a45f92faade434211e88b1792c5088cde0f2d9825b1ada4907932d",
    "own": "568364badf54e23e2b904230d9636d11a5ac68ba93419d1eb59eb626b9548b96",
    "own torch": "29cb29510a2bd8b57458466dd604a40d025eedd18b9d15e29e4872a3fba01235",
    "own caffe": "bcab99d5c8d0d1a931ce977155bc27bc9c562dd6138dc57e18a07190ca79d983",
}


def made_up(name):
    """A backbone whose weights have the digest of the text `weights`."""
    row = next((row for row in CATALOGUE if row.name == name.split()[0]), None)
    row = row or replace(CATALOGUE[-1], name="own", input_size=None, crop=0.9, resample="bicubic")
    backbone = ResolvedBackbone(row, "keras-weights", "", hashlib.sha256(b"weights").hexdigest())
    match name.split()[1:]:
        case ["bfloat16"]:
            return replace(backbone, precision="bfloat16")
        case ["float16"]:
            return replace(backbone, vectors="float16")
        case ["0..1"]:
            return replace(backbone, row=replace(row, pixel_range=(0.0, 1.0)))
        case ["torch"]:
            torch = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "resize": 256}
            row = replace(row, pixel_range=(0.0, 1.0), crop=None, **torch)
            return replace(backbone, row=row)
        case ["caffe"]:
            caffe = {"mean": (103.939, 116.779, 123.68), "channels": "bgr"}
            return replace(backbone, row=replace(row, pixel_range=(0.0, 255.0), **caffe))
    return backbone


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_fingerprints_of_recipes(name):
    assert made_up(name).fingerprint == FINGERPRINTS[name]


def embedding(number, vectors, label):
    """A row with made-up content: powers of two, which every encoding keeps."""
    sha256 = hashlib.sha256(b"%d" % number).hexdigest()
    image = Image(f"/photos/{number}.jpg", "/photos", f"{number}.jpg", label, None, 9, 1)
    return Embedding(image, sha256, 4, 3, "JPEG", np.exp2(np.arange(4) - number).astype(vectors))


@pytest.mark.parametrize("vectors", ["float32", "float16"])
def test_dataset_hash_of_made_up_vectors(vectors):
    labels = ["daisy", None, "玫瑰"]
    rows = [embedding(n, vectors, label) for n, label in enumerate(labels)]
    kind = StoreRows(LITE0, "efficientnet-lite0", vectors)
    rejects = rejects_table([Reject(rows[0].image, "decode", "Truncated", "cut", None)])
    parts = (
        Part("part-" + "0" * 24 + ".parquet", 3, f"{kind.digest(kind.table(rows)):064x}"),
        Part("rejects-" + "0" * 24 + ".parquet", 1, f"{RejectRows().digest(rejects):064x}", 1),
    )
    assert Section(LITE0, {}, parts).dataset_hash == (
        "215461c651787fcbab79eb5406fed839fac96776f5d970f36f3acce9bd9321ec"
    )


MANIFEST = Manifest(
    3,
    "0123456789abcdef",
    {
        KEY: Section(
            LITE0,
            {"name": "efficientnet-lite0", "encoding": "split"},
            (
                Part("part-" + "1" * 24 + ".parquet", 2, "a" * 64),
                Part("rejects-" + "2" * 24 + ".parquet", 1, "b" * 64, 1),
            ),
            ("/photos/玫瑰",),
        )
    },
    {"listed": 3},
)
MANIFEST_SHA256 = "ab37dba3ea9e3991506d715edc1f7b4c996e584e868a6fa40de3e7145a341c12"


def test_bytes_of_a_manifest():
    assert hashlib.sha256(encode_manifest(MANIFEST)).hexdigest() == MANIFEST_SHA256
    assert decode_manifest(encode_manifest(MANIFEST), "3.json") == MANIFEST


@pytest.fixture
def old(tmp_path):
    """A copy of the old files, which commands may change."""
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def test_the_old_store_is_read_with_the_same_hashes(old):
    section, features = read_features(str(old / "store"))
    assert (len(features.uris), features.vectors.shape) == (21, (21, 1280))
    assert section.fingerprint == LITE0
    assert section.dataset_hash == DATASET
    place = Place(str(old / "store"), KEY, LITE0)
    kind = StoreRows(LITE0, "efficientnet-lite0")
    # What version 0.1 wrote does not say how many bytes a part has, and which.
    found = [describe_part(place, part.name, kind) for part in section.parts]
    assert {replace(part, bytes=None, sha256=None) for part in found} == set(section.parts)


def test_the_old_model_is_read_with_the_same_id(old):
    bundle = read_bundle(str(old / "model"))
    assert model_id(bundle) == MODEL
    assert bundle.labels == ("daisy", "dandelion", "roses", "sunflowers", "tulips")


@pytest.mark.parametrize("name", ["scores.csv", "scores.jsonl", "scores.parquet", "scores.arrow"])
def test_old_score_tables_are_read(old, name):
    assert_same(read_scores(str(old / name)), read_scores(str(old / "table")))


def test_the_old_model_scores_the_old_store_as_before(old):
    table = old / "new.parquet"
    assert cli("score", old / "store", "--model", old / "model", "--output", table) == 0
    assert_same(read_scores(str(table)), read_scores(str(old / "scores.parquet")))
    before = pq.read_table(old / "scores.parquet")
    further = ["given_label", "relative_path"]
    assert pq.read_table(table).column_names == [*before.column_names, *further]


def test_the_old_store_trains_the_same_classes(old):
    assert cli("train", old / "store", "--model", old / "new") == 0
    bundle = read_bundle(str(old / "new"))
    assert bundle.labels == read_bundle(str(old / "model")).labels
    assert bundle.dataset_hash == DATASET
    assert latest(str(old / "store")).version == 2


def assert_same(table, other):
    """Scores of one model for the same images; BLAS adds up in another order elsewhere."""
    assert table.uris == other.uris
    assert table.given == other.given
    assert table.model_id == other.model_id == MODEL
    assert [r["error_class"] for r in table.rejects] == ["Truncated"]
    np.testing.assert_allclose(table.scores, other.scores, atol=1e-5)
