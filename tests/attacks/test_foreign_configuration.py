"""A configuration file from somebody else.

What its maker would gain: all memory and hours of the machine for a few hundred bytes, or Python's
own words in place of an error.
"""

import pytest

from beam_flowers.cli import config
from beam_flowers.cli.config import parse_config, read_config
from beam_flowers.errors import InputError, InputFieldError


def nested(first, of_ten):
    """Eleven anchors, each of which names the one before it ten times: 10^11 values."""
    lines = [f"x-0: &a0 {first}"]
    lines += [f"x-{n}: &a{n} {of_ten.format(','.join([f'*a{n - 1}'] * 10))}" for n in range(1, 12)]
    return "\n".join(lines) + "\n"


BOMBS = {
    "a billion laughs": nested("[x]", "[{}]") + "embed: {images: *a11}",
    "a billion laughs, merged": nested("{k: 1}", "{{{{<<: [{}]}}}}".format("{}")) + "embed: *a11",
    "a list in itself": "x-a: &a [*a]",
    "a mapping merged into itself": "embed: &a {<<: *a}",
    "lists in lists": "x-a: " + "[" * 100_000,
    "mappings in mappings": "embed: " + "{a: " * 100_000,
    "depth by aliases": "".join(f"x-{n}: &b{n} [{f'*b{n - 1}' if n else ''}]\n" for n in range(40)),
    "a long number": "embed: {top-k: " + "1:" * 100_000 + "1}",
    "many values": "x-a: [" + "1," * 2000 + "1]",
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_a_small_file_that_becomes_a_large_one_is_refused(text, monkeypatch):
    monkeypatch.setattr(config, "MOST_VALUES", 1500)
    with pytest.raises(InputFieldError, match=r"^c\.yaml, line [0-9]+: ") as refusal:
        parse_config(text.encode(), "c.yaml")
    assert refusal.value.file == "c.yaml"
    assert refusal.value.field.startswith("line ")


def test_a_file_of_any_size_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "MOST_BYTES", 1000)
    (tmp_path / "c.yaml").write_bytes(b"#" * 1001)
    with pytest.raises(InputFieldError, match="more than 1000 bytes"):
        read_config(str(tmp_path / "c.yaml"))
    with pytest.raises(InputError, match="more than 1000 bytes"):
        read_config("/dev/zero")


def test_shared_settings_are_no_bomb():
    text = "x-a: &a {verify: true}\nembed: {<<: *a}\nscore: {<<: *a}\n"
    assert {*parse_config(text.encode()).sections} == {"embed", "score"}
    names = ",".join(f"/photos/{number}" for number in range(1000))
    parse_config(f"embed: {{images: [{names}]}}".encode())
