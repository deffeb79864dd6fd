"""The evaluate command and the model card: on which images, and what is written."""

import argparse
import csv
import hashlib
import json
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest

from beam_flowers.cli.evaluate import fill as fill_evaluate
from beam_flowers.cli.evaluate import run as evaluate
from beam_flowers.errors import InputError, ModelError
from beam_flowers.evaluation.card import model_card
from beam_flowers.head.bundle import Bundle, read_bundle, write_bundle
from beam_flowers.head.lbfgs import LbfgsOptions
from beam_flowers.head.split import SplitOptions
from beam_flowers.head.store_examples import read_examples
from beam_flowers.head.training import train
from beam_flowers.records import Embedding, Image
from beam_flowers.store.append import append_parts, store_place
from beam_flowers.store.parts import write_part
from beam_flowers.workflows.evaluate import EvaluationJob, evaluate_model
from beam_flowers.workflows.train import train_model

FINGERPRINT = "ab" * 32
LABELS = ("a|b", "玫瑰", "$x_")


def digest(value):
    return hashlib.sha256(str(value).encode()).hexdigest()


def embeddings(count, classes=LABELS, first=0, spread=1.4):
    """Images of vectors that scatter around one centre a class; the first two are mislabelled."""
    centres = np.random.default_rng(99).standard_normal((len(classes), 12))
    for i in range(first, first + count):
        noise = np.random.default_rng(i).standard_normal(12)
        vector = (centres[i % len(classes)] + spread * noise).astype(np.float32)
        label = classes[(i + (i < 2)) % len(classes)]
        image = Image(f"/r/{i}.jpg", "/r", f"{i}.jpg", label, None, 10, 1_700_000_000_000_000)
        yield Embedding(image, digest(i), 40, 30, "JPEG", vector)


def make_store(root, rows, fingerprint=FINGERPRINT):
    place, kind = store_place(str(root), "tiny", fingerprint)
    append_parts(place, kind, {}, [write_part(place, kind, kind.table(list(rows)))])


@pytest.fixture
def trained(tmp_path):
    """A folder with a store of 240 images and the model trained on it."""
    make_store(tmp_path / "store", embeddings(240))
    train_model(
        str(tmp_path / "store"),
        str(tmp_path / "model"),
        LbfgsOptions(),
        SplitOptions(validation_percentage=20, testing_percentage=25),
        seed=3,
    )
    return tmp_path


def job(folder, **settings):
    names = {name: str(folder / name) for name in ("store", "model", "output")}
    return EvaluationJob(**{**names, "folds": 0, **settings})


def run(folder, *flags):
    parser = argparse.ArgumentParser()
    fill_evaluate(parser)
    places = [str(folder / "store"), "--model", str(folder / "model")]
    output = ["--output", str(folder / "output")]
    return evaluate(parser.parse_args([*places, *output, *flags]), [])


# The command


def test_the_testing_side_is_the_one_of_the_training(trained, capsys):
    assert run(trained, "--progress", "none") == 0
    report = json.loads((trained / "output" / "evaluation.json").read_text())
    metrics = read_bundle(str(trained / "model")).metrics["testing"]
    assert report["accuracy"]["value"] == pytest.approx(metrics["accuracy"], abs=1e-6)
    assert report["accuracy"]["images"] == metrics["count"] == report["measured"]["images"]
    assert report["cross_entropy"]["value"] == pytest.approx(metrics["cross_entropy"], abs=1e-6)
    assert report["measured"]["split"]["testing_percentage"] == 25
    assert not report["measured"]["store_changed"]
    printed = capsys.readouterr()
    assert "25 % testing, seed 3): they had no part in the training" in printed.out
    assert printed.err == ""


def test_every_section_says_what_it_was_measured_on(trained):
    report = evaluate_model(job(trained, folds=3, neighbours="/r/7.jpg")).report
    sections = {key: value for key, value in report.items() if isinstance(value, dict)}
    del sections["model"], sections["measured"]
    assert len(sections) == 10
    assert all("images" in section["measured_on"] for section in sections.values())
    markdown = (trained / "output" / "evaluation.md").read_text()
    assert "| label | precision | recall | F1 | images with it | images given it |" in markdown
    assert markdown.count("\n## ") == markdown.count("\n\nMeasured on ") == 8


