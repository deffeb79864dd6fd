"""What commands write over: their own files, and with `--overwrite` what they do not read."""

import json
import os
import shutil
import sys
from pathlib import Path

import make_images
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
import vectors
from memory_files import OBJECTS
from stores import cli

from beam_flowers.backbones.resolve import resolve
from beam_flowers.cli import log
from beam_flowers.errors import OutputError
from beam_flowers.images.outputs import HEAD, Writing, placing
from beam_flowers.pages.page import is_page
from beam_flowers.scoring.write_table import MARK, is_rejects_file, is_score_file
from beam_flowers.workflows.doctor import diagnose, is_findings, write_json
from beam_flowers.workflows.fine_tune import fine_tune as tune
from beam_flowers.workflows.score_options import _check_unfinished, clear_deleted

LIST = b"uri,label\n/mine/a.jpg,rose\n"
PAGE = b"<!doctype html>\n<html><head><title>Mine</title></head></html>\n"
COLUMNS = ["uri", "sha256", "label", "score", "top_k", "model_id", "label_id"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with two photos, a store, a model of it, and scores."""
    folder = tmp_path_factory.mktemp("outputs")
    vectors.add(folder / "store", "small", vectors.embeddings(range(60), 6, spread=1.6))
    (folder / "photos").mkdir()
    for seed in (1, 2):
        (folder / "photos" / f"{seed}.jpg").write_bytes(make_images.jpeg(seed=seed))
    assert cli("train", folder / "store", "--model", folder / "model") == 0
    assert score(folder, folder / "scores.csv") == 0
    return folder


def score(base, output, *flags):
    return cli("score", base / "store", "--model", base / "model", "--output", output, *flags)


def doctor(base, output, *flags):
    return cli("doctor", base / "photos", "--output", output, "--thumbnails", 0, *flags)


def report(base, output, *flags):
    return cli("report", base / "scores.csv", "--output", output, "--thumbnails", 0, *flags)


def evaluate(base, output, *flags):
    return cli(
        "evaluate", base / "store", "--model", base / "model", "--output", output, "--folds", 0,
        *flags,
    )  # fmt: skip


def export(kind):
    source = "store" if kind in ("projector", "fiftyone") else "model"

    def run(base, output, *flags):
        return cli("export", base / source, "--to", kind, "--output", output, *flags)

    return run


def train(base, output, *flags):
    return cli("train", base / "store", "--model", output, *flags)


def fine_tune(base, output, *flags):
    images = ("--fine-tune", base / "photos")
    return cli("train", base / "store", *images, "--fine-tuned", output, *flags)


def init(base, output, *flags):
    return cli("init", "doctor", "--output", output, *flags)


def demo(base, output, *flags):
    return cli("demo", "--folder", output, *flags)


FILES = {
    "doctor.json": (doctor, b'{"mine": 1}\n'),
    "doctor.html": (doctor, PAGE),
    "report.html": (report, PAGE),
    "scores.csv": (score, LIST),
    "scores.jsonl": (score, b'{"uri": "/mine/a.jpg"}\n'),
    "scores.parquet": (score, None),
    "scores.arrow": (score, None),
    "scores.feather": (score, None),
    "labels.txt": (export("labels"), b"rose\n"),
    "card.md": (export("card"), b"# Mine\n"),
    "flags.yaml": (init, b"embed:\n  store: mine\n"),
}
"""By the name of the output: the command, and what somebody else's file of that kind holds."""

NOT_RUN = {
    "x.tflite": export("tflite"),
    "x.keras": export("keras"),
    "x.onnx": export("onnx"),
}
"""These take a network, which only a refusal does without."""

MARKED = [name for name in FILES if name.startswith(("doctor", "report", "scores"))]


def foreign(path: Path, data: bytes | None) -> bytes:
    """Writes somebody else's file; None for a table of the kind that the name says."""
    if data is None:
        table = pa.table({"uri": ["/mine/a.jpg"], "label": ["rose"]})
        if path.suffix == ".parquet":
            pq.write_table(table, path)
        else:
            with pa.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table)
    else:
        path.write_bytes(data)
    return path.read_bytes()


