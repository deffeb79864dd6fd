"""Text from elsewhere runs nothing where it is read: in spreadsheets, on terminals, in Markdown."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from stores import cli
from vectors import make_store, train_run

from beam_flowers.evaluation.card import model_card
from beam_flowers.evaluation.render import confusion_csv
from beam_flowers.evaluation.text import table
from beam_flowers.files.text import guarded, unguarded
from beam_flowers.head.bundle import write_bundle
from beam_flowers.head.corrections import read_corrections
from beam_flowers.images.manifest import read_manifest
from beam_flowers.review.decisions import Decision, Decisions
from beam_flowers.scoring.read_table import read_scores
from beam_flowers.workflows.score import score_images
from beam_flowers.workflows.score_options import ScoreOptions

FORMULA = "=cmd|' /C calc'!A0"
LABELS = (FORMULA, "'=1+1", "-12.5")


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r"])
@pytest.mark.parametrize("before", ["", "'", "''"])
def test_a_guarded_cell_is_no_formula_and_can_be_undone(sign, before):
    """An attacker's file name would run as a formula with the rights of who opens the table."""
    cell = f"{before}{sign}x"
    assert guarded(cell) == f"'{cell}"
    assert unguarded(f"'{cell}") == cell


@pytest.mark.parametrize("cell", ["-1", "+2.50", "-.5", "-1e-7", "a=1", "'quoted'", "", "'"])
def test_numbers_and_other_text_stay(cell):
    assert guarded(cell) == unguarded(cell) == cell


@pytest.mark.parametrize("cell", ["-1+cmd", "-1\n=2", "+1 ", "-\u0661"])
def test_what_only_begins_as_a_number_is_none(cell):
    assert guarded(cell) == f"'{cell}"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return Path(make_store(tmp_path_factory.mktemp("text")))


@pytest.fixture(scope="module")
def model(base):
    """A model whose labels came from folders of an attacker's archive."""
    return replace(train_run(str(base), "small").bundle, labels=LABELS)


def cells(path):
    with open(path, newline="") as source:
        return [cell for row in csv.reader(source) for cell in row]


def test_a_score_table_holds_no_formula_and_reads_back_as_it_was(base, model, tmp_path):
    out = tmp_path / "o.csv"
    score_images(ScoreOptions((str(base),), str(out), separate_columns=True), model)
    assert not [cell for cell in cells(out) if cell.startswith("=")]
    assert {f"'{FORMULA}", "''=1+1", "-12.5"} <= set(cells(out))
    parquet = tmp_path / "o.parquet"
    score_images(ScoreOptions((str(base),), str(parquet), separate_columns=True), model)
    mine, exact = read_scores(str(out)), read_scores(str(parquet))
    assert list(mine.given) == list(exact.given)
    assert [n for row in mine.top_k for n, _ in row] == [n for row in exact.top_k for n, _ in row]
    found = {reject.image.label for reject in read_manifest(str(out))}  # the images are not there
    assert found == set(exact.given)


def test_exact_tables_have_cells_as_they_are(base, model, tmp_path):
    write_bundle(str(tmp_path / "model"), model)
    out = tmp_path / "o.csv"
    flags = ["--model", tmp_path / "model", "--output", out, "--csv", "exact"]
    assert cli("score", base, *flags) == 0
    assert {*LABELS, *(f"'{label}" for label in LABELS)} & set(cells(out)) <= set(LABELS)
    assert FORMULA in cells(out)


def test_an_evaluation_holds_no_formula():
    """A class named as a formula would stand in the header and the first column."""
    report = {
        "model": {"multi_label": False, "labels": [FORMULA]},
        "confusion": {"matrix": [[3]]},
    }
    assert list(csv.reader(confusion_csv(report).splitlines())) == [
        ["label", f"'{FORMULA}"],
        [f"'{FORMULA}", "3"],
    ]
    assert FORMULA in confusion_csv(report, exact=True)


def test_corrections_hold_no_formula_and_train_takes_what_was_decided(tmp_path):
    output = str(tmp_path / "corrections.csv")
    for number, label in enumerate(LABELS):
        Decisions(output).add(Decision(f"{number}" * 64, "/a.jpg", label))
    assert not [cell for cell in cells(output) if cell.startswith("=")]
    assert [row.label for row in Decisions(output)] == list(LABELS)
    assert tuple(read_corrections(output).labels.values()) == LABELS


def test_a_list_of_others_keeps_its_signs(tmp_path):
    """Somebody's own `'=a.jpg` must not become another file."""
    manifest = tmp_path / "m.csv"
    manifest.write_text("uri,label\n'=a.jpg,'-b\n")
    (found,) = read_manifest(str(manifest))
    assert (found.image.relative_path, found.image.label) == ("'=a.jpg", "'-b")


def test_terminals_get_no_control_characters(base, model, tmp_path, capsys):
    """An escape sequence in a name would rewrite what stands on the screen."""
    name = "\x1b[2Jowned\x07"
    write_bundle(str(tmp_path / name), model)
    assert (
        cli("export", tmp_path / name, "--to", "labels", "--output", tmp_path / f"{name}.txt") == 0
    )
    out, err = capsys.readouterr()
    assert "\\x1b[2J" in out
    assert not {"\x1b", "\x07"} & set(out + err)


def test_a_models_card_has_no_control_characters(model):
    """Whoever reads the card of a stranger's model on a terminal would have it obeyed."""
    card = model_card(replace(model, labels=("\x1b[2J", *LABELS[1:]), recipe={"name": "\x1b[2J"}))
    assert "\\x1b" in card.replace("\\\\", "\\")
    assert "\x1b" not in card


def test_markdown_has_no_control_characters():
    """`cat evaluation.md` would obey what stands in a name."""
    assert "\x1b" not in table(["\x1b[2J"], [["\x1b]0;x\x07"]])
