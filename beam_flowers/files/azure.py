"""What Beam's file system for `azfs://` lacks: a conditional write, a copy that is waited for.

Its own copy goes to Azure's public address, whatever the account's, and returns before it is done;
deleting what is not there is an error to it.
"""

from __future__ import annotations

import time
from typing import Any

from apache_beam.io.azure.blobstorageio import BlobStorageIO, parse_azfs_path
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

from beam_flowers.files.options import beam_options


def put_if_absent(uri: str, data: bytes) -> bool:
    """See `files.put_if_absent`."""
    try:
        # Sent with If-None-Match: *.
        _blob(uri).upload_blob(data, overwrite=False)
    except ResourceExistsError:
        return False
    return True


def copy(source: str, target: str) -> None:
    """Copies a blob within the account, over one that may be there."""
    new = _blob(target)
    state = new.start_copy_from_url(_blob(source).url)["copy_status"]
    while state == "pending":
        time.sleep(0.2)
        state = new.get_blob_properties().copy.status
    if state != "success":
        raise OSError(f"{source!r} was not copied to {target!r}: {state}")


def delete(uri: str) -> None:
    """Deletes a blob; nothing there is no error."""
    try:
        _blob(uri).delete_blob()
    except ResourceNotFoundError:
        return


def _blob(uri: str) -> Any:
    container, name = parse_azfs_path(uri)
    client = BlobStorageIO(pipeline_options=beam_options()).client
    return client.get_blob_client(container, name)