def contents(folder: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(folder)): p for p in folder.rglob("*") if not p.is_dir()}
    return {name: path.read_bytes() for name, path in found.items()}


@pytest.mark.parametrize("name", [*FILES, *NOT_RUN])
def test_somebody_elses_file_stays(base, tmp_path, name, capsys):
    run, own_kind = FILES[name] if name in FILES else (NOT_RUN[name], b"mine")
    for data in (make_images.jpeg(), LIST, own_kind):
        kept = foreign(tmp_path / name, data)
        assert run(base, tmp_path / name) == 2
        said = capsys.readouterr().err
        assert name in said
        assert "--overwrite" in said
        assert contents(tmp_path) == {name: kept}


@pytest.mark.parametrize("name", FILES)
def test_somebody_elses_file_is_replaced_with_the_flag(base, tmp_path, name):
    run, data = FILES[name]
    kept = foreign(tmp_path / name, data)
    assert run(base, tmp_path / name, "--overwrite") == 0
    assert (tmp_path / name).read_bytes() != kept


@pytest.mark.slow
@pytest.mark.parametrize("name", MARKED)
def test_our_file_is_replaced_with_and_without_its_mark(base, tmp_path, name):
    run, output = FILES[name][0], tmp_path / name
    assert run(base, output) == 0
    first = output.read_bytes()
    assert run(base, output) == 0
    unmark(output)
    if "csv" not in name and "jsonl" not in name:
        assert output.read_bytes() != first
    assert run(base, output) == 0
    assert output.read_bytes() == first or name == "doctor.html"


def unmark(path: Path) -> None:
    """Takes from a file what versions before af64cb0 did not write."""
    if path.suffix == ".html":
        data = path.read_bytes()
        path.write_bytes(data.replace(b'<meta name="generator" content="beam_flowers">\n', b""))
    elif path.suffix == ".json":
        found = json.loads(path.read_bytes())
        del found["format"]
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False))
    elif path.suffix == ".parquet":
        table = pq.read_table(path)
        metadata = {k: v for k, v in table.schema.metadata.items() if k != MARK}
        pq.write_table(table.replace_schema_metadata(metadata), path)
    elif path.suffix in (".arrow", ".feather"):
        table = pa.ipc.open_file(path.read_bytes()).read_all().replace_schema_metadata(None)
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet", ".arrow"])
def test_rejects_beside_the_table_follow_the_same_rule(base, tmp_path, ending, capsys):
    beside = tmp_path / f"t.rejects{ending}"
    kept = foreign(beside, LIST)
    assert score(base, tmp_path / f"t{ending}") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert contents(tmp_path) == {beside.name: kept}
    assert score(base, tmp_path / f"t{ending}", "--overwrite") == 0
    assert score(base, tmp_path / f"t{ending}") == 0
    assert beside.stat().st_size == 0 or is_rejects_file(str(beside))


@pytest.mark.parametrize(
    "names",
    [
        COLUMNS,
        [*COLUMNS, "labels"],
        [*COLUMNS, "rule"],
        [*COLUMNS, "labels", "rule"],
        [*COLUMNS[:4], "label_1", "score_1", *COLUMNS[5:]],
        [*COLUMNS[:4], "label_1", "score_1", "label_2", "score_2", *COLUMNS[5:]],
    ],
    ids=len,
)
def test_columns_of_ours_and_no_others_are_ours(tmp_path, names):
    for ending in (".parquet", ".csv", ".jsonl"):
        assert is_score_file(columns_only(tmp_path / f"t{ending}", names))
        assert not is_score_file(columns_only(tmp_path / f"t{ending}", [*names, "my_notes"]))
        assert not is_score_file(columns_only(tmp_path / f"t{ending}", names[1:]))


