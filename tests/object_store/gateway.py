"""A real S3 server for the tests: versitygw over a folder, each file an object."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import servers

VERSITYGW = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
KEY, SECRET = "rosa", "canina"


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """The server over `folder`, whose folders are buckets; gives its port."""
    port, side = servers.free_port(), folder.with_name("metadata")
    folder.mkdir()
    side.mkdir()
    # Metadata beside the files: not every file system here has extended attributes.
    command = [servers.program(VERSITYGW), "--port", f"127.0.0.1:{port}", "--quiet", "--keep-alive"]
    command += ["posix", "--sidecar", str(side), str(folder)]
    keys = {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}
    with servers.serving(command, port, folder.with_name("versitygw.log"), **keys):
        yield port
