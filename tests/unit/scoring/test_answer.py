"""What `score` says on the screen, and the columns that a table of one file has further."""

import pyarrow as pa
import pytest

from beam_flowers.cli.answer import answer_lines
from beam_flowers.scoring.answer import Confusion, ScoreAnswer
from beam_flowers.scoring.given import FurtherColumns, GivenImages, with_given


def rows(*cells):
    uris, labels, scores = zip(*cells, strict=True)
    return pa.table({"uri": uris, "label": labels, "score": pa.array(scores, pa.float32())})


def given(*labels):
    return pa.chunked_array([pa.array(labels, pa.string())])


@pytest.fixture
def answer():
    found = ScoreAnswer("m" * 64, known=("ant", "bee"))
    found.add(rows(("/a", "ant", 0.9), ("/b", "bee", 0.25)), given("ant", "ant"))
    found.add(rows(("/c", "ant", 0.5), ("/d", "ant", 1.0)), given("cat", None))
    return found


def test_labels_and_doubtful_images_add_up_over_parts(answer):
    assert (answer.images, dict(answer.labels)) == (4, {"ant": 3, "bee": 1})
    assert answer.median == pytest.approx(0.7)
    assert [uri for _, _, uri in answer.least_sure] == ["/b", "/c", "/a", "/d"]


def test_agreement_counts_the_labels_that_the_model_knows(answer):
    found = answer.agreement
    assert (found.images, found.accuracy, found.strange) == (2, 0.5, 1)
    assert found.low < 0.5 < found.high
    assert found.confusions == [Confusion("ant", "bee", 1)]


def test_what_was_not_labelled_is_no_mistake():
    found = ScoreAnswer("m", "score >= 0.5", ("ant", "bee"))
    found.add(rows(("/a", "unknown", 0.4), ("/b", "ant", 0.9)), given("ant", "ant"))
    assert (found.unknown, found.agreement.images, found.agreement.accuracy) == (1, 1, 1.0)
    lines = list(answer_lines(found))
    assert "1 image (50.0%) unknown by the rule score >= 0.5" in lines
    assert not any("least sure" in line for line in lines)
    nothing = ScoreAnswer("m")
    nothing.add(rows(("/a", "ant", 0.4)), given("ant"))
    assert nothing.agreement is None


def test_lines(answer):
    assert list(answer_lines(answer)) == [
        "labels predicted for 4 images:",
        "  ant         3 ####################",
        "  bee         1 #######",
        "median score 0.70; the least sure:",
        "  0.25 bee  /b",
        "  0.50 ant  /c",
        "  0.90 ant  /a",
        "  1.00 ant  /d",
        "predicted as given: 50.0% of 2 images (95 % interval 9.5% to 90.5%); images of the "
        "training flatter this",
        "not counted: 1 image given labels that the model lacks",
        "most frequent differences, given and predicted:",
        "          1 ant as bee",
    ]


def test_many_labels_and_hostile_ones():
    found = ScoreAnswer("m")
    for number in range(30):
        found.add(rows((f"/{number}\x1b[31m", f"l\n{number}", 0.5)))
    lines = list(answer_lines(found))
    assert "  and 10 labels more" in lines
    assert not any("\n" in line or "\x1b" in line for line in lines)
    assert sum("0.50" in line for line in lines) == 11


SCORES = pa.table({"uri": ["/x/a", "/x/a", "/x/b"], "label": ["ant"] * 3, "model_id": list("mnm")})


def test_given_labels_and_paths_follow_the_uri():
    listed = GivenImages.of([("/x/b", None, "b"), ("/x/a", "bee", "a")])
    found = with_given(SCORES, listed, FurtherColumns()).to_pydict()
    assert found["given_label"] == ["bee", "bee", None]
    assert found["relative_path"] == ["a", "a", "b"]
    assert with_given(SCORES, GivenImages.of([]), FurtherColumns())["given_label"].null_count == 3


def test_further_columns_stand_before_our_last_one(tmp_path):
    (tmp_path / "m.csv").write_text("uri,score,Price,input_score\n/x/a,7,1.50,z\n/x/a,8,2,z\n")
    (tmp_path / "n.jsonl").write_text('{"uri": "/x/b", "size": 3}\n')
    (tmp_path / "photos.csv").mkdir()
    sources = [str(tmp_path / name) for name in ("m.csv", "n.jsonl", "photos.csv", "nowhere.csv")]
    further = FurtherColumns.of([*sources, str(tmp_path)])
    scores = SCORES.append_column("score", pa.array([0.5] * 3))
    found = with_given(scores, GivenImages.of([]), further)
    assert found.schema.names[4:] == [
        "given_label",
        "input_score",
        "Price",
        "input_input_score",
        "size",
        "relative_path",
    ]
    assert found["input_score"].to_pylist() == ["7", "7", None]
    assert found["size"].to_pylist() == [None, None, "3"]
