"""A store from somebody else: no name in it leads out of its folder."""

import json
import shutil
from pathlib import Path

import pytest
from places import KEY, OLD
from stores import cli, embed, scenes

from beam_flowers.errors import StoreError
from beam_flowers.store.commits import latest, publish

PART = "part-2a1c7b4e7921e9fdd6b0f81b.parquet"


@pytest.fixture
def store(tmp_path):
    shutil.copytree(OLD / "store", tmp_path / "deep" / "store")
    return tmp_path / "deep" / "store"


def section(document):
    return document["sections"][KEY]


def set_name(name):
    return lambda document: section(document)["parts"][0].update(name=name)


def set_key(key):
    return lambda document: document["sections"].update({key: document["sections"].pop(KEY)})


HOSTILE = {
    "part above": (set_name(f"../../{PART}"), "parts[0].name"),
    "absolute part": (set_name(f"/tmp/{PART}"), "parts[0].name"),
    "part below": (set_name(f"x/{PART}"), "parts[0].name"),
    "part in a partition above": (set_name(f"label=a/../{PART}"), "parts[0].name"),
    "part with a break": (set_name(f"{PART}\n"), "parts[0].name"),
    "user's file": (set_name("thesis.docx"), "parts[0].name"),
    "nul": (set_name(f"\0{PART}"), "parts[0].name"),
    "number for a name": (set_name(7), "parts[0].name"),
    "section above": (set_key("../../victim"), "a key of sections"),
    "section above with a form": (set_key("backbone=a/../../../victim-01234567"), "a key of"),
    "section is a reserved folder": (set_key("__commits"), "a key of sections"),
    "section with a break": (set_key(f"{KEY}\n"), "a key of sections"),
    "fingerprint above": (
        lambda document: section(document).update(fingerprint="../../../victim"),
        "fingerprint",
    ),
    "fingerprint too short": (
        lambda document: section(document).update(fingerprint="bdb160ff"),
        "fingerprint",
    ),
    "version is text": (lambda document: document.update(version="../7"), "version"),
    "version of another file": (lambda document: document.update(version=7), "version"),
    "rows are text": (lambda document: section(document)["parts"][0].update(rows="1"), "parts[0]"),
    "name is a number": (lambda document: section(document)["about"].update(name=7), "about.name"),
    "sections are a list": (lambda document: document.update(sections=[]), "damaged"),
    "document is a list": (None, "damaged"),
}
COMMANDS = (
    ["embed", "IMAGES", "--store", "STORE"],
    ["train", "STORE", "--model", "MODEL"],
    ["vacuum", "STORE", "--older-than", "0"],
    ["vacuum", "STORE", "--dry-run"],
    ["report", "STORE", "--output", "OUT.html"],
    ["score", "STORE", "--model", str(OLD / "model"), "--output", "OUT.csv"],
)


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("version", [2, 1])
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_manifest_is_named_and_nothing_is_touched(store, tmp_path, case, version):
    change, field = HOSTILE[case]
    path = store / "__commits" / f"0000000{version}.json"
    document = json.loads(path.read_text())
    if change:
        change(document)
    path.write_text(json.dumps(document if change else []))
    # Each of these would be moved or deleted if its name became a path.
    victims = [tmp_path / PART, tmp_path / "victim" / PART, tmp_path / "deep" / PART]
    for victim in victims:
        victim.parent.mkdir(exist_ok=True)
        victim.write_bytes(b"mine")
    work = store / "__work" / "bdb160ff419f42ea"
    work.mkdir(parents=True)
    (work / PART).write_bytes(b"theirs")
    before = tree(tmp_path)
    with pytest.raises(StoreError) as refusal:
        publish(str(store))
    assert str(path) in str(refusal.value)
    assert field in str(refusal.value)
    assert tree(tmp_path) == before


def test_a_section_without_its_backbone_is_named(store, tmp_path, capsys):
    path = store / "__commits" / "00000002.json"
    document = json.loads(path.read_text())
    del section(document)["about"]["name"]
    path.write_text(json.dumps(document))
    assert cli("train", store, "--model", tmp_path / "model") == 1
    assert f"names no backbone for {KEY}" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:1]))
