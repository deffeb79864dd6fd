"""Reads Beam's options of this process, from the command line or the job."""

from __future__ import annotations

from typing import Any

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.options.value_provider import RuntimeValueProvider


def beam_options() -> PipelineOptions:
    """Returns the options that file systems are made with; a worker has those of its job."""
    known: Any = FileSystems._pipeline_options
    if known is None:
        known = PipelineOptions.from_dictionary(RuntimeValueProvider.runtime_options or {})
        FileSystems.set_options(known)
    return known
