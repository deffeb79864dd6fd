"""Finds the recipes that a store knows, so that an update of this program changes no run on it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from beam_flowers import files
from beam_flowers.backbones import hub
from beam_flowers.backbones.catalogue import find_row
from beam_flowers.backbones.found_recipe import KnownRecipe, fields_of, find_recipe
from beam_flowers.backbones.preprocessor_config import config_of
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import BeamFlowersError
from beam_flowers.store.commits import Section, latest


def recipes_of_store(store: str) -> list[KnownRecipe]:
    """Returns the recipes of a store's rows; none of a store that is not there yet."""
    return [
        KnownRecipe(section.fingerprint, section.about["pixels"])
        for section in latest(files.absolute(store)).sections.values()
        if isinstance(section.about.get("pixels"), dict)
    ]


def notes_on_recipe(backbone: ResolvedBackbone, store: str) -> Iterator[str]:
    """Yields lines for the user where a store has rows of the same weights by another recipe.

    One names the old rows to the first run by a new recipe, and the flag that keeps to them. One
    says to a run that keeps to them what the network's own files say.
    """
    sections = list(latest(files.absolute(store)).sections.values())
    pixels = backbone.row.about_pixels()
    same = [section for section in sections if _is_of(section, backbone)]
    of_this = [section for section in same if section.about["pixels"] == pixels]
    if not of_this:
        for section in same:
            rows = sum(part.rows for part in section.parts if not part.is_rejects)
            yield (
                f"the store has {rows} rows of these weights by other pixels or another output, "
                "which stay beside the new ones: "
                f"{_flag(backbone, section.about['pixels'])} adds to them instead"
            )
        return
    if backbone.kind not in ("saved-model", "keras-file", "onnx") or find_row(backbone.row.name):
        return
    found = find_recipe(backbone.path, backbone.kind, hub.is_handle(backbone.row.source))
    if found is None:
        return
    changes: dict[str, Any] = dict(found.fields)
    other = replace(backbone.row, **changes).about_pixels()
    if other | {"height": None, "width": None} != pixels | {"height": None, "width": None}:
        yield (
            f"the store's rows of these weights were made with {_flag(backbone, pixels)}, and "
            f"this run keeps to that; {found.by} it would be {_flag(backbone, other)}"
        )


def _is_of(section: Section, backbone: ResolvedBackbone) -> bool:
    about = section.about
    wanted = (backbone.row.name, backbone.weights_sha256)
    has_pixels = isinstance(about.get("pixels"), dict)
    return has_pixels and (about.get("name"), about.get("weights_sha256")) == wanted


def _flag(backbone: ResolvedBackbone, pixels: Mapping[str, Any]) -> str:
    """Returns the flag that gives a recipe."""
    changes: dict[str, Any]
    try:
        changes = dict(fields_of(pixels))
        row = replace(backbone.row, **changes)
    except (BeamFlowersError, KeyError, TypeError, ValueError):
        return "a recipe that this program does not know"
    output = f"--backbone-output {row.output}" if row.output else ""
    if output and replace(row, output=backbone.row.output) == backbone.row:
        return output
    row = replace(row, output="")
    default = type(row)(row.name, row.input_size, None)
    given = f"--backbone-config of a file with {json.dumps(config_of(row))}"
    if replace(default, pixel_range=row.pixel_range).about_pixels() == row.about_pixels():
        given = "--pixel-range={:g},{:g}".format(*row.pixel_range)
    return f"{given} {output}".rstrip()
