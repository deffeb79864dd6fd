"""Running a pipeline with Beam's options as the user gave them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from beam_flowers.errors import InputError

if TYPE_CHECKING:
    import apache_beam as beam

DEFAULT_RUNNER = "FnApiRunner"
"""In this process, no set-up. `DirectRunner` may be another program (beam.md §2)."""


def run_pipeline(step: beam.PTransform, options: Sequence[str]) -> None:
    """Runs the pipeline that consists of `step`, to its end."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    given = [o for o in options if o == "--runner" or o.startswith("--runner=")]
    try:
        pipeline_options = PipelineOptions(
            list(options) if given else [f"--runner={DEFAULT_RUNNER}", *options]
        )
    except ValueError as error:
        raise InputError(f"Beam does not take these options: {error}") from error
    with beam.Pipeline(options=pipeline_options) as pipeline:
        pipeline | "Run" >> step
