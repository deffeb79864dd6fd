"""Embeddings in Beam's MLTransform."""

import contextlib
import pickle

import apache_beam as beam
import make_images
import numpy as np
import pytest
from apache_beam.ml.transforms.base import MLTransform

from beam_flowers import ImageEmbeddings
from beam_flowers.backbones.engine import load
from beam_flowers.backbones.resolve import resolve
from beam_flowers.images.decode import decode

BACKBONE = resolve("efficientnet-lite0")
IMAGES = [make_images.jpeg(seed=seed) for seed in range(6)]


def vectors(datas):
    engine = load(BACKBONE)
    return [engine.embed(decode(data, engine.recipe).pixels[None])[0].tolist() for data in datas]


def keep(row, path):
    with open(path, "ab") as file:
        pickle.dump(row if isinstance(row, dict) else row._asdict(), file)


def kept(path):
    with contextlib.suppress(EOFError), open(path, "rb") as file:
        while True:
            yield pickle.load(file)


def collected(rows, transform, folder):
    """(good rows, errors) by the in-process runner, as dicts."""
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        found = pipeline | beam.Create(rows) | transform
        for number, part in enumerate(found if isinstance(found, tuple) else [found]):
            (folder / str(number)).touch()
            _ = part | f"Keep {number}" >> beam.Map(keep, str(folder / str(number)))
    return [list(kept(folder / name)) for name in "01" if (folder / name).exists()]


@pytest.mark.parametrize("as_row", [False, True])
def test_an_image_becomes_its_embedding_and_other_columns_stay(tmp_path, as_row):
    path = tmp_path / "a.jpg"
    path.write_bytes(IMAGES[0])
    pixels = decode(IMAGES[1], load(BACKBONE).recipe).pixels
    rows = [{"id": i, "image": v} for i, v in enumerate([str(path), pixels, *IMAGES[2:]])]
    given = [beam.Row(**row) for row in rows] if as_row else rows
    step = ImageEmbeddings(["image"], BACKBONE)
    transform = MLTransform(write_artifact_location=str(tmp_path / "made")).with_transform(step)
    (found,) = collected(given, transform, tmp_path)
    assert sorted(found, key=lambda row: row["id"]) == [
        {"id": i, "image": v} for i, v in enumerate(vectors(IMAGES))
    ]


def test_several_columns_and_what_was_written_as_artifacts(tmp_path):
    step = ImageEmbeddings(["left", "right"], BACKBONE)
    row = {"left": IMAGES[0], "right": IMAGES[1]}
    made = str(tmp_path / "made")
    expected = dict(zip(row, vectors(row.values()), strict=True))
    written = MLTransform(write_artifact_location=made).with_transform(step)
    for number, transform in enumerate([written, MLTransform(read_artifact_location=made)]):
        folder = tmp_path / f"run {number}"
        folder.mkdir()
        assert collected([dict(row)], transform, folder) == [[expected]]


def test_only_elements_that_fail_go_to_the_errors(tmp_path):
    bad = [
        b"no image",
        str(tmp_path / "absent.jpg"),
        5,
        np.zeros((3, 3, 3), np.uint8),
        make_images.png()[:40],
    ]
    rows = [{"image": value} for value in [*IMAGES, *bad]]
    step = ImageEmbeddings(["image"], BACKBONE)
    transform = MLTransform(write_artifact_location=str(tmp_path / "made")).with_transform(step)
    good, errors = collected(rows, transform.with_exception_handling(), tmp_path)
    assert sorted(row["image"] for row in good) == sorted(vectors(IMAGES))
    assert len(errors) == len(bad)
    said = "\n".join(error["msg"] for error in errors)
    for cause in ("NotAnImage", "absent.jpg", "holds int", "do not fit", "Undecodable"):
        assert cause in said


def test_an_absent_column_ends_the_pipeline_with_the_columns(tmp_path):
    step = ImageEmbeddings(["photo"], BACKBONE)
    transform = MLTransform(write_artifact_location=str(tmp_path / "made")).with_transform(step)
    with pytest.raises(Exception, match="no column 'photo': the columns are image"):
        collected([{"image": IMAGES[0]}], transform, tmp_path)
