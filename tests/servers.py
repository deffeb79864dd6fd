"""Servers that tests talk to, each a process of its own: Prism, worker pools, an S3 server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import apache_beam

COMMAND = [sys.executable, "-m", "beam_flowers.cli.main"]
PRISM = f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{apache_beam.__version__}"


def program(module: str) -> str:
    """A Go program such as `.../prism@v2.77.0`: $BEAM_FLOWERS_PRISM, from PATH, or made with Go.

    Made once, into the user's cache folder: of Prism a minute, 66 MB.
    """
    name, _, version = module.rpartition("/")[2].partition("@")
    variable = f"BEAM_FLOWERS_{name.upper()}"
    given = os.environ.get(variable) or shutil.which(name)
    if given:
        return given
    # Not the tests' own cache, which goes with each run: see conftest.
    users = os.environ["BEAM_FLOWERS_USERS_CACHE"]
    folder = Path(users, "beam-flowers", f"{name}-{version}")
    if not (folder / name).exists():
        if shutil.which("go") is None:
            raise RuntimeError(
                f"{name} is missing: set {variable} to the program, or install Go, with which "
                f"this test makes it (go install {module})"
            )
        environment = {**os.environ, "GOBIN": str(folder), "XDG_CACHE_HOME": users}
        subprocess.run(["go", "install", module], env=environment, check=True)
    return str(folder / name)


def external(job_server: str, pool: str) -> list[str]:
    """Beam's flags for a job server whose workers come from a pool."""
    return [
        "--runner=PortableRunner",
        f"--job_endpoint={job_server}",
        "--environment_type=EXTERNAL",
        f"--environment_config={pool}",
    ]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        port: int = taken.getsockname()[1]
    return port


@contextmanager
def prism(log: Path) -> Iterator[str]:
    """A running Prism; gives its HOST:PORT."""
    port = free_port()
    command = [program(PRISM), "-job_port", str(port), "-serve_http=false"]
    with serving(command, port, log) as endpoint:
        yield endpoint


@contextmanager
def worker_pool(log: Path, wrapper: Sequence[str] = (), **changed: str) -> Iterator[str]:
    """Beam's own worker pool; gives its HOST:PORT.

    Args:
        log: where it writes.
        wrapper: a command that runs it.
        changed: environment variables.
    """
    port = free_port()
    module = "apache_beam.runners.worker.worker_pool_main"
    command = [*wrapper, sys.executable, "-m", module, "--service_port", str(port)]
    # The stock pool starts its workers as plain `python`.
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **changed}
    with serving(command, port, log, **environment) as endpoint:
        yield endpoint


@contextmanager
def serving(command: Sequence[str], port: int, log: Path, **changed: str) -> Iterator[str]:
    """A process that listens on `port`, and is gone with all its children afterwards."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=file,
            start_new_session=True,
            cwd=log.parent,  # Where no `beam_flowers` lies that would be imported from here.
            env={**os.environ, **changed},
        )
    try:
        _wait_until_it_listens(process, port, log)
        yield f"localhost:{port}"
    finally:
        end(process)


def end(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """Kills a process that leads a session, and its children."""
    for signal in (15, 9):
        try:
            os.killpg(process.pid, signal)
        except ProcessLookupError:
            break
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("localhost", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not listen on {port}: {log.read_text()[-2000:]}")
