"""Where workers are other processes their finished parts say how far a run is."""

import json
import subprocess
import sys

import pytest
from stores import scenes


@pytest.mark.engines
def test_parts_are_counted_while_workers_are_elsewhere(tmp_path):
    folder = scenes(tmp_path / "images", 200)
    worker = f"{sys.executable} -m apache_beam.runners.worker.sdk_worker_main"
    command = [sys.executable, "-m", "beam_flowers.cli.main", "embed", folder, "--progress=json"]
    command += ["--store", tmp_path / "store", "--shards", "50"]
    command += ["--runner=PortableRunner", "--job_endpoint=embed"]
    command += ["--environment_type=beam:env:harness_subprocess_python:v1"]
    command += [f"--environment_config={worker}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    objects = [json.loads(line) for line in run.stderr.splitlines()]
    done = [o["done"] for o in objects if o.get("stage") == "computing"]
    assert done == sorted(done)
    assert done[0] == 0
    assert [n for n in done if 0 < n < 200], "nothing was seen before the end"
    assert objects[-1]["embedded"] == 200
