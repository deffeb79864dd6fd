"""Which precision a command computes in, and that a head's is changed only when told so."""

import argparse

import numpy as np
import pytest

from beam_flowers.backbones.resolve import resolve
from beam_flowers.cli.model_flags import fitted
from beam_flowers.cli.shared_flags import add_weights, backbone_of
from beam_flowers.errors import ModelError
from beam_flowers.head.bundle import Bundle
from beam_flowers.head.softmax import Head

LITE = "efficientnet-lite0"


def arguments(**given):
    parser = argparse.ArgumentParser()
    add_weights(parser)
    names = vars(parser.parse_args([]))
    return argparse.Namespace(**{**dict.fromkeys(names), "engine": "auto", **given})


def model_of(fingerprint):
    head = Head(np.zeros((1280, 2), np.float32), np.zeros(2, np.float32))
    described = {key: {} for key in ("pixels", "recipe", "split", "metrics", "versions")}
    return Bundle(head, ("a", "b"), LITE, fingerprint, seed=0, dataset_hash="d", **described)


def trained(precision):
    return model_of(resolve(LITE, precision=precision).fingerprint)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_a_model_is_run_as_it_was_trained(precision, capsys):
    model = trained(precision)
    network = backbone_of(model, arguments())
    assert network.precision == precision
    assert fitted([model], [network], arguments()) == [model]
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("own", "asked"), [("float32", "bf16"), ("bfloat16", "float32"), ("float32", "int8")]
)
def test_another_precision_is_taken_only_when_told_so(own, asked, capsys):
    model, told = trained(own), arguments(precision=asked)
    network = backbone_of(model, told)
    assert network.precision != own
    (ours,) = fitted([model], [network], told)
    assert ours.fingerprint == network.fingerprint
    assert f"of another precision than {asked}" in capsys.readouterr().err


def test_another_network_is_refused_in_any_precision():
    model = model_of("0" * 64)
    for precision in (None, "bf16"):
        with pytest.raises(ModelError, match="is not as the model was trained on"):
            backbone_of(model, arguments(precision=precision))
