"""Names that stand in users' files and terminals stay, wherever the code behind them goes."""

import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import beam_flowers
from beam_flowers.transforms import preflight

PACKAGE = Path(beam_flowers.__file__).parent
ROOMS = sorted({path.parent for path in PACKAGE.rglob("*.py")})


@pytest.mark.parametrize("name", import_module("beam_flowers.transforms").__all__)
def test_transforms_by_the_name_of_their_package(name):
    found = getattr(import_module("beam_flowers.transforms"), name)
    assert getattr(beam_flowers, name, found) is found


def test_the_package_of_transforms_has_all_that_it_had():
    had = {"FindImages", "ReadImages", "ComputeBottlenecks", "ScoreBottlenecks", "ScoreImages"}
    had |= {"REJECTS", "ReadStore", "WriteStore"}
    transforms = import_module("beam_flowers.transforms")
    assert had <= {*transforms.__all__, *transforms._DEPRECATED}
    for old, new in transforms._DEPRECATED.items():
        with pytest.warns(DeprecationWarning, match=new):
            assert getattr(transforms, old) is getattr(transforms, new)


def test_the_old_names_of_yaml_transforms():
    providers = import_module("beam_flowers.yaml_transforms")
    for old, new in providers._DEPRECATED.items():
        with pytest.warns(DeprecationWarning, match=new):
            assert getattr(providers, old) is getattr(providers, new)


def test_the_package_of_transforms_imports_no_beam():
    """Preflight and prefetch are imported before it."""
    script = "import sys, beam_flowers.transforms; assert 'apache_beam' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_an_unknown_transform_is_named():
    with pytest.raises(AttributeError, match="no attribute 'FindPhotos'"):
        import_module("beam_flowers.transforms").FindPhotos  # noqa: B018


@pytest.mark.parametrize(("old", "new"), sorted(beam_flowers._DEPRECATED.items()))
def test_an_old_name_works_with_a_warning_that_names_the_new_one(old, new):
    with pytest.warns(DeprecationWarning, match=f"beam_flowers.{new}; the old name") as warned:
        assert getattr(beam_flowers, old) is getattr(beam_flowers, new)
    assert [warning.filename for warning in warned] == [__file__]
    assert old not in beam_flowers.__all__


def test_the_printed_command_that_cancels_a_job():
    command = [sys.executable, "-m", "beam_flowers.runs.jobs", "localhost:1", "job"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "grpc" in done.stderr
    assert "localhost:1" in done.stderr or "UNAVAILABLE" in done.stderr


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_workers_are_held_against_the_sources_of_every_room(room, tmp_path, monkeypatch):
    """A worker with other code in any room must not pass for the same."""
    before = preflight._own_version()
    copy = tmp_path / "beam_flowers"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("data", "__pycache__"))
    monkeypatch.setattr(beam_flowers, "__file__", str(copy / "__init__.py"))
    assert preflight._own_version() == before
    changed = min((copy / room.relative_to(PACKAGE)).glob("*.py"))
    changed.write_text(changed.read_text() + "#\n")
    assert preflight._own_version() != before
