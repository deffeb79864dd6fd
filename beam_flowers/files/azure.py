"""Adds to Beam's `azfs://` a conditional write, a completed copy and a forgiving delete.

Beam's own copy goes to Azure's public address even if the account has another one, and returns
before the copy is complete. Beam's delete fails for a missing blob.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from apache_beam.io.azure.blobstorageio import BlobStorageIO, parse_azfs_path
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

from beam_flowers.files.options import beam_options


def put_if_absent(uri: str, data: bytes) -> bool:
    """Writes a blob unless one exists; see `files.put_if_absent`."""
    try:
        # Sent with If-None-Match: *.
        _blob(uri).upload_blob(data, overwrite=False)
    except ResourceExistsError:
        return False
    return True


def copy(source: str, target: str) -> None:
    """Copies a blob within the account and replaces an older one."""
    new = _blob(target)
    state = new.start_copy_from_url(_blob(source).url)["copy_status"]
    while state == "pending":
        time.sleep(0.2)
        state = new.get_blob_properties().copy.status
    if state != "success":
        raise OSError(f"{source!r} was not copied to {target!r}: {state}")


def delete(uri: str) -> None:
    """Deletes a blob, if it exists."""
    with suppress(ResourceNotFoundError):
        _blob(uri).delete_blob()


def _blob(uri: str) -> Any:
    container, name = parse_azfs_path(uri)
    client = BlobStorageIO(pipeline_options=beam_options()).client
    return client.get_blob_client(container, name)