def columns_only(path: Path, names: list[str]) -> str:
    if path.suffix == ".parquet":
        pq.write_table(pa.table({name: ["x"] for name in names}), path)
    elif path.suffix == ".csv":
        path.write_text(",".join(f'"{name}"' for name in names) + "\n")
    else:
        path.write_text(json.dumps(dict.fromkeys(names, "x")) + "\n")
    return str(path)


def test_a_table_that_somebody_worked_on_is_not_ours(base, tmp_path):
    assert score(base, tmp_path / "t.parquet") == 0
    pq.read_table(tmp_path / "t.parquet").to_pandas().to_parquet(tmp_path / "t.parquet")
    assert score(base, tmp_path / "t.parquet") == 2
    marked = columns_only(tmp_path / "t.parquet", COLUMNS)
    for kind, ours in ((b"scores", True), (b"something else", False)):
        pq.write_table(pq.read_table(marked).replace_schema_metadata({MARK: kind}), marked)
        assert is_score_file(marked) == ours
    # Spreadsheets write the header without quotes.
    (tmp_path / "t.csv").write_text(",".join(COLUMNS) + "\n")
    assert score(base, tmp_path / "t.csv") == 2


def test_damaged_and_endless_files_are_not_ours_and_not_read(base, tmp_path):
    assert score(base, tmp_path / "t.parquet") == 0
    whole = (tmp_path / "t.parquet").read_bytes()
    for data in (whole[:-1], whole[-12:], whole[:-8] + b"\xff\xff\xff\x7fPAR1", b"PAR1", b"x"):
        (tmp_path / "t.parquet").write_bytes(data)
        assert score(base, tmp_path / "t.parquet") == 2
        assert (tmp_path / "t.parquet").read_bytes() == data
    for name in ("t.jsonl", "t.csv", "t.arrow", "t.parquet"):
        # 64 GiB that take no space: whoever reads them whole does not come back.
        os.truncate(foreign_of_nothing(tmp_path / name), 2**36)
        assert score(base, tmp_path / name) == 2
    os.truncate(foreign_of_nothing(tmp_path / "t.json"), 2**36)
    assert doctor(base, tmp_path / "t.json") == 2


@pytest.mark.parametrize(("name", "tail"), [("t.parquet", b"PAR1"), ("t.arrow", b"ARROW1")])
def test_an_endless_footer_is_not_read(tmp_path, name, tail):
    with (tmp_path / name).open("wb") as file:
        file.truncate(2**34)
        file.seek(0, os.SEEK_END)
        file.write((2**30).to_bytes(4, "little") + tail)
    with pytest.raises(ValueError, match="no table of ours"):
        is_score_file(str(tmp_path / name))


def foreign_of_nothing(path: Path) -> Path:
    path.write_bytes(b"x")
    return path


def test_an_empty_file_holds_nothing_to_lose(base, tmp_path):
    (tmp_path / "t.csv").touch()
    assert score(base, tmp_path / "t.csv") == 0


@pytest.mark.parametrize(
    ("run", "name", "known"),
    [
        (report, "x.pdf", ".html or .htm"),
        (doctor, "x.jpg", ".json or .html or .htm"),
        (score, "x.jpg", ".parquet, .csv, .jsonl, .arrow, .feather or a folder"),
        (score, "x.json", ".parquet, .csv, .jsonl, .arrow, .feather or a folder"),
        (init, "x.conf", ".yaml or .yml"),
        (export("labels"), "x.csv", ".txt"),
        (export("card"), "x", ".md"),
    ],
)
def test_unknown_endings_are_refused(base, tmp_path, run, name, known, capsys):
    assert run(base, tmp_path / name, "--overwrite") == 2
    assert known in capsys.readouterr().err
    assert not contents(tmp_path)


# Inputs


def own(path: Path) -> Path:
    return path


def hard_link(path: Path) -> Path:
    (path.parent / "links").mkdir()
    os.link(path, link := path.parent / "links" / path.name)
    return link


def symbolic_link(path: Path) -> Path:
    (path.parent / "links").mkdir()
    (link := path.parent / "links" / path.name).symlink_to(path)
    return link


