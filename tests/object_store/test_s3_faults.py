"""Runs in which a request that changes a store in a bucket fails, at each one.

`STRIDE=1 pytest -m engines tests/object_store/test_s3_faults.py` goes through all of them.
"""

import os
import secrets
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import proxy
import pytest
from stores import Dead, embed, rejects, rows, with_changes

from beam_flowers import files
from beam_flowers.files import s3, s3_server
from beam_flowers.store import lease
from beam_flowers.store.features import read_features
from beam_flowers.store.fsck import fsck

pytestmark = [pytest.mark.engines, pytest.mark.timeout(3_600)]

STRIDE = int(os.environ.get("STRIDE", "29"))


class Kind(NamedTuple):
    """A fault at one change, or from it on.

    Attributes:
        first: what happens to that change.
        later: to all later requests.
        reads: also to those that only read.
        said: what the error says; no error may be if it is empty.
    """

    first: str
    later: str = proxy.PASS
    reads: bool = False
    said: str = ""


KINDS = {
    "not carried out": Kind(proxy.RESET),
    "answer lost": Kind(proxy.LOST),
    "answer cut": Kind(proxy.CUT),
    "answer late": Kind(proxy.SLOW),
    "503 once": Kind(proxy.BUSY),
    "503 for good": Kind(proxy.BUSY, proxy.BUSY, True, "has not answered"),
    "403 for good": Kind(proxy.DENIED, proxy.DENIED, False, "403"),
    "twice, first answer": Kind(proxy.FIRST_OF_TWO),
    "twice, last answer": Kind(proxy.LAST_OF_TWO),
    "again after two others": Kind(proxy.AGAIN),
    "again after the run": Kind(proxy.AGAIN),
    "killed before": Kind(proxy.RESET, proxy.RESET, True, "Dead"),
    "killed after": Kind(proxy.LOST, proxy.RESET, True, "Dead"),
}


class Faults:
    """Gives the `number`th change of a bucket, and what follows, what a kind says."""

    def __init__(self, number, kind):
        self.number, self.kind, self.seen = number, kind, 0

    def __call__(self, method, path):
        number = self.seen
        self.seen += method in proxy.CHANGES
        if method in proxy.CHANGES and number == self.number:
            return self.kind.first
        applies = self.has_struck and (self.kind.reads or method in proxy.CHANGES)
        return self.kind.later if applies else proxy.PASS

    @property
    def has_struck(self):
        return self.seen > self.number


class Originals(NamedTuple):
    """Images with each kind of change since they were stored.

    Attributes:
        folder: of the images as they are.
        store: of what they were; here, not in the bucket.
        before: digests by address as stored.
        now: those of a fresh store.
        fresh: its `dataset_hash`.
        changes: number of those that a run makes in the bucket.
    """

    folder: Path
    store: Path
    before: dict[str, str]
    now: dict[str, str]
    fresh: str
    changes: int


@pytest.fixture(scope="module")
def originals(shared, tmp_path_factory):
    base = tmp_path_factory.mktemp("faults")
    folder = with_changes(base)
    before = state(base / "store")
    fresh = embed(folder, base / "fresh").dataset_hash
    store = upload(base / "store", files.join(shared.uri, "store"))
    shared.proxy.fault = none = Faults(1 << 30, Kind(proxy.PASS))
    assert embed(folder, store).dataset_hash == fresh
    return Originals(folder, base / "store", before, state(base / "fresh"), fresh, none.seen)