def test_the_tables_agree_with_each_other(trained):
    report = evaluate_model(job(trained, split="all")).report
    with (trained / "output" / "confusion.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    with (trained / "output" / "misclassified.csv").open(newline="", encoding="utf-8") as file:
        mistakes = list(csv.DictReader(file))
    matrix = np.array([row[1:] for row in rows], dtype=int)
    assert header[1:] == [row[0] for row in rows] == sorted(LABELS)
    assert matrix.sum() == 240 == report["accuracy"]["images"]
    assert len(mistakes) == 240 - matrix.trace() == len(report["misclassified"]["rows"]) > 0
    assert all(row["label"] != row["predicted"] for row in mistakes)


def test_mislabelled_images_are_suspected(trained):
    make_store(trained / "clear", embeddings(120, spread=0.3))
    settings = {"store": str(trained / "clear"), "split": "all", "folds": 5}
    section = evaluate_model(job(trained, **settings)).report["suspected_label_errors"]
    assert section["images"] == 120
    found = {row["uri"] for row in section["rows"]}
    # The rule would rather miss one of two than name a right label.
    assert "/r/1.jpg" in found <= {"/r/0.jpg", "/r/1.jpg"}


def test_two_runs_give_equal_bytes_without_the_paths_of_the_machine(trained):
    runs = []
    for output in ("one", "two"):
        written = evaluate_model(job(trained, output=str(trained / output), folds=3)).written
        runs.append({name: (trained / output / name).read_bytes() for name in written})
    assert runs[0] == runs[1]
    assert str(trained).encode() not in b"".join(runs[0].values())


def test_neighbours_are_listed_by_uri(trained, capsys):
    run(trained, "--neighbours", "/r/7.jpg", "--folds", "0")
    assert "nearest to /r/7.jpg (label: 玫瑰):" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"no vector of '/r/none.jpg'"):
        evaluate_model(job(trained, neighbours="/r/none.jpg"))


def test_a_changed_store_is_said_plainly(trained, capsys):
    make_store(trained / "store", embeddings(30, first=300))
    run(trained, "--folds", "0")
    assert "warning: the store is not as it was when the model was trained" in (
        capsys.readouterr().err
    )
    assert "**Warning:** the store is not" in (trained / "output" / "evaluation.md").read_text()


def test_labels_that_the_model_does_not_know_are_in_no_number(trained):
    make_store(trained / "store", embeddings(30, first=300, classes=("lily", "玫瑰")))
    report = evaluate_model(job(trained, split="all")).report
    assert report["measured"]["unknown"] == {"lily": 15}
    assert report["accuracy"]["images"] == 255
    assert "'lily' 15" in report["measured"]["warnings"][0]


def test_a_store_of_other_images_is_measured_whole(trained):
    make_store(trained / "other", embeddings(9, classes=LABELS[:1], first=600))
    report = evaluate_model(job(trained, store=str(trained / "other"), split="all", folds=5)).report
    assert report["accuracy"]["images"] == 9
    assert report["suspected_label_errors"] is None


def test_without_matplotlib_all_but_the_png_is_written(trained, monkeypatch, capsys):
    assert run(trained, "--folds", "0") == 0
    (trained / "output" / "confusion.png").write_bytes(b"of an earlier run")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert run(trained, "--folds", "0") == 0
    assert "beam-flowers[plots]" in capsys.readouterr().out
    names = {path.name for path in (trained / "output").iterdir()}
    assert names == {"evaluation.json", "evaluation.md", "confusion.csv", "misclassified.csv"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "test"}, "unknown split 'test'"),
        ({"folds": 1}, "folds must be 2 or more, or 0"),
        ({"folds": -1}, "folds must be 2 or more, or 0"),
        ({"output": "model/report"}, "lies in the model"),
        ({"output": "store"}, "lies in the store"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, settings, message):
    if "output" in settings:
        settings = {"output": str(tmp_path / settings["output"])}
    with pytest.raises(InputError, match=message):
        job(tmp_path, **settings)


def test_an_empty_side_is_named(trained):
    train_model(
        str(trained / "store"),
        str(trained / "model"),
        LbfgsOptions(),
        SplitOptions(testing_percentage=0),
    )
    with pytest.raises(InputError, match="the testing side has no image"):
        evaluate_model(job(trained))


def test_a_store_without_a_known_label_is_refused(trained):
    make_store(trained / "other", embeddings(9, classes=("lily", "oak"), first=600))
    with pytest.raises(InputError, match=r"their labels are \['lily', 'oak'\]"):
        evaluate_model(job(trained, store=str(trained / "other"), split="all"))


def test_vectors_of_another_backbone_are_refused(trained):
    make_store(trained / "other", embeddings(9), fingerprint="cd" * 32)
    with pytest.raises(ModelError, match="has none of abababab; it holds tiny-cdcdcdcd"):
        evaluate_model(job(trained, store=str(trained / "other")))
    assert evaluate_model(job(trained, backbone="tiny")).written
    with pytest.raises(ModelError, match="vectors of 'tiny', not of 'large'"):
        evaluate_model(job(trained, backbone="large"))


def test_vectors_that_are_not_finite_are_refused(trained):
    row = next(embeddings(1, first=700))
    broken = row._replace(vector=np.full(12, np.nan, np.float32))
    make_store(trained / "other", [*embeddings(9, first=600), broken])
    with pytest.raises(InputError, match=r"1 vectors .* '/r/700.jpg'"):
        evaluate_model(job(trained, store=str(trained / "other"), split="all"))