@pytest.mark.parametrize("flags", [(), ("--overwrite",)], ids=["", "overwrite"])
@pytest.mark.parametrize("other_name", [own, hard_link, symbolic_link])
@pytest.mark.parametrize("command", ["list", "files-from", "own table", "image", "doctor"])
def test_a_file_that_is_read_is_never_replaced(base, tmp_path, command, other_name, flags, capsys):
    model = ("--model", base / "model")
    name = "in.json" if command == "doctor" else "in.csv"
    shutil.copy(base / "photos" / "1.jpg", tmp_path / name)
    if command == "list":
        (tmp_path / name).write_text(f"uri,label\n{base}/photos/1.jpg,a\n")
    elif command == "files-from":
        (tmp_path / name).write_text(f"{base}/photos/1.jpg\n")
    elif command == "own table":
        shutil.copy(base / "scores.csv", tmp_path / name)
    output = other_name(tmp_path / name)
    kept = contents(tmp_path)
    source = ["--files-from"] if command == "files-from" else []
    verb = ["doctor"] if command == "doctor" else ["score", *model]
    assert cli(*verb, *source, tmp_path / name, "--output", output, *flags) == 2
    said = capsys.readouterr().err
    assert "is an input of this command" in said
    assert "--overwrite" in said
    assert contents(tmp_path) == kept


def test_an_image_under_another_name_is_never_replaced(base, tmp_path, capsys):
    photo = tmp_path / "photos" / "odd.json"
    shutil.copytree(base / "photos", photo.parent)
    shutil.copy(base / "photos" / "1.jpg", photo)
    (tmp_path / "list.txt").write_text(f"{photo}\n")
    kept = contents(tmp_path)
    for source in (tmp_path / "photos", tmp_path / "list.txt", f"{tmp_path}/photos/*"):
        assert cli("doctor", source, "--output", photo) == 2
        assert cli("doctor", source, "--output", photo, "--overwrite") == 2
        assert "--overwrite" in capsys.readouterr().err
        assert contents(tmp_path) == kept
    # A new file may lie among the images, and is ours from then on.
    for _ in range(2):
        assert cli("doctor", photo.parent, "--output", photo.parent / "new.json") == 0
    diagnosis = diagnose([str(tmp_path / "list.txt")])
    with pytest.raises(OutputError, match="is an input"):
        write_json(diagnosis, str(photo), Writing(overwrite=True))
    assert photo.read_bytes() == kept["photos/odd.json"]


def test_an_image_that_a_list_names_is_never_replaced(base, tmp_path, capsys):
    shutil.copy(base / "photos" / "1.jpg", tmp_path / "odd.csv")
    (tmp_path / "link.csv").hardlink_to(tmp_path / "odd.csv")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/none.jpg\n{tmp_path}/odd.csv\n")
    kept = contents(tmp_path)
    for output in (tmp_path / "odd.csv", tmp_path / "link.csv"):
        command = ("score", tmp_path / "list.txt", "--model", base / "model", "--overwrite")
        assert cli(*command, "--output", output) == 2
        assert "is one of the images to read" in capsys.readouterr().err
        assert contents(tmp_path) == kept


def test_nothing_is_written_into_a_folder_among_the_images(base, tmp_path):
    out = tmp_path / "photos" / "out"
    out.mkdir(parents=True)
    (out / "notes.txt").write_bytes(b"mine")
    network, images = resolve("efficientnet-lite0"), [str(out.parent)]
    for terms, message in ((Writing(), "with --overwrite"), (Writing(True), "lies in the input")):
        with pytest.raises(OutputError, match=message):
            tune(str(base / "store"), network, images, str(out), writing=terms)
    assert contents(tmp_path) == {"photos/out/notes.txt": b"mine"}


