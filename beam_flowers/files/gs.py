"""Adds to Beam's `gs://` a conditional write, and copies and deletes in single requests.

Beam makes and authorizes the client, so that Beam's options apply.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from apache_beam.io.gcp.gcsio import GcsIO, parse_gcs_path
from google.api_core.exceptions import NotFound, PreconditionFailed

from beam_flowers.files.options import beam_options


def put_if_absent(uri: str, data: bytes) -> bool:
    """Writes an object unless one exists; see `files.put_if_absent`."""
    try:
        _blob(uri).upload_from_string(data, if_generation_match=0)
    except PreconditionFailed:
        return False
    return True


def copy(source: str, target: str) -> None:
    """Copies an object within the service and replaces an older one."""
    new, old = _blob(target), _blob(source)
    old.bucket.copy_blob(old, new.bucket, new.name)


def delete(uri: str) -> None:
    """Deletes an object, if it exists."""
    with suppress(NotFound):
        _blob(uri).delete()


def _blob(uri: str) -> Any:
    bucket, name = parse_gcs_path(uri)
    return GcsIO(pipeline_options=beam_options()).client.bucket(bucket).blob(name)
