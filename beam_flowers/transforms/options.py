"""Parses Beam's own flags, as its options declare them."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence

from apache_beam.options import pipeline_options as beam

from beam_flowers.errors import InputError

DEFAULT_RUNNER = "FnApiRunner"
"""In this process, no set-up. Beam's own default, `DirectRunner`, may be another program, Prism."""

_FILE_SYSTEMS = (
    beam.S3Options,
    beam.AzureOptions,
    beam.HadoopFileSystemOptions,
    beam.GoogleCloudOptions,
)


def pipeline_options(flags: Sequence[str]) -> beam.PipelineOptions:
    """Returns Beam's options from flags; without `--runner`, the pipeline runs in this process.

    Raises:
        InputError: Beam knows no such flag, which it would pass over with a warning.
    """
    known = beam_actions()
    for flag in flags:
        name = flag.partition("=")[0]
        if flag.startswith("--") and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise InputError(f"unknown flag {name!r}, neither of this program nor of Beam{hint}")
    # A later flag wins.
    return beam.PipelineOptions([f"--runner={DEFAULT_RUNNER}", *flags])


def beam_actions() -> dict[str, argparse.Action]:
    """Returns all of Beam's options by flag."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for options in beam.PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)
    return parser._option_string_actions


def file_system_actions() -> dict[str, argparse.Action]:
    """Returns the options of Beam's file systems by flag."""
    parser = argparse.ArgumentParser(add_help=False)
    for options in _FILE_SYSTEMS:
        options._add_argparse_args(parser)
    return parser._option_string_actions