def upload(folder, uri):
    """By requests, so that all objects have their ETags."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        files.write_atomic(files.join(uri, path.relative_to(folder).as_posix()), path.read_bytes())
    return uri


def state(store):
    features = read_features(str(store))[1]
    return dict(zip(features.uris, features.sha256, strict=True))


@pytest.fixture
def client(monkeypatch):
    """Makes a new client, for runs under a fault if one is given; see `Kind`."""
    config, asking = s3_server.Config, s3_server.ask

    def renew(name="", faults=None):
        kind = KINDS.get(name, Kind(proxy.PASS))
        # Some ten times what the slowest request takes here.
        timeouts = {"read_timeout": 0.5} if kind.first == proxy.SLOW else {}
        monkeypatch.setattr(s3_server, "Config", lambda **given: config(**{**given, **timeouts}))
        s3_server._connect.cache_clear()
        s3_server._latest = None
        if kind.said:
            # Nothing is to be waited for.
            retries = s3_server._server().retries
            retries.patience = retries.first_patience = 0.3

        def ask(uri, request):
            def asked(made):
                if faults.has_struck:
                    raise Dead
                try:
                    return request(made)
                finally:
                    if faults.has_struck:
                        raise Dead

            return asking(uri, asked)

        monkeypatch.setattr(s3, "ask", ask if name.startswith("killed") else asking)

    yield renew
    renew()


@pytest.mark.parametrize("name", KINDS)
def test_a_store_in_a_bucket_is_the_old_or_the_new_one(
    shared, originals, client, monkeypatch, name
):
    folder, original, before, now, fresh, changes = originals
    kind, ended, began = KINDS[name], 0, time.monotonic()
    assert changes > 30
    # Each kind begins elsewhere, so that a long stride reaches all phases of a run.
    for number in range(7 * list(KINDS).index(name) % STRIDE, changes, STRIDE):
        at = f"{name} {number}".replace(" ", "-")
        client()
        shared.proxy.fault = lambda method, path: proxy.PASS
        store = upload(original, files.join(shared.uri, at))
        shared.proxy.fault = faults = Faults(number, kind)
        client(name, faults)
        said = None
        try:
            embed(folder, store)
        except Exception as error:
            said = f"{error!r} {error}"
        assert faults.has_struck, number
        # What passes ends no run.
        assert said is None or (kind.said and kind.said in said), (number, said)
        if name == "again after the run":
            shared.proxy.repeat()
        ended += said is None
        client()
        shared.proxy.fault = lambda method, path: proxy.PASS
        if name.startswith("killed"):
            # Nobody of that process is left.
            monkeypatch.setattr(lease, "_PROCESS", secrets.token_hex(8))
        found = state(store)
        assert found == now or (said and found == before), number
        assert embed(folder, store).dataset_hash == fresh, number
        local = shared.folder / at
        assert {row["uri"]: row["sha256"] for row in rows(local)} == now, number
        assert list(rejects(local)) == [str(folder / "bad.jpg")]
        checked = fsck(store)
        assert checked.is_sound, number
        assert not checked.foreign, number
        print(f"{name} {number}: {'ended well' if said is None else said[:60]}", flush=True)
    print(f"{name}: {changes} changes, {ended} runs ended well, {time.monotonic() - began:.0f} s")


@pytest.mark.parametrize("backwards", [False, True], ids=["in order", "backwards"])
def test_all_changes_of_a_run_are_made_again_after_the_next_one(
    shared, originals, client, tmp_path, backwards
):
    client()
    folder, (new, edited) = originals.folder, ("new.jpg", "0003.jpg")
    store = upload(originals.store, files.join(shared.uri, f"again-{backwards}"))
    shared.proxy.after = 1 << 30
    shared.proxy.repeated.clear()
    shared.proxy.fault = lambda method, path: proxy.AGAIN if method in proxy.CHANGES else proxy.PASS
    embed(folder, store)
    shared.proxy.fault = lambda method, path: proxy.PASS
    for name in (new, edited):
        shutil.copy2(folder / name, tmp_path)
    try:
        (folder / edited).write_bytes((folder / new).read_bytes())
        (folder / new).unlink()
        fresh = embed(folder, tmp_path / "fresh").dataset_hash
        assert embed(folder, store).dataset_hash == fresh
        shared.proxy.repeat(backwards=backwards)
        assert len(shared.proxy.repeated) == originals.changes
        now = state(tmp_path / "fresh")
        assert state(store) == now
        assert fsck(store).is_sound
        assert embed(folder, store).dataset_hash == fresh
        # Plain readers may have seen what came back until this run.
        local = Path(shared.folder, f"again-{backwards}")
        assert {row["uri"]: row["sha256"] for row in rows(local)} == now
        assert list(rejects(local)) == [str(folder / "bad.jpg")]
    finally:
        shared.proxy.after = 3
        for name in (new, edited):
            shutil.copy2(tmp_path / name, folder)
