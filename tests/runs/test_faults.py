"""Runs in which a change of the disk fails, at each one: nothing is lost, torn or double.

`STRIDE=1 pytest -m slow tests/runs/test_faults.py` goes through all of them.
"""

import builtins
import errno
import os
import shutil
from types import SimpleNamespace

import pytest
from stores import Dead, embed, rejects, rows, with_changes

from beam_flowers.files import local
from beam_flowers.store.features import read_features
from beam_flowers.store.fsck import fsck

STRIDE = int(os.environ.get("STRIDE", "9"))
_CALLS = ("link", "rename", "replace", "unlink", "fsync", "makedirs")
FAULTS = {
    "EIO once": (errno.EIO, False),
    "ENOSPC once": (errno.ENOSPC, False),
    "ENOSPC for good": (errno.ENOSPC, True),
    "EACCES for good": (errno.EACCES, True),
    "killed before": (None, True),
    "killed after": (None, True),
}


class Faults:
    """Lets the changes of the disk happen but those from the `number`th on, or only that one."""

    def __init__(self, number, kind=""):
        self.number, self.kind, self.seen = number, kind, 0

    def wrapped(self, call):
        def changed(*arguments, **named):
            self.seen += 1
            code, for_good = FAULTS.get(self.kind, (None, False))
            if self.seen - 1 == self.number and self.kind == "killed after":
                call(*arguments, **named)
            if self.seen - 1 == self.number or (for_good and self.seen > self.number):
                raise OSError(code, os.strerror(code), arguments[0]) if code else Dead
            return call(*arguments, **named)

        return changed

    def __enter__(self):
        self.patch = pytest.MonkeyPatch()
        calls = {name: self.wrapped(getattr(os, name)) for name in _CALLS}
        self.patch.setattr(local, "os", SimpleNamespace(**{**vars(os), **calls}))
        writing = self.wrapped(builtins.open)

        def opened(path, mode="r", *arguments):
            return (builtins.open if mode == "rb" else writing)(path, mode, *arguments)

        self.patch.setattr(local, "open", opened, raising=False)
        return self

    def __exit__(self, *_):
        self.patch.undo()


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """(images, store of what they were, its rows, those of now): each kind of change since."""
    base = tmp_path_factory.mktemp("faults")
    folder = with_changes(base)
    before = state(base / "store")
    fresh = embed(folder, base / "fresh").dataset_hash
    with Faults(-1) as none:
        shutil.copytree(base / "store", base / "copy")
        assert embed(folder, base / "copy").dataset_hash == fresh
    return folder, base / "store", before, state(base / "fresh"), fresh, none.seen


def state(store):
    features = read_features(str(store))[1]
    return dict(zip(features.uris, features.sha256, strict=True))


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("kind", FAULTS)
def test_a_store_is_the_old_or_the_new_one(changed, tmp_path, kind):
    folder, original, before, now, fresh, changes = changed
    assert changes > 50
    ended = 0
    for number in range(list(FAULTS).index(kind) % STRIDE, changes, STRIDE):
        store = tmp_path / str(number)
        shutil.copytree(original, store)
        said = None
        with Faults(number, kind) as faults:
            try:
                embed(folder, store)
            except Exception as error:
                said = str(error)
        assert faults.seen > number
        assert said is not None or state(store) == now, number
        if kind.startswith("ENOSPC") and said is not None:
            assert "No space left on device" in said or "full" in said, number
        ended += said is None
        assert state(store) in (before, now), number
        assert embed(folder, store).dataset_hash == fresh, number
        assert {row["uri"]: row["sha256"] for row in rows(store)} == now, number
        assert list(rejects(store)) == [str(folder / "bad.jpg")]
        assert fsck(str(store)).is_sound, number
        shutil.rmtree(store)
    print(f"{kind}: {changes} changes of the disk, {ended} runs ended well")
