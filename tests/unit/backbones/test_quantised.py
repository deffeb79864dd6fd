"""Int8: a network of its own, with the same bits on every processor that has AVX2."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from beam_flowers.backbones import engine, hardware, quantised
from beam_flowers.backbones.resolve import resolve
from beam_flowers.errors import BackboneError, BackboneFieldError

pytest.importorskip("openvino")
GOLDEN = Path(__file__).parents[2] / "data" / "efficientnet_lite0_golden.npz"
SHIPPED = "1286dc61d91958d978c5d68cd50fc10e0db0ee376014ca3146bd8b7b20a35782"
_VECTORS = f"""
import hashlib, sys
import numpy as np
from beam_flowers.backbones import engine, resolve
lite = engine.load(resolve.resolve("efficientnet-lite0", precision="int8"))
with np.load({str(GOLDEN)!r}) as golden:
    pixels = np.concatenate([golden["images"], golden["images"][:2, ::-1]])
print(hashlib.sha256(lite.embed(pixels).tobytes()).hexdigest(), "tensorflow" in sys.modules)
"""


@pytest.fixture(scope="module")
def lite():
    return resolve("efficientnet-lite0", precision="int8", engine="openvino")


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return arrays["images"], arrays["features"]


def test_the_package_has_the_network_that_its_readme_describes(lite):
    assert lite.quantised_sha256 == SHIPPED
    readme = Path(lite.quantised_place).parent / "README.md"
    assert SHIPPED in readme.read_text()


def test_vectors_are_near_float32_and_the_same_bits_in_any_company(lite, golden):
    images, features = golden
    found = engine.load(lite).embed(images)
    cosines = (found * features).sum(1)
    cosines /= np.linalg.norm(found, axis=1) * np.linalg.norm(features, axis=1)
    assert 0.95 < cosines.min() < cosines.max() < 0.9999
    alone = [engine.load(lite).embed(image[np.newaxis])[0] for image in images]
    np.testing.assert_array_equal(found, alone)


def test_a_fingerprint_of_its_own_is_found_again(lite):
    full = resolve("efficientnet-lite0", engine="openvino")
    assert lite.fingerprint not in {full.fingerprint, full.in_precision("bfloat16").fingerprint}
    assert full.in_form(lite.fingerprint) == lite
    half = replace(lite, vectors="float16")
    assert full.in_form(half.fingerprint) == half
    assert lite.in_form(full.fingerprint) == lite.in_precision("float32") == full


def test_tensorflow_does_not_run_it(lite):
    with pytest.raises(BackboneError, match="in int8 runs on OpenVINO only: leave --engine"):
        engine.load(replace(lite, engine="tensorflow"))


def test_another_pixel_recipe_has_no_quantised_network():
    with pytest.raises(BackboneError, match="leave --pixel-range or --precision int8 out"):
        resolve("efficientnet-lite0", pixel_range=(0, 1), precision="int8")


@pytest.fixture
def own(lite, tmp_path, monkeypatch):
    """A copy of the network for a backbone of the same weights that the package does not have."""
    monkeypatch.setenv("BEAM_FLOWERS_BACKBONES", str(tmp_path))
    row = replace(lite.row, in_package=False)
    backbone = replace(lite.in_precision("float32"), row=row)
    folder = tmp_path / "int8" / f"efficientnet-lite0-{backbone.short}"
    shutil.copytree(lite.quantised_place, folder)
    return backbone, folder


def test_a_network_of_ones_own_is_found(own, lite):
    backbone, folder = own
    found = backbone.in_precision("int8")
    assert (found.quantised_place, found.fingerprint) == (str(folder), lite.fingerprint)


@pytest.mark.parametrize("name", ["network.bin", "network.xml"])
def test_a_damaged_network_is_refused(own, name):
    backbone, folder = own
    before = backbone.in_precision("int8")
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(BackboneError, match=r"is damaged: .*quantise the network again"):
        backbone.in_precision("int8")
    with pytest.raises(BackboneError, match="it is another; every worker needs the same"):
        engine.load(before)


def test_a_network_that_is_gone_is_named(own):
    backbone, folder = own
    before = backbone.in_precision("int8")
    shutil.rmtree(folder)
    with pytest.raises(BackboneError, match=r"backbones --quantize efficientnet-lite0 --images"):
        backbone.in_precision("int8")
    assert backbone.in_form(before.fingerprint) == backbone
    with pytest.raises(BackboneError, match="cannot be read at"):
        engine.load(before)


def test_a_description_of_another_form_is_refused(own):
    backbone, folder = own
    (folder / "about.json").write_text('{"of": 1}')
    with pytest.raises(BackboneFieldError, match=r"about\.json"):
        backbone.in_precision("int8")


def test_a_network_of_another_recipe_is_not_taken(own):
    backbone, folder = own
    about = folder / "about.json"
    about.write_text(about.read_text().replace(backbone.fingerprint, "0" * 64))
    assert quantised.find(backbone.row, backbone.fingerprint) is None


def bits(*prefix, **environment):
    """The digest of ten vectors as a process of its own computes them."""
    call = [*prefix, sys.executable, "-c", _VECTORS]
    said = subprocess.check_output(call, text=True, env={**os.environ, **environment})
    digest, with_tensorflow = said.split()[-2:]
    assert with_tensorflow == "False"
    return digest


CAPS = {"AVX2": "avx2", "AVX512_CORE": "avx512bw", "AVX512_CORE_VNNI": "avx512_vnni"}


@pytest.mark.slow
def test_the_bits_are_the_same_with_and_without_avx512_and_vnni():
    caps = [cap for cap, flag in CAPS.items() if flag in hardware.flags()]
    found = {cap: bits(ONEDNN_MAX_CPU_ISA=cap) for cap in (*caps, "DEFAULT")}
    assert len(set(found.values())) == 1, found


@pytest.mark.slow
def test_the_bits_are_those_of_an_emulated_haswell():
    """QEMU hides AVX-512 from every library, not from oneDNN alone."""
    qemu = shutil.which("qemu-x86_64")
    if not qemu or os.uname().machine != "x86_64":
        pytest.skip("QEMU is not installed: apt-get install qemu-user")
    assert bits(qemu, "-cpu", "Haswell") == bits()


def test_the_digest_is_that_of_sha256sums_lines(lite):
    names = ("network.bin", "network.xml")
    lines = [
        f"{hashlib.sha256((Path(lite.quantised_place) / n).read_bytes()).hexdigest()}  {n}\n"
        for n in names
    ]
    assert hashlib.sha256("".join(lines).encode()).hexdigest() == SHIPPED
