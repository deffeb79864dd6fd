"""Training on distorted copies: which of them train, which never do, what the model says of it."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stores import cli
from vectors import LABELS, SPLIT, add, digest, embeddings, examples, make_store, train_run

from beam_flowers.contrib.augment.distort import Augmentation, Distortions
from beam_flowers.contrib.augment.ledger import CopyVector
from beam_flowers.contrib.augment.table import AugmentedRows, augmented_root, describe_copies
from beam_flowers.contrib.augment.training import copies_held, with_copies
from beam_flowers.errors import StoreError
from beam_flowers.evaluation.card import model_card
from beam_flowers.head import sweep
from beam_flowers.head.bundle import read_bundle
from beam_flowers.head.examples import prepare
from beam_flowers.head.split import SPLITS
from beam_flowers.head.store_examples import read_examples
from beam_flowers.head.sweep import SweepOptions, cross_validate
from beam_flowers.store import vectors as store_vectors
from beam_flowers.store.commits import commit, latest
from beam_flowers.store.features import section_name
from beam_flowers.store.parts import Place, write_part

CROP, FLIP = Distortions(random_crop=10), Distortions(flip_left_right=True)


def copies(numbers, length, k, spread=0.3):
    """Copies of the images with these numbers, near to them."""
    for picture in embeddings(numbers, length, spread=1.6):
        noise = np.random.default_rng([k, int(picture.sha256[:8], 16)]).standard_normal(length)
        yield CopyVector(picture._replace(vector=picture.vector + np.float32(spread * noise)), k)


def changed(copy, **fields):
    return copy._replace(embedding=copy.embedding._replace(**fields))


def uri(copy):
    return copy.embedding.image.uri


def add_copies(store, name, found, distortions=CROP, parts=1, number=2):
    """Commits the copies `found`, in so many parts, for the backbone of that name."""
    table = augmented_root(store)
    plain = latest(store).sections[section_name(name, hashlib.sha256(name.encode()).hexdigest())]
    section = describe_copies(plain, Augmentation(number, distortions))
    place = Place(table, section_name(name, plain.fingerprint), section.fingerprint, "0" * 16)
    kind = AugmentedRows(section.fingerprint, name)
    found = list(found)
    written = [write_part(place, kind, kind.of_copies(found[i::parts])) for i in range(parts)]
    base = latest(table)
    sections = {**base.sections, place.section: replace(section, parts=tuple(written))}
    assert commit(table, replace(base, version=base.version + 1, sections=sections))


def every_copy(length=6, **kwargs):
    return [c for k in (1, 2) for c in copies(range(120), length, k, **kwargs)]


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path)


@pytest.fixture
def augmented(store):
    add_copies(store, "small", every_copy())
    return store


def sides(store):
    """The split of each image, by uri, as `train_run` has it."""
    prepared = prepare(read := read_examples(store, "small").examples, SPLIT)
    return {read.uris[r]: SPLITS[c] for r, c in zip(prepared.rows, prepared.codes, strict=True)}


def test_the_copies_change_the_model_and_it_says_so(augmented):
    plain, trained = train_run(augmented), train_run(augmented, augmented=True)
    assert plain.bundle.augmentation is None
    assert not np.array_equal(plain.bundle.head.weights, trained.bundle.head.weights)
    (section,) = latest(augmented_root(augmented)).sections.values()
    assert trained.bundle.augmentation == {
        "copies": 2,
        "distortions": CROP.as_dict(),
        "dataset_hash": section.dataset_hash,
    }
    folder = str(Path(augmented).parent / "model")
    assert read_bundle(folder).augmentation == trained.bundle.augmentation
    assert trained.bundle.dataset_hash == plain.bundle.dataset_hash
    assert "| distortions | random_crop 10 |" in model_card(trained.bundle)


def test_metrics_are_of_images_alone(augmented):
    plain, trained = train_run(augmented), train_run(augmented, augmented=True)
    counts = [{n: m.count for n, m in t.result.metrics.items()} for t in (plain, trained)]
    assert counts[0] == counts[1]
    assert counts[0]["training"] == counts[0]["tuned"] == 120 - counts[0]["testing"]


def test_copies_of_held_out_images_never_train(store):
    split, heads = sides(store), []
    for wrong in (1, 1000):
        found = [
            changed(c, vector=c.embedding.vector * (wrong if split[uri(c)] == "testing" else 1))
            for c in every_copy()
        ]
        add_copies(store, "small", found)
        heads.append(train_run(store, augmented=True).bundle.head)
    assert np.array_equal(heads[0].weights, heads[1].weights)
    assert np.array_equal(heads[0].bias, heads[1].bias)


def test_a_copy_of_the_same_bytes_elsewhere_does_not_bring_held_out_copies_in(store):
    split = sides(store)
    held_out = [c for c in every_copy() if split[uri(c)] == "testing"]
    poison = [
        changed(
            c,
            image=c.embedding.image._replace(uri=f"/else/{uri(c)[3:]}"),
            vector=c.embedding.vector * 1000,
        )
        for c in held_out
    ]
    models = []
    for found in ([], poison):
        training = [c for c in every_copy() if split[uri(c)] == "training"]
        add_copies(store, "small", training + found)
        models.append(train_run(store, augmented=True).bundle.head.weights)
    assert np.array_equal(*models)


def test_each_fold_trains_on_the_copies_of_its_own_training_side(augmented, monkeypatch):
    samples = []
    train_head = sweep.train_head
    monkeypatch.setattr(
        sweep,
        "train_head",
        lambda sample, *a, **k: samples.append(sample) or train_head(sample, *a, **k),
    )
    stored = with_copies(augmented, read_examples(augmented, "small"))
    cross_validate(stored.examples, split=SPLIT, folds=4)
    assert len(samples) == 4
    of = {row: n for k in stored.examples.copies for n, row in enumerate(k)}
    for sample in samples:
        images = {row for row in sample.rows.tolist() if row < 120}
        behind = [row for row in sample.rows.tolist() if row >= 120]
        assert {of[row] for row in behind} == images
        assert len(behind) == len(set(behind)) == 2 * len(images)
        labels = dict(zip(sample.rows.tolist(), sample.class_ids.tolist(), strict=True))
        assert all(labels[row] == labels[of[row]] for row in behind)


def test_a_content_on_two_sides_trains_without_its_copies(augmented):
    stored = with_copies(augmented, read_examples(augmented, "small"))
    prepared = prepare(stored.examples, SPLIT)
    training = prepared.codes == SPLITS.index("training")
    one, other = np.flatnonzero(training)[0], np.flatnonzero(~training)[0]
    groups = list(prepared.groups)
    groups[other] = groups[one]
    before = prepared.training(stored.examples, training).rows
    after = replace(prepared, groups=groups).training(stored.examples, training).rows
    lost = stored.examples.copies[:, prepared.rows[one]]
    assert set(before.tolist()) - set(after.tolist()) == set(lost.tolist())


def test_a_sweep_with_copies(augmented):
    trained = train_run(augmented, augmented=True, sweep=SweepOptions(3))
    assert len(trained.bundle.sweep) == 7
    assert trained.bundle.augmentation["copies"] == 2


def test_two_trainings_are_equal_however_the_copies_lie(augmented, store):
    one = train_run(augmented, augmented=True)
    add_copies(store, "small", reversed(every_copy()), parts=7)
    again = train_run(store, augmented=True)
    assert one.model_id == again.model_id


def test_vectors_in_a_file_give_the_same_model(augmented, monkeypatch):
    one = train_run(augmented, augmented=True)
    monkeypatch.setattr(store_vectors, "IN_MEMORY", 0)
    assert train_run(augmented, augmented=True).model_id == one.model_id


def test_corrections_go_for_the_copies_too(augmented, tmp_path):
    manifest = tmp_path / "fix.csv"
    lines = [f"{digest(i)},{LABELS[(i + 1) % 3]}" for i in range(120)]
    manifest.write_text("sha256,label\n" + "\n".join(lines) + "\n")
    trained = train_run(augmented, augmented=True, labels=str(manifest))
    assert trained.result.metrics["training"].accuracy > 0.7


def test_images_without_copies_are_named(store):
    found = [c for c in every_copy() if uri(c) not in ("/r/7.jpg", "/r/8.jpg")]
    add_copies(store, "small", found)
    warnings = train_run(store, augmented=True).result.warnings
    (line,) = [w for w in warnings if "copies" in w]
    assert line.startswith("2 labelled images have not all distorted copies, such as '/r/7.jpg'")


def test_copies_of_contents_that_the_store_has_no_more_are_passed_over(store):
    add_copies(store, "small", every_copy())
    expected = train_run(store, augmented=True).bundle.head.weights
    gone = [changed(c, sha256=digest(uri(c))) for c in copies(range(200, 220), 6, 1, 99)]
    add_copies(store, "small", [*every_copy(), *gone])
    assert np.array_equal(train_run(store, augmented=True).bundle.head.weights, expected)


def test_files_of_one_content_share_its_copies(store):
    twin = next(embeddings([0], 6, spread=1.6))
    add(Path(store), "small", [twin._replace(image=twin.image._replace(uri="/r/twin.jpg"))])
    add_copies(store, "small", every_copy())
    stored = with_copies(store, read_examples(store, "small"))
    rows = [stored.examples.uris.index(uri) for uri in ("/r/0.jpg", "/r/twin.jpg")]
    assert np.array_equal(*(stored.examples.copies[:, row] for row in rows))
    assert not stored.warnings


def test_a_store_without_copies(store):
    with pytest.raises(StoreError, match=r"no distorted copies for 'small'; make them with"):
        train_run(store, augmented=True)
    assert copies_held(store, read_examples(store, "small").fingerprint) == 0


def test_copies_of_several_backbones_stand_side_by_side(augmented):
    add_copies(augmented, "large", every_copy(9)[:-3], number=3)
    stored = with_copies(augmented, read_examples(augmented, "small+large"))
    assert stored.examples.copies.shape == (2, 118)
    assert np.count_nonzero(stored.examples.copies < 0) == 3
    one, other = (
        with_copies(augmented, read_examples(augmented, name)) for name in ("small", "large")
    )
    uri, k = stored.examples.uris[5], 1
    place = [e.examples.uris.index(uri) for e in (one, other)]
    blocks = [
        e.examples.vectors[e.examples.copies[k, at]]
        for e, at in zip((one, other), place, strict=True)
    ]
    joined = stored.examples.vectors[stored.examples.copies[k, 5]]
    assert np.allclose(joined, np.concatenate(blocks) * stored.factor)
    assert copies_held(augmented, stored.fingerprint) == 2
    assert train_run(augmented, "small+large", augmented=True).bundle.augmentation["copies"] == 2


def test_copies_by_different_distortions_are_not_joined(augmented):
    add_copies(augmented, "large", every_copy(9), FLIP)
    with pytest.raises(StoreError, match="different distortions"):
        train_run(augmented, "small+large", augmented=True)


def test_stacked_vectors_are_indexed_like_one_array():
    one, other = examples(7).vectors, examples(5, seed=1).vectors
    stacked = store_vectors.Stacked(one, other)
    whole = np.concatenate([one, other])
    assert stacked.shape == whole.shape
    assert len(stacked) == 12
    for rows in (3, 9, slice(2, 9), slice(None), np.array([11, 0, 7, 7]), np.array([], np.intp)):
        assert np.array_equal(stacked[rows], whole[rows])


def test_the_command_says_what_it_does_not_use(augmented, tmp_path, capsys):
    command = ["train", augmented, "--model", tmp_path / "m", "--backbone", "small"]
    assert cli(*command) == 0
    assert "note: the store has 2 distorted copies an image" in capsys.readouterr().out
    assert cli(*command, "--augmented") == 0
    assert "note:" not in capsys.readouterr().out
    assert read_bundle(str(tmp_path / "m")).augmentation["copies"] == 2
