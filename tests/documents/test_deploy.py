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


@pytest.mark.parametrize("recipe", COMPOSE)
def test_containers_have_few_rights_and_no_way_out(recipe: str) -> None:
    """Who reaches a pool's port runs programs; a hostile image may take over its worker."""
    networks = yaml.safe_load((DEPLOY / recipe).read_text())["networks"]
    assert networks["inner"] == {"internal": True}
    for name, service in services(recipe).items():
        assert service["cap_drop"] == ["ALL"], name
        # The runtime's own seccomp filter stays.
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged")
        assert service.get("network_mode", "service:").startswith("service:"), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        published = ["inner", "pages"] if "ports" in service else ["inner"]
        assert "network_mode" in service or service["networks"] == published, name
        if "beam-flowers" in service["image"]:
            assert service["read_only"], name


def pods() -> dict[str, dict[str, Any]]:
    """The pods of the Kubernetes recipe by name; Flink's has what its template adds to all."""
    flink, *others = yaml.safe_load_all((DEPLOY / RECIPES[2]).read_text())
    found = {
        "flink": flink["spec"]["podTemplate"]["spec"],
        "taskmanager": flink["spec"]["taskManager"]["podTemplate"]["spec"],
    }
    for one in others:
        if one["kind"] in ("Job", "Deployment"):
            found[one["metadata"]["name"]] = one["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize("name", ["flink", "taskmanager", "jobserver", "embed"])
def test_pods_have_few_rights(name: str) -> None:
    """A worker that is taken over would ask Kubernetes for more, or see the host's network."""
    pod = pods()[name]
    assert pod["automountServiceAccountToken"] is False
    assert not pod.get("hostNetwork")
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    # Flink's own container has its rights from the template for all its pods.
    main = [c for c in pod["containers"] if name == "flink" or c["name"] != "flink-main-container"]
    for container in main + pod.get("initContainers", []):
        rights = container["securityContext"]
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert not rights.get("privileged")
        if name != "flink":
            assert rights["readOnlyRootFilesystem"]
        if container["image"].startswith("beam-flowers") if name != "flink" else True:
            assert rights["runAsNonRoot"]


def test_pods_reach_each_other_names_and_storage_alone() -> None:
    """What takes over a worker could send the images away, or load more."""
    loaded = yaml.safe_load_all((DEPLOY / RECIPES[2]).read_text())
    policies = [one["spec"] for one in loaded if one["kind"] == "NetworkPolicy"]
    assert all(policy["podSelector"] == {} for policy in policies)
    assert {kind for policy in policies for kind in policy["policyTypes"]} == {"Ingress", "Egress"}
    outward = [rule for policy in policies for rule in policy.get("egress", [])]
    assert all(rule["to"] for rule in outward)
    blocks = [to["ipBlock"]["cidr"] for rule in outward for to in rule["to"] if "ipBlock" in to]
    # Of RFC 5737: an example, to be replaced.
    assert blocks == ["192.0.2.1/32"]


def test_the_image_installs_by_digest_alone() -> None:
    """Who takes over a package or a mirror would run programs in every worker."""
    lines = re.findall(r"pip install ([^&;]*)", DOCKERFILE.replace("\\\n", " "))
    assert "--require-hashes --no-deps" in lines[0]
    assert len(lines) == 3
    assert all(line.startswith("--no-deps --no-build-isolation .") for line in lines[1:])


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_list_of_digests_has_the_versions_of_the_constraints(machine: str) -> None:
    def versions(text: str) -> dict[str, str]:
        found = re.findall(r"^([\w.-]+)==([^ \n]+)", text, re.M)
        return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}

    text = (DEPLOY / f"requirements-{machine}.txt").read_text()
    locked, named = versions(text), versions((DEPLOY / "constraints.txt").read_text())
    assert locked.items() <= named.items()
    missing = {"x86_64": "tensorflow", "aarch64": "tensorflow-cpu"}[machine]
    assert named.keys() - locked.keys() == {missing}
    entries = re.split(r"\n(?=\S)", text.partition("\nabsl")[2])
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"https?://|^-", text, re.M)


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
