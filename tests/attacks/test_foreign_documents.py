"""JSON of a store, a run or a cache from somebody else, whose syntax is right.

What its maker would gain: Python's own words in place of an error, all memory for a small file, a
command that never ends, a number where a path or a text is meant.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from places import KEY, OLD
from stores import cli

from beam_flowers.backbones import cache, efficientnet_lite
from beam_flowers.errors import BackboneFieldError, StoreFieldError
from beam_flowers.files.typed import MOST_BYTES, MOST_DEPTH, MOST_FREE_BYTES, MOST_ITEMS
from beam_flowers.store.commits import (
    Manifest,
    Section,
    decode_manifest,
    encode_manifest,
    latest,
    read_manifest,
)
from beam_flowers.store.history import history
from beam_flowers.store.lease import lease_uri, read_lease
from beam_flowers.store.parts import Part

RUN = "0123456789abcdef"
PLACE = f"sections['{KEY}']"


@pytest.fixture
def store(tmp_path):
    return Path(shutil.copytree(OLD / "store", tmp_path / "store"))


def manifest_of(store):
    return store / "__commits" / "00000002.json"


def change(store, *path, value):
    document = json.loads(manifest_of(store).read_text())
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    manifest_of(store).write_text(json.dumps(document))


def deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


SECTION = ("sections", KEY)
WRONG = {
    # A crash of `history`, which prints dates and options.
    "a time after all dates": (("made",), {"time": 1e300}, "made.time"),
    "options that are none": (("made",), {"options": [1]}, "made.options"),
    # Python's words from `train`, which looks names up.
    "a recipe that is a text": ((*SECTION, "about", "pixels"), "224", f"{PLACE}.about.pixels"),
    # An array of 10^18 places for copies that are not there.
    "any number of copies": ((*SECTION, "about", "copies"), 10**18, f"{PLACE}.about.copies"),
    # A sum that no array holds.
    "rows without end": ((*SECTION, "parts", 0, "rows"), 10**30, f"{PLACE}.parts[0].rows"),
    "half a row": ((*SECTION, "parts", 0, "rows"), 0.5, f"{PLACE}.parts[0].rows"),
    "true rows": ((*SECTION, "parts", 0, "rows"), True, f"{PLACE}.parts[0].rows"),
    "a part that is a name": ((*SECTION, "parts", 0), "part", f"{PLACE}.parts[0]"),
    "an unknown field": (
        (*SECTION, "parts", 0, "url"),
        "https://example.org",
        f"{PLACE}.parts[0]",
    ),
    # A path that `fsck --repair` and `forget` would go to.
    "a lost part above": (
        (*SECTION, "lost"),
        [{"name": "../../mine", "rows": 1, "digest": "ab" * 32}],
        f"{PLACE}.lost[0].name",
    ),
    # A recursion that ends Python when the next version is written.
    "lists in lists": (("counts", "deep"), deep(MOST_DEPTH + 1), "counts"),
    # Hundreds of MB of objects for each version that is read.
    "any number of values": (("counts", "many"), "x" * MOST_FREE_BYTES, "counts"),
    "any number of roots": ((*SECTION, "roots"), [""] * (MOST_ITEMS + 1), f"{PLACE}.roots"),
}


@pytest.mark.parametrize("case", WRONG)
def test_the_field_of_a_manifest_is_named(store, case):
    path, value, field = WRONG[case]
    change(store, *path, value=value)
    with pytest.raises(StoreFieldError) as refusal:
        latest(str(store))
    assert (refusal.value.file, refusal.value.field) == (str(manifest_of(store)), field)
    assert str(manifest_of(store)) in str(refusal.value)
    assert len(str(refusal.value)) < 1000


def test_the_command_says_so_in_one_line(store, capsys):
    change(store, *SECTION, "parts", 0, "rows", value="7")
    assert cli("history", store) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"00000002.json is damaged ({PLACE}.parts[0].rows: Expected `int`, got `str`)" in line


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "large file"])
def test_what_is_no_file_is_not_waited_for(store, kind):
    """A pipe in its place would be waited for without end, a device read until memory ends."""
    path = manifest_of(store)
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(MOST_BYTES + 1)  # Sparse: it takes no room, and gigabytes when read.
    with pytest.raises(StoreFieldError, match=r"00000002\.json is damaged") as refusal:
        latest(str(store))
    assert refusal.value.file == str(path)


def test_a_store_of_fifty_million_images_has_room():
    """10,000s of parts, as a run writes 8,192 rows into each, and small ones of daily runs."""
    part = Part(f"part-{RUN}-{RUN}.parquet", 8192, "ab" * 32, 0, 40_000_000, "cd" * 32)
    manifest = Manifest(1, RUN, {KEY: Section("ef" * 32, {}, (part,) * 1000)})
    data = encode_manifest(manifest)
    assert decode_manifest(data, "1.json").sections == manifest.sections
    assert 500 * len(data) < MOST_BYTES
    assert MOST_ITEMS > 50_000_000 / 8192 * 50


def test_numbers_that_python_wrote_and_json_has_not_are_still_read(store):
    change(store, "counts", "loss", value=float("nan"))
    change(store, "made", value={"options": {"a": float("inf"), "b": "NaN"}})
    found = latest(str(store))
    assert found.counts["loss"] is None
    assert found.made == {"options": {"a": None, "b": "NaN"}}
    assert [version.number for version in history(str(store))] == [2, 1]


LEASES = {
    "of another state": ({"state": "gone"}, ""),
    "by a number": ({"state": "withdrawn", "by": 7}, "by"),
    "on no version": ({"state": "committing", "base": -1, "exact": True, "manifest": {}}, "base"),
    "perhaps exact": ({"state": "committing", "base": 1, "exact": 1, "manifest": {}}, "exact"),
    "of no layout": (
        {"state": "committing", "base": 1, "exact": True, "manifest": {}},
        "manifest.layout",
    ),
}


@pytest.mark.parametrize("case", LEASES)
def test_the_field_of_a_lease_is_named(store, case):
    """`vacuum` finishes the commit that a lease describes: it would commit another's rows."""
    document, field = LEASES[case]
    path = Path(lease_uri(str(store), RUN))
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(document))
    with pytest.raises(StoreFieldError) as refusal:
        read_lease(str(store), RUN)
    assert refusal.value.file == str(path)
    assert field in str(refusal.value)


