"""A store after any order of changes, commands and kills, against a model of the rules.

`OPERATIONS=5000 SEED=1 pytest -m slow tests/runs/test_random_operations.py` does a long run.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pictures
import pyarrow.dataset as ds
import pytest
from stores import changed_rows, cli, dies_after, rejects, rows

from beam_flowers.backbones.resolve import resolve
from beam_flowers.store import history
from beam_flowers.store.commits import latest, read_manifest, versions
from beam_flowers.store.features import read_features
from beam_flowers.store.fsck import fsck
from beam_flowers.store.lease import read_lease
from beam_flowers.workflows.embed import RunOptions, embed_images

OPERATIONS, SEED = (int(os.environ.get(n, d)) for n, d in (("OPERATIONS", 300), ("SEED", 0)))
LABELS = ("roses", "tulips", "dandelion")
ROOTS = ("one", "two", "three")
_SIZE = 4096
_COMMAND = [sys.executable, "-m", "beam_flowers.cli.main"]


class Known(NamedTuple):
    """A row or a reject as the store should have it."""

    root: str
    label: str
    content: bytes
    size: int
    modified: int

    @property
    def is_image(self):
        return self.content.startswith(b"\xff\xd8")


def content(chance):
    """An image or junk, of one size in most cases, so that an edit need not change it."""
    seed = chance.randrange(40)
    data = pictures.TEXT if seed < 4 else pictures.jpeg(32, 32, seed)
    return data.ljust(_SIZE + seed % 3 // 2, b"\0")


@dataclass
class World:
    """The files, the store and how it should be."""

    base: Path
    chance: random.Random
    rows: dict[str, Known] = field(default_factory=dict)
    past: dict[int, dict[str, Known]] = field(default_factory=dict)
    counted: int = 0
    begun: list[dict[str, Known]] = field(default_factory=list)
    clock: int = 1_700_000_000
    names: int = 0

    @property
    def store(self):
        return self.base / "store"

    def folders(self):
        return sorted(self.base.glob("roots/*"))

    def files(self, root=None):
        roots = [root] if root else self.folders()
        return sorted(path for root in roots for path in root.glob("*/*"))

    def listing(self, root):
        """What a run sees in a root now."""
        found = {}
        for path in self.files(root):
            stat = path.stat()
            data = path.read_bytes()
            label = path.parent.name
            found[str(path)] = Known(str(root), label, data, stat.st_size, stat.st_mtime_ns)
        return found

    def after(self, root, rows, *, verify=False, retry=False):
        """The rows after a run over a root."""
        below = os.path.join(root, "")
        now = {uri: row for uri, row in rows.items() if not uri.startswith(below)}
        for uri, seen in self.listing(root).items():
            had = rows.get(uri)
            is_same = had and (had.size, had.modified) == (seen.size, seen.modified)
            if is_same and not verify and (had.is_image or not retry):
                seen = seen._replace(content=had.content)
            now[uri] = seen
        contents = {row.content for row in now.values() if row.root == str(root) and row.is_image}
        return {
            uri: row
            for uri, row in now.items()
            if os.path.exists(row.root) or row.content not in contents
        }

    # Changes of the files.

    def write(self, path, data):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.clock += 1
        os.utime(path, (self.clock, self.clock))

    def new_name(self):
        self.names += 1
        return f"{self.names:05d}.jpg"

    def some_folder(self):
        return self.base / "roots" / self.chance.choice(ROOTS) / self.chance.choice(LABELS)

    def add(self):
        for _ in range(self.chance.randint(1, 3)):
            self.write(self.some_folder() / self.new_name(), content(self.chance))

    def edit_in_place(self):
        path = self.chance.choice(self.files())
        stat = path.stat()
        path.write_bytes(content(self.chance))
        if self.chance.random() < 0.7:
            os.utime(path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
        else:
            self.clock += 1
            os.utime(path, (self.clock, self.clock))

    def delete(self):
        self.chance.choice(self.files()).unlink()

    def move(self):
        target = self.some_folder() / self.new_name()
        target.parent.mkdir(parents=True, exist_ok=True)
        self.chance.choice(self.files()).rename(target)

    def copy(self):
        data = self.chance.choice(self.files()).read_bytes()
        self.write(self.some_folder() / self.new_name(), data)

    def relabel(self):
        path = self.chance.choice(self.files())
        target = path.parent.parent / self.chance.choice(LABELS) / path.name
        target.parent.mkdir(exist_ok=True)
        path.rename(target)

    def rename_root(self):
        root = self.chance.choice(self.folders())
        target = root.with_name(self.chance.choice(ROOTS))
        if not target.exists():
            root.rename(target)

    # Commands.

    def embed(self, root, **options):
        network = resolve("efficientnet-lite0")
        return embed_images(
            [str(root)],
            str(self.store),
            network,
            RunOptions(**{"max_removed_fraction": 1.0, **options}),
            warn=lambda _: None,
        )

    def run(self):
        root = self.chance.choice([f for f in self.folders() if self.files(f)])
        flag = self.chance.choice(["", "", "verify", "retry"])
        options = {"verify": flag == "verify", "retry": flag == "retry"}
        states = [self.after(root, state, **options) for state in (self.rows, *self.begun)]
        if all(any(row.is_image for row in state.values()) for state in states):
            self.embed(root, verify=options["verify"], retry_rejects=options["retry"])
            self.settle(states)
            self.begun = []

    def die(self):
        """Ends a run at one of its changes of the disk; any order of these may be on it."""
        root = self.chance.choice([f for f in self.folders() if self.files(f)])
        with pytest.MonkeyPatch.context() as patch:
            dies_after(patch, self.chance.randrange(25))
            with contextlib.suppress(Exception):
                self.embed(root)
        states = [self.rows, *self.begun]
        self.settle([*states, *(self.after(root, state) for state in states)])
        self.note_begun(self.after(root, self.rows))

    def kill(self):
        """Ends a process by a signal, at any time; another one may be at work beside it."""
        roots = [folder for folder in self.folders() if self.files(folder)]
        first = self.chance.choice(roots)
        flags = ["--store", self.store, "--max-removed-fraction", "1"]
        runs = [subprocess.Popen([*_COMMAND, "embed", first, *flags], **_QUIET)]
        beside = self.chance.choice(roots)
        if self.chance.random() < 0.5 and beside != first:
            runs.append(subprocess.Popen([*_COMMAND, "embed", beside, *flags], **_QUIET))
        time.sleep(self.chance.uniform(1.5, 6))
        runs[0].send_signal(self.chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        said = [run.communicate()[1].decode() for run in runs]
        assert [run.returncode for run in runs[1:]] in ([], [0]), said
        orders = [self.rows, *self.begun]
        orders += [self.after(first, state) for state in orders]
        if len(runs) == 2:
            orders = [self.after(beside, state) for state in orders]
            orders.append(self.after(first, self.after(beside, self.rows)))
        self.settle(orders)
        self.note_begun(self.after(first, self.rows))

    def note_begun(self, state):
        """Keeps a state that whoever comes next may commit, for a run that was killed in it."""
        self.begun = [state] if self.has_begun() else []

    def has_begun(self):
        store = str(self.store)
        done = {read_manifest(store, version).run for version in versions(store)}
        leases = {path.name for path in self.store.glob("__work/leases/run-*")}
        begun = (name for name in leases if isinstance(read_lease(store, name[4:]), tuple))
        return any(name[4:] not in done for name in begun)

    def settle(self, states):
        """Takes for true what the store has, if it is one of the states that it may have."""
        found = self.found()
        for state in states:
            if self.shown(state) == found:
                self.rows = state
                return
        shown = [set(self.shown(state).items()) for state in states]
        has = set(found.items())
        differences = [(state - has, has - state) for state in shown]
        raise AssertionError(f"no version that may be, (missing, too much): {differences}")

    def vacuum(self):
        assert cli("vacuum", self.store, "--older-than", self.chance.choice(["0", "7d"])) == 0
        self.settle([self.rows, *self.begun])
        self.past = {n: p for n, p in self.past.items() if n in self.readable()}

    def restore(self):
        number = self.chance.choice(sorted(self.past.keys() & self.readable()))
        assert cli("restore", self.store, number) == 0
        self.rows, self.begun = self.past[number], []

    def readable(self):
        return {v.number for v in history.history(str(self.store)) if v.readable}

    def forget(self):
        roots = sorted({row.root for row in self.rows.values()})
        root = self.chance.choice(roots)
        rest = {uri: row for uri, row in self.rows.items() if row.root != root}
        if any(row.is_image for row in rest.values()):
            now = ["--now"] if self.chance.random() < 0.2 else []
            assert cli("forget", self.store, root, *now) == 0
            self.rows, self.begun = rest, []

    # What has to be true after each of them.

    def shown(self, state):
        return {uri: (row.label if row.is_image else "reject") for uri, row in state.items()}

    def found(self):
        """Label, or "reject", by uri, as our reader has them; all readers agree on the rows."""
        features = read_features(str(self.store))[1]
        ours = dict(zip(features.uris, features.labels, strict=True))
        assert len(ours) == len(features.uris)
        plain = {row["uri"]: row["label"] for row in rows(self.store)}
        arrow = ds.dataset(str(self.store), ignore_prefixes=["_", "."], exclude_invalid_files=True)
        table = arrow.to_table(columns=["uri", "label"])
        assert plain == ours == dict(zip(*table.to_pydict().values(), strict=True))
        rejected = dict.fromkeys(rejects(self.store), "reject")
        assert not rejected.keys() & ours.keys()
        return {**ours, **rejected}

    def check(self):
        assert self.found() == self.shown(self.rows)
        self.past[latest(str(self.store)).version] = self.rows
        readable = self.readable()
        for version in history.history(str(self.store)):
            if version.number > self.counted and version.number - 1 in readable:
                told = (version.added, version.removed, version.changed)
                assert told == changed_rows(self.store, version.number - 1, version.number)
        self.counted = latest(str(self.store)).version

    def check_fresh(self):
        """After `--verify` the store equals a fresh one of the same files."""
        roots = [folder for folder in self.folders() if self.files(folder)]
        for root in {row.root for row in self.rows.values()} - {str(root) for root in roots}:
            assert cli("forget", self.store, root) == 0
            self.rows = {uri: row for uri, row in self.rows.items() if row.root != root}
        fresh = World(self.base / "fresh", self.chance)
        self.begun = []
        for root in roots:
            summary = self.embed(root, verify=True)
            self.rows = self.after(root, self.rows, verify=True)
            expected = fresh.embed(root)
        assert summary.dataset_hash == expected.dataset_hash
        assert rejects(self.store) == rejects(fresh.store)
        assert fsck(str(self.store)).is_sound
        shutil.rmtree(fresh.base)


_QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
_WEIGHTS = {
    World.add: 14,
    World.edit_in_place: 10,
    World.delete: 5,
    World.move: 5,
    World.copy: 4,
    World.relabel: 4,
    World.rename_root: 3,
    World.run: 35,
    World.die: 10,
    World.kill: 2,
    World.vacuum: 2,
    World.restore: 3,
    World.forget: 1,
    World.check_fresh: 2,
}


@pytest.mark.slow
@pytest.mark.timeout(36_000)
def test_the_store_is_what_the_rules_say(tmp_path):
    chance = random.Random(SEED)
    world = World(tmp_path, chance)
    for root in ROOTS:
        for label in LABELS:
            world.write(tmp_path / "roots" / root / label / world.new_name(), content(chance))
    world.write(tmp_path / "roots" / "one" / "roses" / "a.jpg", pictures.jpeg(seed=99))
    world.embed(tmp_path / "roots" / "one")
    world.rows = world.after(tmp_path / "roots" / "one", {})
    world.check()
    done = []
    for number in range(OPERATIONS):
        (operation,) = chance.choices(list(_WEIGHTS), _WEIGHTS.values())
        done.append(operation.__name__)
        while len(world.files()) < 5:
            world.add()
        try:
            operation(world)
            world.check()
        except BaseException as error:
            error.add_note(f"operation {number} of seed {SEED}, after {done[-12:]}")
            raise
    world.check_fresh()