def test_links_into_and_out_of_a_folder_that_is_read_stay(base, tmp_path, capsys):
    shutil.copytree(base / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "mine.json").write_bytes(b"mine")
    (tmp_path / "mine.json").write_bytes(b"mine")
    (tmp_path / "in.json").symlink_to("photos/mine.json")
    (tmp_path / "photos" / "out.json").symlink_to("../mine.json")
    kept = contents(tmp_path)
    for output in (tmp_path / "in.json", tmp_path / "photos" / "out.json"):
        assert cli("doctor", tmp_path / "photos", "--output", output, "--overwrite") == 2
        assert "lies in the input" in capsys.readouterr().err
        assert output.is_symlink()
        assert contents(tmp_path) == kept


def test_other_inputs_are_never_replaced(base, tmp_path, capsys):
    shutil.copytree(base / "model", tmp_path / "model")
    shutil.copytree(base / "store", tmp_path / "store")
    assert evaluate(base, tmp_path / "out") == 0
    (tmp_path / "c.yaml").write_text("init: {}\nscore: {}\n")
    (tmp_path / "l.html").write_text("uri,label\n")
    kept = contents(tmp_path)
    model, store, config = tmp_path / "model", tmp_path / "store", tmp_path / "c.yaml"
    for command in (
        ("train", base / "store", "--warm-start", model, "--model", model),
        ("train", store, "--model", store),
        ("export", model, "--to", "labels", "--output", model / "labels.txt"),
        ("export", model, "--to", "savedmodel", "--output", model),
        ("export", store, "--to", "fiftyone", "--output", store),
        ("score", store, "--model", model, "--output", store),
        ("score", base / "photos", "--model", model, "--output", base / "photos"),
        ("init", "--config", config, "--output", config),
        ("evaluate", store, "--model", model, "--output", tmp_path / "out",
         "--labels", tmp_path / "out" / "misclassified.csv"),
        ("report", model, "--store", store, "--labels", tmp_path / "l.html",
         "--output", tmp_path / "l.html"),
    ):  # fmt: skip
        assert cli(*command, "--overwrite") == 2, command
        assert "--overwrite" in capsys.readouterr().err
        assert contents(tmp_path) == kept, command


def test_outputs_are_looked_at_before_anything_is_read(tmp_path, capsys):
    for name in ("t.csv", "r.html", "x.keras"):
        (tmp_path / name).write_bytes(LIST)
    none = tmp_path / "none"
    for command in (
        ("score", none, "--model", none, "--output", tmp_path / "t.csv"),
        ("report", none, "--output", tmp_path / "r.html"),
        ("evaluate", none, "--model", none, "--output", tmp_path),
        ("train", none, "--model", tmp_path),
        ("train", none, "--fine-tune", none, "--fine-tuned", tmp_path),
        ("export", none, "--to", "keras", "--output", tmp_path / "x.keras"),
        ("demo", "--folder", tmp_path),
    ):
        assert cli(*command) == 2, command
        assert "--overwrite" in capsys.readouterr().err


def test_the_rule_holds_in_object_stores(base, monkeypatch, capsys):
    output = "mem://bucket/out/t.csv"
    monkeypatch.setitem(OBJECTS, output, LIST)
    for source, *flags in ((base / "store",), (output,), (output, "--overwrite")):
        assert cli("score", source, "--model", base / "model", "--output", output, *flags) == 2
        assert OBJECTS[output] == LIST
    monkeypatch.setitem(OBJECTS, page := "mem://bucket/out/d.html", PAGE)
    assert doctor(base, page) == 2
    assert OBJECTS[page] == PAGE
    assert doctor(base, page, "--overwrite") == 0
    assert doctor(base, page) == 0
    assert is_page(page)


# Links and what is no file


def test_a_link_is_replaced_only_if_it_leads_to_ours(base, tmp_path):
    assert score(base, tmp_path / "ours.csv") == 0
    (tmp_path / "list.csv").write_bytes(LIST)
    for name, target in (("a", "ours.csv"), ("b", "list.csv"), ("c", "nowhere.csv")):
        (tmp_path / f"{name}.csv").symlink_to(target)
    assert score(base, tmp_path / "a.csv") == 0
    for name in ("b", "c"):
        assert score(base, tmp_path / f"{name}.csv") == 2
        assert (tmp_path / f"{name}.csv").is_symlink()
        assert score(base, tmp_path / f"{name}.csv", "--overwrite") == 0
    assert (tmp_path / "list.csv").read_bytes() == LIST
    assert not (tmp_path / "nowhere.csv").exists()


