"""The files in pipelines/ give the commands' rows and rejects on every engine."""

import importlib.util

import pytest
from life import collect, run
from places import ROOT
from stores import rejects, rows

PIPELINES = ROOT / "pipelines"


def run_pipeline(name, *arguments):
    spec = importlib.util.spec_from_file_location(f"pipelines_{name}", PIPELINES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.run([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def by_commands(tmp_path_factory):
    """`images` among junk, and a store, a model and a table of them."""
    base = tmp_path_factory.mktemp("by_commands")
    folder = base / "images"
    collect(folder)
    run("embed", folder, "--store", base / "store")
    run("train", base / "store", "--model", base / "model")
    run("score", folder, "--model", base / "model", "--output", base / "table")
    return base


@pytest.mark.slow
def test_embed_and_score_give_what_the_commands_give(flags, by_commands, tmp_path):
    folder = by_commands / "images"
    beams = [flag for flag in flags if not flag.startswith("--shards")]
    run_pipeline("embed", folder, "--store", tmp_path / "store", *beams)
    model = ("--model", by_commands / "model", "--output", tmp_path / "table")
    run_pipeline("score", folder, *model, *beams)
    for name in ("store", "table"):
        assert rows(tmp_path / name) == rows(by_commands / name)
        assert rejects(tmp_path / name) == rejects(by_commands / name)
