"""`WriteStore`, `WriteScores` and `ReadStore`: rows and rejects, tables opened when they run."""

import pickle
from dataclasses import replace

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.testing.test_pipeline import TestPipeline as Pipeline
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from stores import rejects, rows
from vectors import LABELS

import beam_flowers as bf
from beam_flowers.errors import InputError
from beam_flowers.head.bundle import Bundle
from beam_flowers.head.softmax import Head
from beam_flowers.scoring.ranking import make_labellers
from beam_flowers.scoring.table import ScoreLayout, ScoreRows
from beam_flowers.store.commits import latest, versions

NETWORK = bf.resolve("efficientnet-lite0")


def image(number, modified=1):
    return bf.Image(f"/r/{number}.jpg", "/r", f"{number}.jpg", "rose", None, 9, modified)


def embedding(number, modified=1, length=3):
    vector = np.float32([number, 1, 2][:length])
    return bf.Embedding(image(number, modified), f"{number:064x}", 4, 3, "JPEG", vector)


def reject(number, modified=1):
    return bf.Reject(image(number, modified), "decode", "Truncated", "cut off", f"{number:064x}")


def write(store, *elements, windows=None):
    with Pipeline() as pipeline:
        found = pipeline | beam.Create(elements)
        if windows:
            found = found | beam.WindowInto(windows)
        found | bf.WriteStore(str(store), NETWORK)


def uris(store):
    return [row["uri"] for row in rows(store)]


# --- stores ---


def test_a_row_takes_the_place_of_a_reject_and_a_reject_that_of_a_row(tmp_path):
    write(tmp_path / "store", embedding(1), embedding(2), reject(3))
    write(tmp_path / "store", reject(1), embedding(3))
    assert uris(tmp_path / "store") == ["/r/2.jpg", "/r/3.jpg"]
    assert rejects(tmp_path / "store") == {"/r/1.jpg": "Truncated"}


def test_rows_are_counted_and_rejects_are_not(tmp_path):
    with Pipeline() as pipeline:
        good = pipeline | "Good" >> beam.Create([embedding(1), embedding(2)])
        bad = pipeline | "Bad" >> beam.Create([reject(3)])
        written = (good, bad) | bf.WriteStore(str(tmp_path / "store"), NETWORK)
        assert_that(written, equal_to([2]))


def test_rejects_alone_are_committed(tmp_path):
    write(tmp_path / "store", reject(1))
    assert rejects(tmp_path / "store") == {"/r/1.jpg": "Truncated"}
    assert versions(str(tmp_path / "store")) == [1]


def test_nothing_at_all_commits_nothing(tmp_path):
    with Pipeline() as pipeline:
        none = pipeline | beam.Create([1]) | beam.Filter(lambda _: False)
        assert_that(none | bf.WriteStore(str(tmp_path / "store"), NETWORK), equal_to([]))
    assert not latest(str(tmp_path / "store")).version


def test_a_row_and_a_reject_of_one_file_are_refused(tmp_path):
    with pytest.raises(Exception, match="two of the new rows have one uri"):
        write(tmp_path / "store", embedding(1), reject(1))
    assert not latest(str(tmp_path / "store")).version


@pytest.mark.slow
@pytest.mark.parametrize(("first", "last"), [(embedding, reject), (reject, embedding)])
def test_of_a_file_that_changed_within_a_window_the_newest_counts(first, last, tmp_path):
    elements = [TimestampedValue(e, 1) for e in (last(1, 5), first(1, 4), embedding(2))]
    write(tmp_path / "store", *elements, windows=FixedWindows(60))
    is_row = last is embedding
    assert uris(tmp_path / "store") == ["/r/1.jpg", "/r/2.jpg"][not is_row :]
    assert rejects(tmp_path / "store") == ({} if is_row else {"/r/1.jpg": "Truncated"})


def test_each_window_commits_its_rejects(tmp_path):
    elements = [TimestampedValue(reject(number), 60 * number) for number in range(3)]
    write(tmp_path / "store", *elements, windows=FixedWindows(60))
    assert len(rejects(tmp_path / "store")) == len(versions(str(tmp_path / "store"))) == 3


@pytest.mark.slow
def test_a_store_is_opened_when_the_pipeline_runs(tmp_path):
    """Graphs are built first, then the store comes to be, then they run."""
    store = str(tmp_path / "store")
    reading, writing = Pipeline(), Pipeline()
    assert_that(
        reading | bf.ReadStore(store) | beam.Map(lambda b: b.image.uri), equal_to(["/r/1.jpg"])
    )
    writing | beam.Create([embedding(2)]) | bf.WriteStore(store, NETWORK)
    assert not (tmp_path / "store").exists()
    write(store, embedding(1))
    assert reading.run().wait_until_finish() == "DONE"
    assert writing.run().wait_until_finish() == "DONE"
    assert uris(store) == ["/r/1.jpg", "/r/2.jpg"]