@pytest.mark.parametrize("name", ["t.csv", "d.json"])
def test_pipes_and_folders_are_no_files(base, tmp_path, name, capsys):
    run = score if name == "t.csv" else doctor
    os.mkfifo(tmp_path / name)
    assert run(base, tmp_path / name, "--overwrite") == 2
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    assert run(base, tmp_path / name, "--overwrite") == 2
    assert "--overwrite" in capsys.readouterr().err


# Folders

FOLDERS = {
    "evaluation": evaluate,
    "model": train,
    "table": score,
    "projector": export("projector"),
    "fiftyone": export("fiftyone"),
    "saved model": export("savedmodel"),
    "fine-tuned": fine_tune,
    "demo": demo,
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_somebody_else_stays(base, tmp_path, name, capsys):
    output = tmp_path / "out"
    for mine in (output, output / "notes.txt", output / "labels.txt"):
        mine.parent.mkdir(exist_ok=True)
        mine.write_bytes(b"mine")
        kept = contents(tmp_path)
        assert FOLDERS[name](base, output) == 2
        said = capsys.readouterr().err
        assert str(output) in said
        assert "--overwrite" in said
        assert contents(tmp_path) == kept
        shutil.rmtree(output) if output.is_dir() else output.unlink()


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("evaluation", "evaluation.json"),
        ("model", "model.json"),
        ("projector", "tensors.tsv"),
        ("fiftyone", "labels.json"),
    ],
)
def test_with_the_flag_only_our_names_are_written(base, tmp_path, name, written):
    output = tmp_path / "out"
    mine = {"notes.txt": b"mine", "confusion.png": b"mine", "hidden_bias.npy": b"mine"}
    if name == "evaluation":
        mine.pop("confusion.png")
    output.mkdir()
    for path, data in mine.items():
        (output / path).write_bytes(data)
    assert FOLDERS[name](base, output, "--overwrite") == 0
    found = contents(output)
    assert {path: found[path] for path in mine} == mine
    assert written in found
    assert FOLDERS[name](base, output) == 2


def test_a_plot_that_is_not_drawn_again_goes_only_if_it_is_ours(base, tmp_path, monkeypatch):
    output, plot = tmp_path / "out", tmp_path / "out" / "confusion.png"
    output.mkdir()
    (output / "notes.txt").write_bytes(b"mine")
    assert evaluate(base, output, "--overwrite") == 0
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert evaluate(base, output, "--overwrite") == 0
    assert not plot.exists()
    plot.write_bytes(make_images.png())
    assert evaluate(base, output, "--overwrite") == 0
    assert plot.read_bytes() == make_images.png()


@pytest.mark.parametrize("name", ["evaluation", "model", "table"])
def test_our_folder_is_written_again_until_something_else_is_in_it(base, tmp_path, name):
    for _ in range(2):
        assert FOLDERS[name](base, tmp_path / "out") == 0
    (tmp_path / "out" / ".DS_Store").touch()
    assert FOLDERS[name](base, tmp_path / "out") == 0
    (tmp_path / "out" / "notes.txt").write_text("mine")
    kept = contents(tmp_path)
    assert FOLDERS[name](base, tmp_path / "out") == 2
    assert contents(tmp_path) == kept
    assert FOLDERS[name](base, tmp_path / "out", "--overwrite") == 0
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_a_table_needs_a_folder_of_its_own(base, tmp_path):
    (tmp_path / "out").mkdir()
    pq.write_table(pa.table({"x": [1]}), tmp_path / "out" / "part-0000.parquet")
    kept = contents(tmp_path)
    assert score(base, tmp_path / "out", "--overwrite") == 2
    assert contents(tmp_path) == kept


