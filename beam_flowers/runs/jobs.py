"""What is known of a job that goes on without the process that started it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.request import urlopen

if TYPE_CHECKING:
    from apache_beam.runners.runner import PipelineResult

_SECONDS = 5.0


def how_to_cancel(result: PipelineResult, options: Sequence[str]) -> str:
    """What to tell a user who has left a job alone; empty for a job of this process."""
    job = getattr(result, "_job_id", None)
    if not job:
        return ""
    flags = dict(option.lstrip("-").split("=", 1) for option in options if "=" in option)
    if flags.get("environment_type") == "LOOPBACK" or flags.get("job_endpoint") == "embed":
        return ""  # Its workers are threads of this process.
    said = f"the job {job} may go on and commit by itself"
    master = flags.get("flink_master", "")
    if master and not master.startswith("["):
        url = _flink_job(master if "://" in master else f"http://{master}", job)
        return f"{said}; to cancel it: curl -X PATCH '{url}?mode=cancel'"
    endpoint = flags.get("job_endpoint")
    return f"{said}; the job server at {endpoint} has it" if endpoint else said


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