def test_a_graph_may_run_twice(tmp_path):
    """Each run has an id of its own: with one from the graph, the second would be passed over."""
    store = str(tmp_path / "store")
    pipeline = Pipeline()
    pipeline | beam.Create([embedding(1)]) | bf.WriteStore(store, NETWORK)
    runs = []
    for _ in range(2):
        pipeline.run().wait_until_finish()
        runs.append(latest(store).run)
    assert versions(store) == [1, 2]
    assert runs[0] != runs[1]
    assert uris(store) == ["/r/1.jpg"]


@pytest.mark.parametrize("store", ["absent", "empty"])
def test_a_store_that_is_not_there_ends_the_pipeline(store, tmp_path):
    (tmp_path / "empty" / "__commits").mkdir(parents=True)
    with pytest.raises(Exception, match=str(tmp_path / store)), Pipeline() as pipeline:
        pipeline | bf.ReadStore(str(tmp_path / store))


# --- score tables ---


def model(seed=1, multi_label=False):
    head = Head(np.eye(3, dtype=np.float32), np.zeros(3, np.float32), multi_label=multi_label)
    described = {"pixels": {}, "recipe": {}, "split": {}, "metrics": {}, "versions": {}}
    thresholds = (0.5, 0.5, 0.5) if multi_label else ()
    return Bundle(
        head,
        LABELS,
        "net",
        "f" * 64,
        seed=seed,
        dataset_hash="d",
        thresholds=thresholds,
        **described,
    )


MODELS = {
    "one": [model()],
    "several": [model(), model(2), model(3)],
    "several labels": [model(multi_label=True)],
    "mixed": [model(), model(2, multi_label=True)],
}
RULES = {
    "no rule": None,
    "a threshold": bf.AcceptanceRule(threshold=0.6),
    "a margin": bf.AcceptanceRule(min_margin=0.3),
}


ORDER = [("uri", "ascending"), ("model_id", "ascending")]


def some(count=20):
    random = np.random.default_rng(0)
    for number in range(count):
        vector = random.standard_normal(3).astype(np.float32) * 2
        yield embedding(number)._replace(vector=vector)


@pytest.mark.parametrize("top_k", [1, 2, 5])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("models", MODELS)
def test_rows_of_scores_are_the_rows_of_their_vectors(models, rule, top_k):
    if rule == "a margin" and any(bundle.head.multi_label for bundle in MODELS[models]):
        pytest.skip("a model with several labels takes no margin")
    kind = ScoreRows.of(MODELS[models], RULES[rule], ScoreLayout(top_k))
    found = list(some())
    scores = list(kind.scores(found))
    np.random.default_rng(1).shuffle(scores)
    ours = kind.unweighted().scored(scores)
    theirs = kind.table(found)
    assert ours.schema.equals(theirs.schema, check_metadata=True)
    assert ours.sort_by(ORDER).to_pylist() == theirs.sort_by(ORDER).to_pylist()
    models_of_one = [row["model_id"] for row in ours.to_pylist()[: kind.rows_each]]
    assert models_of_one == [own.model_id for own in make_labellers(MODELS[models])]


def test_scores_are_written_without_the_weights():
    weights = np.random.default_rng(0).standard_normal((3, 20_000), np.float32)
    labels = tuple(f"{n:05}" for n in range(20_000))
    large = replace(model(), head=Head(weights, np.zeros(20_000, np.float32)), labels=labels)
    kind = ScoreRows.of(large)
    assert len(pickle.dumps(kind.unweighted())) < len(pickle.dumps(kind)) - weights.nbytes
    assert kind.unweighted().fingerprint == kind.fingerprint


@pytest.mark.slow
@pytest.mark.parametrize("models", MODELS)
def test_a_table_has_a_row_for_each_model_and_image(models, tmp_path):
    models, output = MODELS[models], str(tmp_path / "table")
    for number in (20, 10):  # The second run replaces half of the rows.
        with Pipeline() as pipeline:
            scores = pipeline | beam.Create(some(number)) | bf.ScoreEmbeddings(models)
            mixed = scores | beam.Reshuffle()
            bad = pipeline | "Bad" >> beam.Create([reject(99)])
            written = (mixed, bad) | bf.WriteScores(output, models)
            assert_that(written, equal_to([number * len(models)]))
    expected = ScoreRows.of(models).table(list(some()))
    parts = [pq.read_table(path) for path in (tmp_path / "table").glob("part-*.parquet")]
    found = pa.concat_tables(parts).sort_by(ORDER).to_pylist()
    assert found == expected.sort_by(ORDER).to_pylist()
    assert rejects(output) == {"/r/99.jpg": "Truncated"}


