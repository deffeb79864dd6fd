"""Finds and checks the backbones whose vectors a model takes."""

from __future__ import annotations

from collections.abc import Sequence

from beam_flowers.backbones.catalogue import require_in_catalogue
from beam_flowers.backbones.found_recipe import KnownRecipe
from beam_flowers.backbones.resolve import ResolvedBackbone, resolve
from beam_flowers.errors import ModelError
from beam_flowers.head.bundle import Bundle, require_backbone


def backbones_of(bundle: Bundle) -> tuple[ResolvedBackbone, ...]:
    """Finds the backbones that a model was trained on by their names; of `a+b` each in turn.

    Raises:
        BackboneError: one is not in the catalogue, or not on this machine.
        ModelError: one differs from the backbone that the model was trained on.
    """
    names = bundle.backbone.split("+")
    if len(names) != len(bundle.fingerprints):
        raise ModelError(f"the names in {bundle.backbone!r} are ambiguous; name them")
    cure = (
        "Give the network as the argument `backbone`: resolve(NAME, path=...), in YAML "
        "{name: NAME, path: ...}; of several side by side a list of them"
    )
    for name in names:
        require_in_catalogue(name, "the model", cure)
    pairs = zip(names, bundle.fingerprints, strict=True)
    known = recipes_of_model(bundle)
    backbones = tuple(
        resolve(name, known=known).in_form(fingerprint) for name, fingerprint in pairs
    )
    require_backbones(backbones, bundle)
    return backbones


def recipes_of_model(bundle: Bundle) -> list[KnownRecipe]:
    """Returns the recipes of the backbones whose vectors a model takes."""
    if len(bundle.fingerprints) == 1:
        return [KnownRecipe(bundle.fingerprint, bundle.pixels)]
    each = zip(bundle.backbone.split("+"), bundle.fingerprints, strict=False)
    return [
        KnownRecipe(fingerprint, bundle.pixels[name])
        for name, fingerprint in each
        if isinstance(bundle.pixels.get(name), dict)
    ]


def require_backbones(backbones: Sequence[ResolvedBackbone], bundle: Bundle) -> None:
    """Checks that a model was trained on the vectors of these backbones, in this order.

    Raises:
        ModelError: names the difference.
    """
    pixels = {backbone.row.name: backbone.about()["pixels"] for backbone in backbones}
    require_backbone(
        bundle,
        "+".join(backbone.row.name for backbone in backbones),
        "+".join(backbone.fingerprint for backbone in backbones),
        pixels if len(backbones) > 1 else pixels[backbones[0].row.name],
    )
