"""Flags for clusters as they reach Beam, and what is said of a job that is left alone."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from beam_flowers.cli.beam_flags import split_flags
from beam_flowers.cli.config import command_parser
from beam_flowers.cli.parser import make_parser
from beam_flowers.errors import WorkerError
from beam_flowers.transforms.jobs import how_to_cancel
from beam_flowers.transforms.runner import _explained, pipeline_options

JOB = "BeamApp-user-1122-abc_6d1f"


def test_flags_of_a_cluster_reach_beam():
    command = command_parser(make_parser(), "embed")
    ours = ["images", "--store", "s3://bucket/store"]
    flags = {
        "runner": "FlinkRunner",
        "flink_master": "host:8081",
        "environment_type": "EXTERNAL",
        "environment_config": "host:50000",
        "sdk_worker_parallelism": "4",
        "number_of_execution_retries": "5",  # Known to the job server alone.
    }
    split = split_flags([*ours, *(f"--{k}={v}" for k, v in flags.items())], command)
    assert split.ours == ours
    found = pipeline_options(split.beams).get_all_options(retain_unknown_options=True)
    assert {name: str(found[name]) for name in flags} == flags


@pytest.fixture
def flink():
    """Address of what answers as Flink's `/jobs/overview` does."""
    jobs = [
        {"jid": "1" * 32, "name": "BeamApp-user-1122-abc", "state": "FINISHED"},
        {"jid": "2" * 32, "name": "BeamApp-other-1122-xyz", "state": "RUNNING"},
        {"jid": "3" * 32, "name": "BeamApp-user-1122-abc", "state": "RUNNING"},
    ]

    class Overview(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/jobs/overview" else 404)
            self.end_headers()
            self.wfile.write(json.dumps({"jobs": jobs}).encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("localhost", 0), Overview) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"localhost:{server.server_port}"
        server.shutdown()


def test_how_to_cancel_a_flink_job(flink):
    said = how_to_cancel(SimpleNamespace(_job_id=JOB), [f"--flink_master={flink}"])
    assert JOB in said
    assert f"curl -X PATCH 'http://{flink}/jobs/{'3' * 32}?mode=cancel'" in said


@pytest.mark.parametrize(
    ("job", "flags", "words"),
    [
        (None, [], ""),
        (JOB, ["--job_endpoint=embed"], ""),
        (JOB, ["--job_endpoint=host:1", "--environment_type=LOOPBACK"], ""),
        (JOB, ["--job_endpoint=host:1"], f"the job {JOB} may go on .* the job server at host:1"),
        (
            JOB,
            ["--job_endpoint=host:1"],
            f"to cancel it: python -m beam_flowers.runs.jobs host:1 {JOB}",
        ),
        (
            JOB,
            ["--spark_master_url=spark://host:7077"],
            "`kill` on the master's page, http://host:8",
        ),
        (JOB, ["--spark_master_url=local[4]"], "may go on and commit$"),
        (JOB, ["--flink_master=localhost:1"], "http://localhost:1/jobs/ID.mode=cancel"),
    ],
)
def test_what_is_said_of_a_job_that_is_left_alone(job, flags, words):
    said = how_to_cancel(SimpleNamespace(_job_id=job), flags)
    assert bool(said) == bool(words)
    assert not words or re.search(words, said)


@pytest.mark.parametrize(
    "line",
    [
        "ModuleNotFoundError: No module named 'beam_flowers'",
        "AttributeError: Can't get attribute 'Step' on <module 'beam_flowers.transforms.dofns'>",
        "TypeError: code() argument 13 must be str, not int",
    ],
)
def test_a_worker_that_cannot_read_its_steps(line):
    found = _explained(RuntimeError(f"Traceback (most recent call last):\n  File x\n{line}\n\tat"))
    assert isinstance(found, WorkerError)
    assert f"({line})" in str(found)


def test_another_error_stays_as_it_is():
    error = RuntimeError("OSError: no space left")
    assert _explained(error) is error