@pytest.mark.slow
@pytest.mark.parametrize("models", ["one", "several", "mixed"])
def test_of_a_file_that_changed_within_a_window_the_newest_scores_count(models, tmp_path):
    models, output = MODELS[models], str(tmp_path / "table")
    old, new, other = list(some(3))
    new = new._replace(image=image(0, modified=2))
    with Pipeline() as pipeline:
        timed = pipeline | beam.Create([TimestampedValue(b, 1) for b in (new, old, other)])
        windowed = timed | beam.WindowInto(FixedWindows(60))
        windowed | bf.ScoreEmbeddings(models) | bf.WriteScores(output, models)
    parts = [pq.read_table(path) for path in (tmp_path / "table").glob("part-*.parquet")]
    found = pa.concat_tables(parts).sort_by(ORDER).to_pylist()
    expected = ScoreRows.of(models).table([new, other]).sort_by(ORDER).to_pylist()
    assert found == expected


def test_scores_by_some_of_the_models_are_refused(tmp_path):
    models = MODELS["several"]
    pipeline = Pipeline()
    scores = pipeline | beam.Create(some(2)) | bf.ScoreEmbeddings(models)
    few = scores | beam.Filter(lambda score: score.model_id != ScoreRows.of(models[0])._model_ids)
    few | bf.WriteScores(str(tmp_path / "table"), models)
    with pytest.raises(Exception, match="has scores of 2 of 3 models"):
        pipeline.run()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "given", "message"),
    [
        (
            {"rule": bf.AcceptanceRule(threshold=0.99)},
            {},
            "does not follow from the table's rule .no rule.",
        ),
        ({}, {"rule": bf.AcceptanceRule(threshold=0.99)}, "does not follow from the table's rule"),
        ({}, {"rule": bf.AcceptanceRule(min_margin=0.9)}, "does not follow from the table's rule"),
        ({"top_k": 1}, {"top_k": 3}, "has 1 labels, the table has 3"),
    ],
)
def test_a_table_by_another_rule_than_its_scores_is_refused(made, given, message, tmp_path):
    pipeline = Pipeline()
    scores = pipeline | beam.Create(some()) | bf.ScoreEmbeddings(model(), **made)
    scores | bf.WriteScores(str(tmp_path / "table"), model(), **given)
    with pytest.raises(Exception, match=message):
        pipeline.run()


def test_tables_by_two_models_are_not_written_into_one_folder(tmp_path):
    """Both steps find the folder new; the second to commit must not replace the first."""
    output, pipeline = str(tmp_path / "table"), Pipeline()
    vectors = pipeline | beam.Create(some(3))
    for seed in (1, 2):
        scores = vectors | f"Label{seed}" >> bf.ScoreEmbeddings(model(seed))
        scores | f"Write{seed}" >> bf.WriteScores(output, model(seed))
    with pytest.raises(Exception, match="another writer put rows of another kind there"):
        pipeline.run()
    assert len(rows(output)) == 3


@pytest.mark.parametrize(
    ("element", "step"),
    [
        (7, bf.WriteStore("store", NETWORK)),
        (image(1), bf.WriteStore("store", NETWORK)),
        (embedding(1), bf.WriteScores("table", MODELS["several"])),
        (embedding(1), bf.WriteScores("table", MODELS["one"])),
    ],
)
def test_elements_of_another_step_are_named(element, step, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pipeline = Pipeline()
    pipeline | beam.Create([element]) | step
    with pytest.raises(Exception, match=r"this step writes elements that are .* not "):
        pipeline.run()


def test_types_may_be_checked_at_run_time(tmp_path):
    options = bf.pipeline_options(["--runtime_type_check"])
    with beam.Pipeline(options=options) as pipeline:
        vectors = pipeline | beam.Create([embedding(1)])
        vectors | bf.WriteStore(str(tmp_path / "store"), NETWORK)
    assert uris(tmp_path / "store") == ["/r/1.jpg"]


def test_a_store_knows_the_roots_of_what_was_written(tmp_path):
    write(tmp_path / "store", embedding(1), reject(2))
    (section,) = latest(str(tmp_path / "store")).sections.values()
    assert section.roots == ("/r",)


def test_scores_of_another_model_are_refused(tmp_path):
    pipeline = Pipeline()
    scores = pipeline | beam.Create(some(2)) | bf.ScoreEmbeddings(model(2))
    scores | bf.WriteScores(str(tmp_path / "table"), model(1))
    with pytest.raises(Exception, match="give the models that the scores are by"):
        pipeline.run()
    assert not latest(str(tmp_path / "table")).version
    with pytest.raises(InputError, match="give the models that the scores are by"):
        ScoreRows.of(model(1)).scored(list(ScoreRows.of(model(2)).scores(list(some(1)))))


def test_two_scores_of_one_image_are_refused(tmp_path):
    pipeline = Pipeline()
    twice = [*some(1), *some(1)]
    scores = pipeline | beam.Create(twice) | bf.ScoreEmbeddings(model())
    scores | bf.WriteScores(str(tmp_path / "table"), model())
    with pytest.raises(Exception, match="two of the new rows have one uri"):
        pipeline.run()
