"""A real S3 server for the tests: versitygw over a folder, each file an object."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MODULE = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
KEY, SECRET = "rosa", "canina"


def program() -> str:
    """$BEAM_FLOWERS_VERSITYGW, from PATH, or made with Go, once, in the user's cache folder."""
    given = os.environ.get("BEAM_FLOWERS_VERSITYGW") or shutil.which("versitygw")
    if given:
        return given
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "beam-flowers" / MODULE.rpartition("/")[2]
    if not (folder / "versitygw").exists():
        if shutil.which("go") is None:
            raise RuntimeError(
                "the S3 server is missing: set BEAM_FLOWERS_VERSITYGW to versitygw, or install Go, "
                f"with which this test makes it (go install {MODULE})"
            )
        environment = {**os.environ, "GOBIN": str(folder)}
        subprocess.run(["go", "install", MODULE], env=environment, check=True)
    return str(folder / "versitygw")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """The server over `folder`, whose folders are buckets; gives its port."""
    port, side = free_port(), folder.with_name("metadata")
    folder.mkdir()
    side.mkdir()
    # Metadata beside the files: not every file system here has extended attributes.
    command = [program(), "--port", f"127.0.0.1:{port}", "--quiet", "--keep-alive"]
    command += ["posix", "--sidecar", str(side), str(folder)]
    environment = {**os.environ, "ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        _wait_until_it_listens(process, port)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} does not listen on port {port}")
