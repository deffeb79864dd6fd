"""Taking a backbone out of a store; the network is the real one."""

import shutil
from dataclasses import replace

import pytest
from stores import cli, embed, rows, scenes

from beam_flowers.backbones.resolve import resolve
from beam_flowers.store.commits import latest, versions
from beam_flowers.store.fsck import fsck
from beam_flowers.workflows.embed import embed_images

LITE = "efficientnet-lite0"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    base = tmp_path_factory.mktemp("two backbones")
    scenes(base / "images", 6)
    embed(base / "images", base / "store")
    kept = latest(str(base / "store"))
    halves = replace(resolve(LITE), vectors="float16")
    embed_images([str(base / "images")], str(base / "store"), halves)
    return base, kept


@pytest.fixture
def store(made, tmp_path):
    return shutil.copytree(made[0] / "store", tmp_path / "store")


@pytest.fixture
def other(made, store):
    """The name of the second one's folder, without its beginning."""
    (key,) = sections(store).keys() - made[1].sections.keys()
    return key.removeprefix("backbone=")


def sections(store):
    return latest(str(store)).sections


def test_its_rows_leave_and_those_of_the_others_stay(
    made, store, other, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert len(sections(store)) == 2
    assert cli("forget", store, other, "--dry-run") == 0
    assert "would forget 6 rows" in capsys.readouterr().out
    assert cli("forget", store, other) == 0
    assert "forgot 6 rows" in capsys.readouterr().out
    assert sections(store) == made[1].sections
    assert len(rows(store)) == 6
    assert fsck(str(store)).is_sound


def test_with_now_no_older_version_has_them(store, other, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("forget", store, other, "--now") == 0
    assert versions(str(store))[-1:] == [3]
    assert not [path for path in store.glob(f"**/*{other}*/**/*") if path.is_file()]


def test_a_name_that_is_a_folder_as_well_is_refused(store, other, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / other).mkdir()
    assert cli("forget", store, other) == 1
    assert f"write {tmp_path / other} for that folder" in capsys.readouterr().err
    assert len(sections(store)) == 2


def test_the_bare_name_is_all_that_have_it(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("forget", store, LITE) == 0
    assert not sections(store)
    assert not rows(store)


def test_a_store_without_a_backbone_takes_images_again(made, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("forget", store, LITE) == 0
    assert embed(made[0] / "images", store).rows == 6
    assert sections(store).keys() == made[1].sections.keys()
