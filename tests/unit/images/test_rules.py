"""Which stored verdicts are looked at again after a rule of decoding changed."""

import make_images
import pytest

from beam_flowers.errors import ImageError
from beam_flowers.images.decode import decode
from beam_flowers.images.formats import FORMATS
from beam_flowers.images.recipe import PixelRecipe
from beam_flowers.images.rules import CRASHED, RULES, changed_rules, decoder_versions, is_outdated


def test_what_was_recorded_before_there_were_versions_is_one(monkeypatch):
    for name in RULES:
        monkeypatch.setitem(RULES, name, 1)
    monkeypatch.setitem(RULES, "PNG", 2)
    monkeypatch.setitem(RULES, "Timeout", 3)
    assert changed_rules({}) == {"PNG", "Timeout"}
    assert changed_rules({"PNG": 2, "GIF": 4, "Timeout": 3}) == {"GIF"}
    assert changed_rules(RULES) == frozenset()


@pytest.mark.parametrize(
    ("changed", "stage", "error_class", "message", "outdated"),
    [
        ({"PNG"}, "decode", "Undecodable", "PNG cannot be decoded: x", True),
        ({"PNG"}, "decode", "Undecodable", "JPEG cannot be decoded: PNG", False),
        ({"PNG"}, "decode", "Timeout", "decoding took more than 1 seconds", True),
        ({"PNG"}, "decode", "UnsupportedFormat", "JPEG 2000 is not read", False),
        ({"JPEG"}, "decode", "UnsupportedFormat", "JPEG 2000 is not read", False),
        ({"PNG"}, "decode", "NotAnImage", "not an image", False),
        ({"PNG"}, "decode", "EmptyFile", "file has no bytes", False),
        ({"NotAnImage"}, "decode", "NotAnImage", "not an image", True),
        ({"Undecodable"}, "decode", "Undecodable", "GIF cannot be decoded: x", True),
        ({"Undecodable"}, "decode", "Timeout", "decoding took more than 1 seconds", False),
        ({"PNG"}, "decode", CRASHED, f"PNG ends its decoder ({decoder_versions()})", True),
        ({"PNG"}, "decode", CRASHED, f"JPEG ends its decoder ({decoder_versions()})", False),
        ({}, "decode", CRASHED, f"JPEG ends its decoder ({decoder_versions()})", False),
        ({}, "decode", CRASHED, "JPEG ends its decoder (Pillow 1.0, zlib 1.2)", True),
        ({}, "read", "Killed", "JPEG: the process that decodes it was ended", False),
        ({"PNG"}, "embed", "NotFinite", "the network gives NaN", False),
        ({"PNG", "Truncated"}, "read", "Truncated", "PNG", False),
        ({"PNG"}, "find", "DanglingLink", "the link leads to nothing", False),
    ],
)
def test_rejects_that_are_looked_at_again(changed, stage, error_class, message, outdated):
    assert is_outdated(frozenset(changed), stage, error_class, message) == outdated


@pytest.mark.parametrize("name", [*make_images.bad_files()])
def test_each_verdict_has_a_rule(name):
    with pytest.raises(ImageError) as raised:
        decode(make_images.bad_files()[name], PixelRecipe(8, 8))
    assert raised.value.error_class in RULES


def test_each_format_has_a_rule():
    assert set(FORMATS) < set(RULES)
