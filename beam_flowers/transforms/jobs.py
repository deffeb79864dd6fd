"""Describes and cancels a job that goes on without the process that started it.

`python -m beam_flowers.runs.jobs HOST:PORT JOB` cancels a job on any server of Beam's Job API.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import urlopen

if TYPE_CHECKING:
    from apache_beam.runners.runner import PipelineResult

_SECONDS = 5.0


def how_to_cancel(result: PipelineResult, options: Sequence[str], state: str = "unknown") -> str:
    """Tells a user who leaves a job alone how to cancel it; empty for a job of this process.

    Args:
        result: of the pipeline.
        options: Beam's, as flags.
        state: of its run; one that was `withdrawn` commits nothing, one that has `committed` ends.
    """
    # Beam has no public name for it, and the results of some runners lack it.
    job = getattr(result, "_job_id", None)
    if not job:
        return ""
    flags = dict(option.lstrip("-").split("=", 1) for option in options if "=" in option)
    if flags.get("environment_type") == "LOOPBACK" or flags.get("job_endpoint") == "embed":
        return ""  # Its workers are threads of this process.
    if state == "committed":
        return f"the job {job} had computed all and is committed"
    goes_on = "goes on, but commits nothing" if state == "withdrawn" else "may go on and commit"
    said = f"the job {job} {goes_on}"
    master = flags.get("flink_master", "")
    if master and not master.startswith("["):
        url = _flink_job(master if "://" in master else f"http://{master}", job)
        return f"{said}; to cancel it: curl -X PATCH '{url}?mode=cancel'"
    if endpoint := flags.get("job_endpoint"):
        command = f"python -m beam_flowers.runs.jobs {endpoint} {job}"
        return f"{said}; the job server at {endpoint} has it; to cancel it: {command}"
    if host := urlsplit(flags.get("spark_master_url", "")).hostname:
        return f"{said}; to cancel it: `kill` on the master's page, http://{host}:8080 by default"
    return said


def cancel(endpoint: str, job: str) -> str:
    """Has a job server (Prism, Flink's, Spark's) cancel a job; returns the state it is in then.

    Raises:
        grpc.RpcError: nobody answers there, or there is no such job.
    """
    import grpc
    from apache_beam.portability.api import beam_job_api_pb2 as api
    from apache_beam.portability.api import beam_job_api_pb2_grpc as services

    with grpc.insecure_channel(endpoint) as channel:
        service = services.JobServiceStub(channel)
        service.Cancel(api.CancelJobRequest(job_id=job), timeout=_SECONDS)
        state = service.GetState(api.GetJobStateRequest(job_id=job), timeout=_SECONDS).state
    return api.JobState.Enum.Name(state)


def _flink_job(master: str, job: str) -> str:
    """Address of the Flink job that a Beam job became: Flink's job has its name, not its id."""
    try:
        with urlopen(f"{master}/jobs/overview", timeout=_SECONDS) as answer:
            jobs = json.load(answer)["jobs"]
    except (OSError, ValueError, KeyError):
        return f"{master}/jobs/ID"
    running = [j["jid"] for j in jobs if j["state"] not in ("FINISHED", "FAILED", "CANCELED")]
    named = [j["jid"] for j in jobs if j["jid"] in running and job.startswith(j["name"])]
    return f"{master}/jobs/{(named or running or ['ID'])[0]}"
