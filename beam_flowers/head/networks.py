"""A model → the backbones whose vectors it takes."""

from __future__ import annotations

from collections.abc import Sequence

from beam_flowers.backbones.catalogue import require_in_catalogue
from beam_flowers.backbones.resolve import ResolvedBackbone, resolve
from beam_flowers.errors import ModelError
from beam_flowers.head.bundle import Bundle, require_backbone


def networks_of(bundle: Bundle) -> tuple[ResolvedBackbone, ...]:
    """Finds the backbones that a model was trained on by their names; of `a+b` each in turn.

    Raises:
        BackboneError: one is not in the catalogue, or not on this machine.
        ModelError: one is another than the model was trained on.
    """
    names = bundle.backbone.split("+")
    if len(names) != len(bundle.fingerprints):
        raise ModelError(f"the names in {bundle.backbone!r} cannot be told apart; name them")
    cure = (
        "Give the network as the argument `backbone`: resolve(NAME, path=...), in YAML "
        "{name: NAME, path: ...}; of several side by side a list of them"
    )
    for name in names:
        require_in_catalogue(name, "the model", cure)
    pairs = zip(names, bundle.fingerprints, strict=True)
    networks = tuple(resolve(name).in_form(fingerprint) for name, fingerprint in pairs)
    require_networks(networks, bundle)
    return networks


def require_networks(networks: Sequence[ResolvedBackbone], bundle: Bundle) -> None:
    """Checks that a model was trained on the vectors of these backbones, in this order.

    Raises:
        ModelError: names the difference.
    """
    pixels = {network.row.name: network.about()["pixels"] for network in networks}
    require_backbone(
        bundle,
        "+".join(network.row.name for network in networks),
        "+".join(network.fingerprint for network in networks),
        pixels if len(networks) > 1 else pixels[networks[0].row.name],
    )
