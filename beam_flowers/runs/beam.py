"""Running a pipeline with Beam's options as the user gave them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from beam_flowers.errors import InputError

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

DEFAULT_RUNNER = "FnApiRunner"
"""In this process, no set-up. `DirectRunner` may be another program (beam.md §2)."""


def pipeline_options(options: Sequence[str]) -> PipelineOptions:
    """Beam's options from flags, with our own default for the runner.

    Raises:
        InputError: Beam does not know one, or not its value.
    """
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
    from apache_beam.runners.runner import create_runner

    given = any(o.partition("=")[0] == "--runner" for o in options)
    default = [] if given else [f"--runner={DEFAULT_RUNNER}"]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed = PipelineOptions([*default, *options])
            parsed.get_all_options()
            create_runner(parsed.view_as(StandardOptions).runner)
    except (ValueError, ImportError, AttributeError, SystemExit) as error:
        # Beam's parser prints all its flags and leaves the program; the last line is the reason.
        reason = said.getvalue().strip().rpartition("error: ")[2] or str(error)
        raise InputError(f"Beam does not take these options: {reason}") from error
    return parsed


def run_pipeline(step: beam.PTransform, options: Sequence[str]) -> None:
    """Runs the pipeline that consists of `step`, to its end."""
    import apache_beam as beam

    with beam.Pipeline(options=pipeline_options(options)) as pipeline:
        pipeline | "Run" >> step
