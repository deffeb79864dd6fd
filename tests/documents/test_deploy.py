"""The recipes in `deploy/` agree with each other and with the commands of this version.

Their schemas are checked by `deploy/check-recipes.sh`, the image by `deploy/container-test.sh`.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from places import ROOT

from beam_flowers.cli.beam_flags import split_flags
from beam_flowers.cli.config import command_parser
from beam_flowers.cli.parser import make_parser
from beam_flowers.transforms.runner import pipeline_options

DEPLOY = ROOT / "deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
RECIPES = ["flink/compose.yaml", "spark/compose.yaml", "kubernetes/flink.yaml"]
COMPOSE = RECIPES[:2]


def services(recipe: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / recipe).read_text())["services"]
    return loaded


def client_line(recipe: str) -> list[str]:
    """The command line that a recipe's client runs, for an `embed`."""
    if recipe in COMPOSE:
        flags = services(recipe)["client"]["entrypoint"][2].split('"$$@"')[1]
        return ["embed", "/photos", "--store=/work/store", *flags.split()]
    *_, job = yaml.safe_load_all((DEPLOY / recipe).read_text())
    line: list[str] = job["spec"]["template"]["spec"]["containers"][0]["args"]
    return line


@pytest.mark.parametrize("recipe", RECIPES)
def test_beam_has_one_version(recipe: str) -> None:
    version = re.search(r"^ARG BEAM_VERSION=(\S+)$", DOCKERFILE, re.M)
    assert version is not None
    text = (DEPLOY / recipe).read_text()
    found = re.findall(r"job_server:(?:\$\{BEAM_VERSION:-)?([\d.]+)", text)
    assert found == [version[1]]
    assert f"apache-beam=={version[1]}\n" in (DEPLOY / "constraints.txt").read_text()


@pytest.mark.parametrize("recipe", RECIPES)
def test_clients_speak_our_flags_and_beams(recipe: str) -> None:
    command, *line = client_line(recipe)
    parser = command_parser(make_parser(), command)
    assert parser is not None
    ours, beams = split_flags([re.sub(r"\$\{\w+:-(\w+)\}", r"\1", part) for part in line], parser)
    assert parser.parse_args(ours).store
    options = pipeline_options(beams).get_all_options(drop_default=True)
    assert options["environment_type"] == "EXTERNAL"
    # Both kinds of pool listen where Beam's boot program puts them.
    assert options["environment_config"] == "localhost:50000"
    # A worker that dies would then fail the job.
    assert "environment_cache_millis" not in options


@pytest.mark.parametrize("recipe", COMPOSE)
def test_a_pool_for_each_engine_worker(recipe: str) -> None:
    networks: dict[str, list[str]] = {}
    for service in services(recipe).values():
        if "network_mode" in service:
            kind = "pool" if service["command"] == ["--worker_pool"] else "engine"
            networks.setdefault(service["network_mode"], []).append(kind)
    assert len(networks) == 2
    assert all(sorted(kinds) == ["engine", "pool"] for kinds in networks.values())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "beam-flowers --help"),
        (["--help"], "beam-flowers --help"),
        (["embed", "a b", "--store=s"], "beam-flowers embed,a b,--store=s"),
        (["beam-flowers", "embed"], "beam-flowers embed"),
        (["python", "-c", "0"], "python -c,0"),
        (["--worker_pool"], "boot --worker_pool"),
        (["--id=1-1", "--provision_endpoint=x:1"], "boot --id=1-1,--provision_endpoint=x:1"),
    ],
)
def test_entry_point_tells_its_jobs_apart(
    tmp_path: Path, arguments: list[str], expected: str
) -> None:
    for name in ("beam-flowers", "boot", "python"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\nIFS=,\necho "{name} $*"\n')
        program.chmod(0o755)
    entry = tmp_path / "entrypoint"
    entry.write_text(
        (DEPLOY / "entrypoint.sh").read_text().replace("/opt/apache/beam/boot", f"{tmp_path}/boot")
    )
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    run = subprocess.run(["sh", entry, *arguments], capture_output=True, text=True, env=environment)
    assert run.stdout.strip() == expected