def test_corrected_labels_are_those_measured_on(trained):
    before = evaluate_model(job(trained, split="all")).report
    corrected = {"uri": "/r/0.jpg", "label": LABELS[0]}
    (trained / "labels.jsonl").write_text(json.dumps(corrected))
    report = evaluate_model(job(trained, split="all", labels=str(trained / "labels.jsonl"))).report
    assert report["accuracy"]["right"] == before["accuracy"]["right"] + 1
    assert report["measured"]["store_changed"]


# Several labels an image


@pytest.fixture
def many(tmp_path):
    """A store of images with one or two labels, and a model of it."""
    rows = zip(embeddings(160), labelled_sums(160), strict=True)
    make_store(
        tmp_path / "store",
        (b._replace(image=b.image._replace(label=text), vector=v) for b, (text, v) in rows),
    )
    stored = read_examples(str(tmp_path / "store"))
    split = SplitOptions(testing_percentage=30)
    result = train(replace(stored.examples, separator=";"), split=split)
    bundle = Bundle(
        head=result.head,
        labels=result.labels,
        backbone=stored.backbone,
        fingerprint=stored.fingerprint,
        pixels={},
        recipe={"name": "lbfgs"},
        split=asdict(split),
        seed=0,
        dataset_hash=stored.dataset_hash,
        metrics={name: asdict(metrics) for name, metrics in result.metrics.items()},
        versions={},
        thresholds=result.thresholds,
        label_separator=";",
    )
    write_bundle(str(tmp_path / "model"), bundle)
    return tmp_path


def labelled_sums(count):
    """Texts of one or two of three labels, and vectors that are sums of the labels' centres."""
    centres = 3 * np.eye(3, 12)
    for i in range(count):
        has = [i % 3, (i // 3) % 3]
        noise = np.random.default_rng(i).standard_normal(12)
        vector = centres[sorted(set(has))].sum(axis=0) + 0.7 * noise
        yield "; ".join("xyz"[label] for label in dict.fromkeys(has)), vector.astype(np.float32)


def test_a_multi_label_model_gets_the_same_report(many, capsys):
    assert run(many) == 0
    report = json.loads((many / "output" / "evaluation.json").read_text())
    metrics = read_bundle(str(many / "model")).metrics["testing"]
    assert report["accuracy"]["images"] == metrics["count"]
    assert report["accuracy"]["value"] == pytest.approx(metrics["accuracy"], abs=1e-6)
    assert report["cross_entropy"]["value"] == pytest.approx(metrics["cross_entropy"], abs=1e-6)
    assert report["exact"]["right"] <= report["accuracy"]["right"]
    assert min(row["f1"] for row in report["labels"]["rows"]) > 0.8
    assert report["suspected_label_errors"]["images"] == 160
    markdown = (many / "output" / "evaluation.md").read_text()
    assert "| All labels right |" in markdown
    assert not (many / "output" / "confusion.png").exists()
    assert "plots" not in capsys.readouterr().out


def test_wrong_and_missing_labels_are_suspected(many):
    rows = {"/r/0.jpg": "y", "/r/1.jpg": "x; y"}
    lines = [json.dumps({"uri": uri, "label": label}) for uri, label in rows.items()]
    (many / "labels.jsonl").write_text("\n".join(lines))
    settings = {"folds": 5, "split": "all", "labels": str(many / "labels.jsonl")}
    section = evaluate_model(job(many, **settings)).report["suspected_label_errors"]
    found = {(row["uri"], row["label"], row["holds"]) for row in section["rows"]}
    assert {("/r/0.jpg", "y", True), ("/r/0.jpg", "x", False)} <= found


def test_beam_flags_have_no_meaning_here(trained):
    with pytest.raises(InputError, match="--runner=X"):
        evaluate(argparse.Namespace(), ["--runner=X"])


# Model card


def test_the_card_says_where_a_model_comes_from_and_what_was_measured(trained):
    bundle = read_bundle(str(trained / "model"))
    card = model_card(bundle)
    assert card == model_card(bundle)
    for text in (bundle.dataset_hash, bundle.fingerprint, r"0. $x\_", r"a\|b", "25"):
        assert text in card
    testing = bundle.metrics["testing"]
    line = next(line for line in card.splitlines() if line.startswith("| testing"))
    assert f"{testing['accuracy']:.1%}".replace("%", " %") in line
    assert f"| {testing['count']} |" in line
    assert "unknown: not a backbone of the catalogue" in card
    headings = [line[3:] for line in card.splitlines() if line.startswith("## ")]
    assert headings[-2:] == ["Intended use", "Limits"]


def test_the_card_names_the_licence_of_each_known_backbone(trained):
    bundle = read_bundle(str(trained / "model"))
    names = "efficientnet-lite0+mine"
    card = model_card(replace(bundle, backbone=names, fingerprint="ab+cd"))
    lines = [line for line in card.splitlines() if line.startswith("| Backbone's licence")]
    assert lines[0] == "| Backbone's licence | Apache-2.0 |"
    assert "unknown" in lines[1]


def test_the_card_of_a_multi_label_model_names_the_thresholds(many):
    card = model_card(read_bundle(str(many / "model")))
    assert "a sigmoid for each label" in card
    assert card.count("given from a score of") == 3
