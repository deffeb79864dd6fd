"""`check`: what it says of workers that are as they should be, and of others."""

import socket
from types import SimpleNamespace

import pytest
from stores import cli, embed, photos, visible

from beam_flowers import files
from beam_flowers.backbones import compute

HOST = socket.gethostname()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("check") / "images", 1)


def test_workers_that_are_as_they_should_be(folder, tmp_path, capsys):
    assert cli("check", folder, "--store", tmp_path / "new" / "store") == 0
    said = capsys.readouterr().out
    for words in (f"{HOST}: 1 process,", "cores", "tensorflow", "apache-beam 2", "all is well"):
        assert words in said
    assert "computed 10 of 10 images" in said
    assert "writes STORE, reads IMAGES" in said
    assert not (tmp_path / "new" / "store").exists()


def test_a_store_stays_as_it_was(folder, tmp_path, capsys):
    embed(folder, tmp_path / "store")
    before = visible(tmp_path / "store")
    assert cli("check", "--store", tmp_path / "store", "--shards", 3) == 0
    assert "computed 3 of 3 images" in capsys.readouterr().out
    assert visible(tmp_path / "store") == before


def test_images_that_a_worker_cannot_read(folder, tmp_path, capsys, monkeypatch):
    def refuse(uri, limit=None):
        if "unseen" not in uri:
            raise PermissionError(13, "Permission denied", uri)
        return files.read_bytes(uri, limit)

    stand_in = SimpleNamespace(**{**vars(files), "read_bytes": refuse})
    monkeypatch.setattr(compute, "files", stand_in)
    assert cli("check", folder, "--store", tmp_path / "store") == 1
    said = capsys.readouterr()
    assert f"{HOST}: cannot read {folder}" in said.err
    assert "Permission denied" in said.err
    assert "computed 0 of 10 images" in said.out
    assert "all is well" not in said.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "is not there"),
        (["--backbone", "nonsense"], "nonsense"),
        (["--runner=Nonsense"], "Unexpected pipeline runner"),
        (["--shards", "0"], "shards must be 1 or more"),
    ],
)
def test_what_is_wrong_before_any_worker_is_asked(tmp_path, capsys, arguments, message):
    assert cli("check", "--store", tmp_path / "store", *arguments) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_a_folder_that_is_no_store(folder, capsys):
    assert cli("check", "--store", folder) == 1
    assert "is a folder of images. Name another folder for the store" in capsys.readouterr().err