def test_unfinished_work_is_deleted_only_if_all_of_it_is_ours(base, tmp_path, capsys):
    partial = tmp_path / ".t.csv.partial"
    (partial / "__work").mkdir(parents=True)
    for name in ("part-0000.parquet", "notes.txt", "__commits/mine/notes.txt"):
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).write_bytes(b"mine")
        for flags in ((), ("--overwrite",)):
            assert score(base, tmp_path / "t.csv", *flags) == 2
            assert "--overwrite" in capsys.readouterr().err
        assert contents(partial) == {name: b"mine"}
        (partial / name).unlink()
    shutil.rmtree(partial)
    (tmp_path / "elsewhere").mkdir()
    partial.symlink_to("elsewhere")
    assert score(base, tmp_path / "t.csv") == 2
    assert partial.is_symlink()


def test_a_run_killed_while_it_deleted_its_work_is_gone_on_with(base, tmp_path):
    table = tmp_path / "table"
    assert score(base, table) == 0
    partial = tmp_path / ".t.csv.partial"
    table.rename(partial)
    _check_unfinished(str(partial))
    clear_deleted(str(partial))
    assert (partial / "__commits").exists()
    shutil.rmtree(partial / "__commits")
    assert score(base, tmp_path / "t.csv") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.csv", "t.rejects.csv"]


def test_a_model_half_written_is_gone_on_with(base, tmp_path, monkeypatch):
    from beam_flowers import files

    write = files.write_atomic

    def die_at_the_labels(uri, data):
        if uri.endswith("labels.txt"):
            raise KeyboardInterrupt
        write(uri, data)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomic", die_at_the_labels)
        assert train(base, tmp_path / "model") == 130
    assert "weights.npy" in contents(tmp_path / "model")
    assert train(base, tmp_path / "model") == 0
    assert contents(tmp_path / "model") == contents(base / "model")


def test_copies_and_steps_are_no_files(base, tmp_path, capsys):
    (tmp_path / "mine").write_bytes(b"mine")
    assert score(base, tmp_path / "t.csv", "--copy-to", tmp_path / "mine") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert train(base, tmp_path / "model", "--summaries-dir", tmp_path / "mine") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert contents(tmp_path) == {"mine": b"mine"}


def test_files_take_their_places_only_if_all_goes_well(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"mine")
    with pytest.raises(IsADirectoryError), placing(str(tmp_path / "x")) as made:
        Path(made).parent.write_bytes(b"fails")
    assert contents(tmp_path) == {"x.txt": b"mine"}
    with placing(str(tmp_path / "x")) as made:
        Path(made).write_bytes(b"new")
        Path(f"{made}.labels.txt").write_bytes(b"labels")
        Path(made).with_name("y").write_bytes(b"left behind by a library")
    found = contents(tmp_path)
    assert found == {"x": b"new", "x.labels.txt": b"labels", "x.txt": b"mine"}


# Logs and configuration


def test_a_log_goes_to_no_file_of_somebody_else(tmp_path):
    (tmp_path / "a.jpg").write_bytes(make_images.jpeg())
    os.mkfifo(tmp_path / "pipe")
    kept = (tmp_path / "a.jpg").read_bytes()
    for name in ("a.jpg", "pipe"):
        with pytest.raises(OutputError, match="give another name"):
            log.keep_off_the_screen(str(tmp_path / name))
    assert (tmp_path / "a.jpg").read_bytes() == kept


def test_a_configuration_may_say_overwrite(base, tmp_path):
    (tmp_path / "d.json").write_bytes(b"{}")
    (tmp_path / "c.yaml").write_text("doctor: {overwrite: true}\n")
    assert doctor(base, tmp_path / "d.json", "--config", tmp_path / "c.yaml") == 0
    assert is_findings(str(tmp_path / "d.json"))


def test_heads_are_looked_at_in_whole(base, tmp_path):
    """A page's mark lies within what is read of it."""
    assert report(base, tmp_path / "r.html") == 0
    assert b'name="generator"' in (tmp_path / "r.html").read_bytes()[: HEAD // 16]
