"""Recorded messages about wrong calls: a change of one shows as a change of `messages.txt`.

`BEAM_FLOWERS_RECORD=1 pytest tests/unit/cli/test_messages.py` writes the file anew.
"""

import contextlib
import io
import os
import re
import shlex
from pathlib import Path

import make_images
import pytest
from report_cases import make_model, make_store

from beam_flowers.cli.main import main

RECORDED = Path(__file__).with_name("messages.txt")
PYTHON = re.compile(r"\['|\('[^']*',|\(-?\d+\.\d+, |\[\]|<class|Traceback|NoneType|object at|\{'")

COMMANDS = """
doctor nowhere
doctor
doctor store
doctor photos --output findings.txt
doctor photos --output notes.html
doctor photos --thumbnails -1 --output x.html
doctor photos --fail-on never
doctor empty
embed
embed --store x
embed nowhere --store x
embed empty --store x
embed photos --store
embed photos --store photos
embed photos --store photos/store
embed photos --store model
embed photos --store scores.csv
embed store --store x
embed model --store x
embed 'photos/*.gif' --store x
embed photos --store x --backbone resnet
embed photos --store x --backbone efficientnet-lite9
embed photos --store x --backbone-path nowhere
embed photos --store x --pixel-range 1
embed photos --store x --pixel-range 1,0
embed photos --store x --engine cuda
embed photos --store x --precision fp8
embed photos --store x --vectors int8
embed photos --store x --encoding zip
embed photos --store x --shards 0
embed photos --store x --shards many
embed photos --store x --max-bad-fraction 2
embed photos --store x --max-removed-fraction 2
embed photos --store x --max-pixels 0
embed photos --store x --max-bytes 0
embed photos --store x --salvage 2
embed photos --store x --augment 0
embed photos --store x --random-crop 10
embed photos --store x --augment 1 --zoom-range 5
embed photos --store x --stroe y
embed photos --store x --progress loud
embed photos --store x --config nowhere.yaml
embed photos --store x --config notes.html
embed unknown.csv --store x
embed two-paths.csv --store x
embed ragged.csv --store x
embed split.csv --store x
embed latin.csv --store x
embed bad.jsonl --store x
embed --files-from nowhere --store x
train
train nowhere --model m
train photos --model m
train model --model m
train scores.csv --model m
train store
train store --model notes.html
train store --model photos
train store --model store
train unlabelled --model m
train single --model m
train one-class --model m
train store --model m --backbone large
train store --model m --backbone a+b
train store --model m --recipe magic
train store --model m --dropout 0.5
train store --model m --how-many-training-steps 5
train store --model m --recipe retrain --learning-rate -1
train store --model m --l2 -1
train store --model m --l1 nan
train store --model m --seed -1
train store --model m --validation-percentage 60 --testing-percentage 50
train store --model m --validation-percentage -1
train store --model m --split random
train store --model m --labels nowhere.csv
train store --model m --labels notes.html
train store --model m --labels unknown.csv
train store --model m --labels foreign.csv
train store --model m --labels twice.csv
train store --model m --label-separator ' '
train store --model m --warm-start nowhere
train store --model m --warm-start store
train store --model m --sweep --folds 1
train store --model m --min-accuracy 2
train store --model m --min-accuracy 1
train store --model m --min-images 0
train store --model m --min-images 1000
train store --model m --no-flip
train store --model m --augmented
train store --model m --class-weights all
train store --fine-tune photos
train store --model m --runner
evaluate
evaluate store
evaluate nowhere --model model
evaluate store --model nowhere
evaluate model --model store
evaluate photos --model model
evaluate store --model model --split half
evaluate store --model model --output notes.html
evaluate store --model model --output photos
evaluate store --model model --backbone large
evaluate store --model model --folds 1
evaluate store --model model --neighbours nowhere.jpg
evaluate store --model model --labels nowhere.csv
evaluate store --model other --output x
score
score photos
score photos --model model
score photos --model nowhere --output x.csv
score photos --model store --output x.csv
score photos --model photos --output x.csv
score model --model store --output x.csv
score nowhere --model model --output x.csv
score store --model model --output x.xlsx
score store --model model --output x.csv.gz
score store --model model --output notes.html
score store --model model --output own.csv
score store --model model --output photos
score store --model model --output store
score store --model model --output x.csv --top-k 0
score store --model model --output x.csv --threshold 2
score store --model model --output x.csv --min-margin nan
score store --model model --output x.csv --target-precision 0
score store --model model --output x.csv --threshold 0.5 --target-precision 0.9
score store --model model --output x.csv --partition-by label
score store --model model --output x --partition-by split
score store --model model --output x.csv --store store
score store photos --model model --output x.csv
score store --model model --model model --output x.csv
score store --model model --output x.csv --copy-to notes.html
score store --model other --output x.csv
classify
classify nowhere.jpg --model model
classify photos --model model
classify photos/1.jpg
classify photos/1.jpg --model store
classify photos/1.jpg --model nowhere
classify photos/1.jpg --model model --threshold x
report
report nowhere
report photos
report other.csv
report notes.html
report store --store store
report model --store nowhere
report model --output photos
report model --output page.txt
report model --output own.csv
report model --summaries-dir photos
review
review nowhere
review photos
review model
review store
review own.csv
review scores.csv --choose 3
review store --choose 0
review store --choose few
review unlabelled --port 99999
review unlabelled --output page.txt
review unlabelled --output own.csv
export
export model
export model --to gif --output x
export model --to labels
export model --to labels --output x.csv
export model --to labels --output notes.html
export model --to tflite --output x.onnx
export nowhere --to labels --output x.txt
export store --to labels --output x.txt
export photos --to card --output x.md
export model --to projector --output x
export model --to labels --output x.txt --scores scores.csv
export store --to fiftyone --output photos
check
check --store model
check nowhere --store x
history
history nowhere
history photos
restore store
restore store x
restore store 99
restore nowhere 1
forget
forget store
forget nowhere photos
forget store nowhere
forget model photos
fsck nowhere
fsck photos
vacuum nowhere
vacuum store --older-than soon
vacuum photos
import-bottlenecks
import-bottlenecks nowhere --images photos --store x
import-bottlenecks empty --images photos --store x
init nothing
init embed --output x.txt
init embed --output notes.html
completion
completion ksh
demo --folder notes.html
demo --folder photos
trian store --model m
help trian
--version=1
--store x
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("wrong")
    make_store(base, 90)
    make_model(base)
    for name, labels in (
        ("unlabelled", (None,)),
        ("one-class", ("ant",)),
        ("single", ("ant", *["bee"] * 20, *["cat"] * 20, "dog", *["eel"] * 30)),
    ):
        make_store(base / f"{name}-folder", 72, labels=labels)
        (base / f"{name}-folder" / "store").rename(base / name)
    (base / "photos").mkdir()
    (base / "photos" / "1.jpg").write_bytes(make_images.jpeg())
    (base / "empty").mkdir()
    (base / "other").mkdir()
    quoted = '"uri","sha256","label","score","top_k","model_id","label_id"'
    for name, text in {
        "notes.html": "<p>mine</p>",
        "own.csv": "a,b\n1,2\n",
        "other.csv": "a,b\n1,2\n",
        "scores.csv": quoted + "\n",
        "unknown.csv": "photo,kind\n1.jpg,ant\n",
        "two-paths.csv": "uri,path\na.jpg,b.jpg\n",
        "ragged.csv": "uri,label\na.jpg,ant,x\n",
        "split.csv": "uri,split\na.jpg,dev\n",
        "bad.jsonl": '{"uri": "a.jpg"}\n{\n',
        "foreign.csv": f"sha256,label\n{'0' * 64},ant\n",
        "twice.csv": f"sha256,label\n{'0' * 64},ant\n{'0' * 64},bee\n",
    }.items():
        (base / name).write_text(text)
    (base / "latin.csv").write_bytes(b"uri,label\n\xe4.jpg,x\n")
    return base


def said_by(command, base):
    """Returns the exit code and what a command says on standard error, without this place."""
    code, out, err = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(shlex.split(command))
        except SystemExit as stop:
            code = stop.code
    lines = [
        line
        for line in err.getvalue().replace(str(base), "/HERE").splitlines()
        if " so far" not in line and not line.startswith(("note: this processor", "warning: the l"))
    ]
    return "\n".join([f"$ beam-flowers {command}  [{code}]", *lines])


def test_messages_are_as_recorded(folder, monkeypatch):
    monkeypatch.chdir(folder)
    found = [said_by(command, folder) for command in COMMANDS.strip().splitlines()]
    text = "\n\n".join(found) + "\n"
    if os.environ.get("BEAM_FLOWERS_RECORD"):
        RECORDED.write_text(text)
    assert text == RECORDED.read_text()


def test_messages_are_no_python_and_name_what_is_wrong():
    for block in RECORDED.read_text().strip().split("\n\n"):
        command, *lines = block.splitlines()
        assert not command.endswith("[0]"), command
        assert 0 < len(lines) < 4, command
        assert not any(PYTHON.search(line) for line in lines), block