def test_every_command_refuses_it(store, tmp_path, capsys, command):
    path = store / "__commits" / "00000002.json"
    document = json.loads(path.read_text())
    set_name(f"../../{PART}")(document)
    path.write_text(json.dumps(document))
    scenes(tmp_path / "images", 2)
    places = {
        "IMAGES": tmp_path / "images",
        "STORE": store,
        "MODEL": tmp_path / "model",
        "OUT.html": tmp_path / "out.html",
        "OUT.csv": tmp_path / "out.csv",
    }
    before = tree(tmp_path)
    assert cli(*[places.get(word, word) for word in command]) == 1
    assert "00000002.json: sections[" in capsys.readouterr().err
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["__scored", "__augmented", "__work", "__rejects", "__commits"])
def test_a_folder_of_ours_that_is_a_link_is_refused(store, tmp_path, name, capsys):
    """Behind it lies another store of the user's, to which a stranger's would write."""
    victim = tmp_path / "victim"
    shutil.copytree(OLD / "store", victim)
    if (store / name).exists():
        shutil.rmtree(store / name)
    (store / name).symlink_to(victim / name if name.startswith("__c") else victim)
    scenes(tmp_path / "images", 2)
    before = tree(tmp_path)
    flags = ["--model", OLD / "model", "--output", tmp_path / "out.csv"]
    for command in (
        ["score", tmp_path / "images", "--store", store, *flags],
        ["embed", tmp_path / "images", "--store", store],
        ["forget", store, "/tmp"],
        ["vacuum", store, "--older-than", "0"],
        ["train", store, "--model", tmp_path / "model"],
    ):
        assert cli(*command) == 1
        assert f"{store / name} is a link" in capsys.readouterr().err
    assert tree(tmp_path) == before


@pytest.mark.parametrize("folder", [KEY, f"__rejects/{KEY}", "__work/bdb160ff419f42ea"])
def test_nothing_is_published_or_deleted_through_a_link(store, tmp_path, folder):
    victim = tmp_path / "victim"
    victim.mkdir()
    for name in ("part-2a1c7b4e7921e9fdd6b0f81b", "part-8f244503011170431e1891cf"):
        (victim / f"{name}.parquet").write_bytes(b"mine")
    place = store / folder
    if place.exists():
        shutil.rmtree(place)
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(victim)
    path = store / "__commits" / "00000002.json"
    document = json.loads(path.read_text())
    section(document)["parts"] = []  # The parts of version 1 would be deleted.
    path.write_text(json.dumps(document))
    with pytest.raises(StoreError, match=f"{place} is a link"):
        publish(str(store))
    assert cli("vacuum", store, "--older-than", "0") == 0
    assert {path.read_bytes() for path in victim.iterdir()} == {b"mine"}
    assert len(list(victim.iterdir())) == 2


def test_nor_through_the_folder_of_a_label(tmp_path):
    table = tmp_path / "table"
    shutil.copytree(OLD / "table", table)
    shutil.move(table / "label=roses", tmp_path / "mine")
    (table / "label=roses").symlink_to(tmp_path / "mine")
    with pytest.raises(StoreError, match="label=roses is a link"):
        publish(str(table))


def test_a_manifest_that_is_too_deep_is_called_damaged(store):
    path = Path(store, "__commits", "00000002.json")
    path.write_bytes(b'{"x": ' + b"[" * 200_000)
    with pytest.raises(StoreError, match=r"00000002.json is damaged \(maximum recursion depth"):
        latest(str(store))


def test_names_of_parts_that_lie_in_the_work_folder_are_matched_too(tmp_path):
    store = tmp_path / "store"
    embed(scenes(tmp_path / "a", 2), store)
    work = store / "__work" / latest(str(store)).sections[KEY].fingerprint[:16]
    (work / "sub").mkdir(parents=True)
    part = next(store.glob("backbone=*/*.parquet"))
    shutil.copy(part, work / "sub" / part.name)
    shutil.copy(part, work / "mine.parquet")
    assert embed(scenes(tmp_path / "b", 3), store).total == 3
    assert (work / "sub" / part.name).exists()
    assert (work / "mine.parquet").exists()


def test_a_manifest_of_a_newer_program_is_called_newer(store):
    path = Path(store, "__commits", "00000002.json")
    path.write_text(path.read_text().replace('"layout": 1', '"layout": 5'))
    with pytest.raises(StoreError, match=r"00000002.json has layout 5.* update beam-flowers"):
        latest(str(store))