def test_a_path_within_a_lease_is_matched_as_in_a_manifest(store):
    manifest = json.loads(encode_manifest(read_manifest(str(store), 2)))
    manifest["run"] = RUN
    manifest["sections"][KEY]["parts"][0]["name"] = "../../mine"
    path = Path(lease_uri(str(store), RUN))
    path.parent.mkdir(parents=True)
    document = {"state": "committing", "base": 1, "exact": True, "manifest": manifest}
    path.write_text(json.dumps(document))
    with pytest.raises(StoreFieldError) as refusal:
        read_lease(str(store), RUN)
    assert refusal.value.field == f"manifest.{PLACE}.parts[0].name"


ARCHITECTURE = {"input_size": 224, "batch_norm_epsilon": 0.001, "blocks": []}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"input_size": 10**6}, "input_size"),  # 12 TB for the first image.
        ({"input_size": "224"}, "input_size"),
        ({"batch_norm_epsilon": 0}, "batch_norm_epsilon"),
        ({"blocks": [{"stride": 0, "expand_ratio": 1, "residual": True}]}, "blocks[0].stride"),
        ({"blocks": 3}, "blocks"),
    ],
)
def test_the_field_of_an_architecture_is_named(tmp_path, fields, field):
    """It lies beside weights that are compared with their digest, and is not itself."""
    (tmp_path / "architecture.json").write_text(json.dumps({**ARCHITECTURE, **fields}))
    np.savez(tmp_path / "w.npz")
    with pytest.raises(BackboneFieldError) as refusal:
        efficientnet_lite.read(str(tmp_path / "w.npz"))
    assert refusal.value.field == field


def test_a_field_that_is_skipped_is_text_too(tmp_path):
    text = json.dumps({**ARCHITECTURE, "note": "?"}).encode().replace(b"?", b"\xff")
    (tmp_path / "architecture.json").write_bytes(text)
    with pytest.raises(BackboneFieldError, match="utf-8"):
        efficientnet_lite.read(str(tmp_path / "w.npz"))


@pytest.mark.parametrize("content", [b"\xff" * 64, b"", "device"])
def test_what_is_no_digest_makes_a_kept_network_new(tmp_path, content):
    cache.keep(
        tmp_path / "kept" / "one", lambda folder: Path(folder, "net").write_text("x") and None
    )
    digest = tmp_path / "kept" / "one" / "sha256"
    assert cache.is_whole(digest.parent)
    digest.unlink()
    digest.symlink_to("/dev/zero") if content == "device" else digest.write_bytes(content)
    assert not cache.is_whole(digest.parent)
