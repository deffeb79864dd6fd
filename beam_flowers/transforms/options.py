"""Beam's own flags, as its options declare them."""

from __future__ import annotations

import argparse

from apache_beam.options import pipeline_options as beam

_FILE_SYSTEMS = (
    beam.S3Options,
    beam.AzureOptions,
    beam.HadoopFileSystemOptions,
    beam.GoogleCloudOptions,
)


def beam_actions() -> dict[str, argparse.Action]:
    """All of Beam's options by flag."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for options in beam.PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)
    return parser._option_string_actions


def file_system_actions() -> dict[str, argparse.Action]:
    """The options of Beam's file systems by flag."""
    parser = argparse.ArgumentParser(add_help=False)
    for options in _FILE_SYSTEMS:
        options._add_argparse_args(parser)
    return parser._option_string_actions
