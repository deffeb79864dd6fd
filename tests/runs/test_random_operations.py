"""A store after any order of changes, commands and kills, against a model of the rules.

`OPERATIONS=5000 SEED=1 pytest -m slow tests/runs/test_random_operations.py` does a long run.
"""

import contextlib
import functools
import os
import random
import secrets
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import make_images
import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from apache_beam.options import pipeline_options
from apache_beam.transforms import userstate
from processes import Command
from rules import (
    Known,
    Look,
    Table,
    distinct,
    embedded,
    ended,
    kept_beside,
    labelled,
    labelled_with,
    passed,
)
from stores import changed_rows, cli, dies_after, rows

from beam_flowers.backbones.preprocessor_config import CONFIG_FILE
from beam_flowers.backbones.resolve import ResolvedBackbone, resolve
from beam_flowers.errors import InputError
from beam_flowers.head.bundle import read_bundle
from beam_flowers.store import history, lease, presence
from beam_flowers.store.commits import (
    committed,
    finish_publishing,
    latest,
    read_manifest,
    versions,
)
from beam_flowers.store.features import read_features, section_name
from beam_flowers.store.fsck import fsck
from beam_flowers.store.lease import read_lease
from beam_flowers.store.parts import Place
from beam_flowers.workflows.embed import RunOptions, embed_images
from beam_flowers.workflows.score import score_images
from beam_flowers.workflows.score_options import ScoreOptions

OPERATIONS, SEED = (int(os.environ.get(n, d)) for n, d in (("OPERATIONS", 300), ("SEED", 0)))
LABELS = ("roses", "tulips", "dandelion")
ROOTS = ("one", "two", "three")
LITE, TINY = "efficientnet-lite0", "tiny"
_SIZE = 4096
NO_IMAGE = "is a usable image"


def content(seed):
    """An image or junk, of one size in most cases, so that an edit need not change it."""
    data = make_images.TEXT if seed < 4 else make_images.jpeg(32, 32, seed)
    return data.ljust(_SIZE + seed % 3 // 2, b"\0")


class Fixed(NamedTuple):
    """What stays as it is while all else changes.

    Attributes:
        backbones: the networks, by name.
        model: folder of a head on the vectors of `LITE`.
        scores: label and score that it gives each content, by digest.
    """

    backbones: dict[str, ResolvedBackbone]
    model: Path
    scores: dict[str, tuple[str, float]]


class Embed(NamedTuple):
    """One `embed`."""

    root: Path
    backbone: str


class Score(NamedTuple):
    """One `score`: of the `pixels` of a root, `with` the store too, or of the `store` alone."""

    root: Path
    way: str
    output: int


@dataclass
class Output:
    """A table of scores.

    Attributes:
        path: a folder, or a file, whose hidden table goes with the last run that uses it.
        table: the folder's, or the hidden one.
    """

    path: Path
    table: Table = field(default_factory=Table)

    @property
    def is_file(self):
        return bool(self.path.suffix)


@dataclass
class World:
    """The files, the store, the tables of scores and how they should be."""

    base: Path
    chance: random.Random
    fixed: Fixed
    tables: dict[str, Table] = field(default_factory=lambda: {LITE: Table(), TINY: Table()})
    beside: Table = field(default_factory=Table)
    outputs: list[Output] = field(default_factory=list)
    past: dict[int, dict] = field(default_factory=dict)
    counted: int = 0
    clock: int = 1_700_000_000
    names: int = 0
    seconds: float = 4
    spent: Counter = field(default_factory=Counter)

    def __post_init__(self):
        self.outputs = [Output(self.base / "out" / name) for name in ("table", "file.parquet")]

    @property
    def store(self):
        return self.base / "store"

    @property
    def scored(self):
        return self.store / "__scored"

    def folders(self):
        return sorted(self.base.glob("roots/*"))

    def files(self, root=None):
        roots = [root] if root else self.folders()
        return sorted(path for root in roots for path in root.glob("*/*"))

    def some_root(self):
        return self.chance.choice([folder for folder in self.folders() if self.files(folder)])

    def look(self, root, **trust):
        """What a run sees in a root now."""
        found = {}
        for path in self.files(root):
            stat = path.stat()
            data = path.read_bytes()
            seen = (stat.st_size, stat.st_mtime_ns)
            found[str(path)] = Known(str(root), path.parent.name, data, *seen)
        return Look(str(root), found, frozenset(map(str, self.folders())), **trust)

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

    def some_content(self):
        return content(self.chance.randrange(40))

    def add(self):
        for _ in range(self.chance.randint(1, 3)):
            self.write(self.some_folder() / self.new_name(), self.some_content())

    def edit_in_place(self):
        for path in self.chance.sample(self.files(), self.chance.randint(1, 4)):
            stat = path.stat()
            path.write_bytes(self.some_content())
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

    # Jobs, and what they make of the tables.

    def some_embed(self):
        return Embed(self.some_root(), self.chance.choice([LITE, LITE, TINY]))

    def some_score(self):
        ways = ["pixels", "with"]
        if any(row.is_image for row in self.tables[LITE].rows.values()):
            ways.append("store")
        return Score(self.some_root(), self.chance.choice(ways), self.chance.choice([0, 0, 1]))

    def act(self, job, verify=False, retry=False):
        """Does a job in this process."""
        options = RunOptions(verify=verify, retry_rejects=retry, max_removed_fraction=1)
        network = self.fixed.backbones[job.backbone if isinstance(job, Embed) else LITE]
        try:
            if isinstance(job, Embed):
                return embed_images(
                    [str(job.root)], str(self.store), network, options, warn=lambda _: None
                )
            images = self.store if job.way == "store" else job.root
            store = str(self.store) if job.way == "with" else None
            whole = ScoreOptions((str(images),), str(self.outputs[job.output].path), store)
            bundle = read_bundle(str(self.fixed.model))
            return score_images(whole, bundle, network, options, warn=lambda _: None)
        except InputError as error:
            if NO_IMAGE not in str(error):
                raise

    def command(self, job):
        """The arguments of a job on the command line."""
        if isinstance(job, Embed):
            network = self.fixed.backbones[job.backbone]
            path = [] if network.row.in_package else ["--backbone-path", network.path]
            flags = ["--store", self.store, "--backbone", job.backbone, *path]
            return ["embed", job.root, *flags, "--max-removed-fraction", "1"]
        images = self.store if job.way == "store" else job.root
        given = ["--store", self.store] if job.way == "with" else []
        output = self.outputs[job.output].path
        return ["score", images, *given, "--model", self.fixed.model, "--output", output]

    def compare(self, sure=(), killed=(), **trust):
        """Takes for true what the tables hold, if jobs may have made that of them.

        Args:
            sure: jobs that ended well.
            killed: one that did not, at any moment.
            trust: see `Look`.
        """
        looks = {job.root: self.look(job.root, **trust) for job in (*sure, *killed)}
        collections = []
        for name, table in self.tables.items():
            mine = [
                [job for job in jobs if isinstance(job, Embed) and job.backbone == name]
                for jobs in (sure, killed)
            ]
            changes = [
                [functools.partial(embedded, looks[job.root]) for job in jobs] for jobs in mine
            ]
            states = table.starts()
            if name == LITE:
                collections = passed(states, *changes)
            found, trusts_left = self.vectors(self.store, name), bool(table.begun or any(mine))
            table.settle(ended(states, *changes), found, shown, trusts_left=trusts_left)
            self.note(table, *mine, changes[1], looks, self.has_begun(self.store, name))

        mine = [
            [job for job in jobs if isinstance(job, Score) and job.way == "with"]
            for jobs in (sure, killed)
        ]
        ends, beside, changes = [], [], [[], []]
        for collection in collections:
            changes = [
                [functools.partial(kept_beside, looks[job.root], collection) for job in jobs]
                for jobs in mine
            ]
            ends += ended(self.beside.starts(), *changes)
            beside += passed(self.beside.starts(), *changes)
        found, trusts_left = self.vectors(self.scored, LITE), bool(self.beside.begun or any(mine))
        self.beside.settle(ends, found, shown, trusts_left=trusts_left)
        begun = self.has_begun(self.scored, LITE)
        self.note(self.beside, *mine, changes[1], looks, begun)
        # A score also labels by vectors that a killed one had left, which are rows now.
        beside.append(self.beside.rows)

        for number, output in enumerate(self.outputs):
            mine = [
                [job for job in jobs if isinstance(job, Score) and job.output == number]
                for jobs in (sure, killed)
            ]
            if any(mine):
                self.compare_output(output, *mine, looks, collections, distinct(beside))

    def note(self, table, sure, killed, changes, looks, has_begun):
        """Notes what a killed run has left, and what no longer is."""
        if not killed:
            table.supersede(uri for job in sure for uri in looks[job.root].found)
        for job in killed:
            table.leave(looks[job.root].found)
        table.begun = [*table.begun, *changes] if has_begun else []

    def compare_output(self, output, sure, killed, looks, collections, beside):
        """Does what `compare` does for a table of scores; all its jobs are the same."""
        job = (*sure, *killed)[0]
        look, table = looks[job.root], output.table
        if job.way == "pixels":
            results = [labelled(look, state) for state in table.starts()]
        elif job.way == "store":
            results = collections
        else:
            results = [
                labelled_with(look, collection, kept_beside(look, collection, state))
                for collection in collections
                for state in beside
            ]
        results = distinct(results)
        trusts_left = job.way == "pixels" and not look.verify
        states = results if sure else [*table.starts(), *results]
        if not output.is_file:
            table.settle(states, self.scores(output), scored, trusts_left=trusts_left)
        elif sure:
            replace(table).settle(states, self.scores(output), scored, trusts_left=trusts_left)
            # One that was killed when the other had ended has let nobody delete the hidden table.
            assert killed or not hidden(output).exists()
        if killed:
            for result in results:
                table.leave(result)
            changes = [functools.partial(lambda result, _: result, result) for result in results]
            if output.is_file or has_begun(output.path, ""):
                table.begun += changes
        else:
            table.begun, table.left = [], {}
            if output.is_file:
                table.rows = {}

    def run(self):
        flag = self.chance.choice(["", "", "verify", "retry"])
        self.do(self.some_embed(), **({flag: True} if flag else {}))

    def score(self):
        flag = self.chance.choice(["", "", "verify", "retry"])
        self.do(self.some_score(), **({flag: True} if flag else {}))

    def do(self, job, **trust):
        self.act(job, **trust)
        self.compare([job], **trust)

    def die(self):
        """Ends a run at one of its changes of the disk; any order of these may be on it."""
        job = self.some_embed() if self.chance.random() < 0.6 else self.some_score()
        with pytest.MonkeyPatch.context() as patch, as_a_process(patch):
            # Between a lease and its manifest whoever comes next goes on.
            before = self.chance.choice([{}, {}, {"before": "/__commits/0"}])
            refused = dies_after(patch, self.chance.randrange(30), **before)
            with contextlib.suppress(Exception):
                self.act(job)
        self.compare(*([(), [job]] if refused else [[job]]))

    def kill(self):
        """Ends one of up to three processes by a signal, at any time."""
        jobs = [self.some_score() if self.chance.random() < 0.4 else self.some_embed()]
        for _ in range(self.chance.choice([0, 1, 1, 2, 2])):
            job = self.some_score() if self.chance.random() < 0.4 else self.some_embed()
            if isinstance(jobs[0], Score) and self.chance.random() < 0.4:
                job = jobs[0]
            # Two scores of different rows to one output: either may be the last.
            outputs = {held.output: held for held in jobs if isinstance(held, Score)}
            jobs.append(outputs.get(job.output, job) if isinstance(job, Score) else job)
        start = time.monotonic()
        commands = [
            Command(self.command(job), self.base / f"{number}.log")
            for number, job in enumerate(jobs)
        ]
        time.sleep(self.chance.uniform(0.05, 1.1) * self.seconds)
        commands[0].send_signal(self.chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        codes = [command.wait() for command in commands]
        said = [command.take_what_it_said() for command in commands]
        if len(jobs) > 1:
            self.seconds = min(time.monotonic() - start, 20)
        well = [
            code == 0 or (code == 1 and NO_IMAGE in text)
            for code, text in zip(codes, said, strict=True)
        ]
        assert all(well[1:]), list(zip(jobs, codes, said, strict=True))
        sure = [job for job, is_well in zip(jobs, well, strict=True) if is_well]
        self.compare(sure, [] if well[0] else [jobs[0]])

    def vacuum(self):
        age = self.chance.choice(["0", "7d"])
        assert cli("vacuum", self.store, "--older-than", age) == 0
        self.compare()
        if age == "0":
            for table in (*self.tables.values(), self.beside):
                table.left, table.superseded = {}, {}
        self.past = {n: p for n, p in self.past.items() if n in self.readable()}

    def restore(self):
        number = self.chance.choice(sorted(self.past.keys() & self.readable()))
        assert cli("restore", self.store, number) == 0
        for name, table in self.tables.items():
            table.rows, table.begun = self.past[number][name], []
            table.revive()
        self.compare()

    def readable(self):
        return {v.number for v in history.history(str(self.store)) if v.readable}

    def forget(self):
        tables = [*self.tables.values(), self.beside]
        if self.chance.random() < 0.2 and self.tables[TINY].rows:
            assert cli("forget", self.store, TINY) == 0
            self.tables[TINY].rows, self.tables[TINY].begun = {}, []
            self.tables[TINY].revive()
        elif roots := sorted({row.root for table in tables for row in table.rows.values()}):
            root = self.chance.choice(roots)
            now = ["--now"] if self.chance.random() < 0.2 else []
            assert cli("forget", self.store, root, *now) == 0
            for table in tables:
                table.forget(root)
        self.compare()

    # What is there.

    def key(self, name):
        network = self.fixed.backbones[name]
        return section_name(name, network.fingerprint), network.fingerprint

    def has_begun(self, folder, name):
        return has_begun(folder, self.key(name)[0])

    def vectors(self, folder, name):
        """What a table has of each file, as our reader has it; all readers agree on the rows."""
        key, fingerprint = self.key(name)
        section = committed(latest(str(folder)), Place(str(folder), key, fingerprint))
        ours = {}
        if section.rows:
            features = read_features(str(folder), name)[1]
            told = zip(features.labels, features.sha256, strict=True)
            ours = dict(zip(features.uris, told, strict=True))
            assert len(ours) == len(features.uris)
        elif folder.exists():
            finish_publishing(str(folder), latest(str(folder)).version)
        plain = {
            row["uri"]: (row["root"], row["label"], row["sha256"]) for row in rows(folder / key)
        }
        assert {uri: row[1:] for uri, row in plain.items()} == ours
        if ours:
            arrow = ds.dataset(str(folder / key), ignore_prefixes=["_", "."])
            table = arrow.to_table(columns=["uri", "label"])
            assert sorted(table["uri"].to_pylist()) == sorted(ours)
        return {**plain, **rejected(rows(folder / "__rejects" / key), ours)}

    def scores(self, output):
        """What a table of scores has of each file; each score is that of its content."""
        if output.is_file:
            found, bad = (
                pq.read_table(output.path.with_suffix(ending)).to_pylist() if there else []
                for ending in (".parquet", ".rejects.parquet")
                for there in [output.path.with_suffix(ending).exists()]
            )
        else:
            if output.path.exists():
                finish_publishing(str(output.path), latest(str(output.path)).version)
            found, bad = rows(output.path), rows(output.path / "__rejects")
        for row in found:
            label, score = self.fixed.scores[row["sha256"]]
            assert (row["label"], row["score"]) == (label, pytest.approx(score, abs=1e-6)), row
        ours = {row["uri"]: (row["sha256"],) for row in found}
        assert len(ours) == len(found)
        return {**ours, **rejected(bad, ours)}

    def check(self):
        """Checks what the history of the store says of new versions."""
        newest = latest(str(self.store)).version
        self.past[newest] = {name: table.rows for name, table in self.tables.items()}
        if self.counted == newest:
            return
        readable = self.readable()
        for version in history.history(str(self.store)):
            if version.number > self.counted and version.number - 1 in readable:
                told = (version.added, version.removed, version.changed)
                there = [
                    changed_rows(self.store, version.number - 1, version.number, name)
                    for name in self.tables
                ]
                assert told == tuple(map(sum, zip(*there, strict=True)))
        self.counted = newest

    def check_fresh(self):
        """After `--verify` the store equals a fresh one of the same files."""
        roots = [folder for folder in self.folders() if self.files(folder)]
        tables = [*self.tables.values(), self.beside]
        known = {row.root for table in tables for row in table.rows.values()}
        for root in known - {str(root) for root in roots}:
            assert cli("forget", self.store, root) == 0
            for table in tables:
                table.forget(root)
        self.compare()
        fresh = World(self.base / "fresh", self.chance, self.fixed)
        for name in self.tables:
            for root in roots:
                self.do(Embed(root, name), verify=True)
                fresh.act(Embed(root, name))
            hashes = [
                committed(latest(str(folder)), Place(str(folder), *self.key(name))).dataset_hash
                for folder in (self.store, fresh.store)
            ]
            assert hashes[0] == hashes[1]
            assert self.vectors(self.store, name) == self.vectors(fresh.store, name)
        assert fsck(str(self.store)).is_sound
        shutil.rmtree(fresh.base)


def shown(row):
    return row.shown


def scored(row):
    return row.scored


def hidden(output):
    return output.path.with_name(f".{output.path.name}.partial")


def rejected(found, kept):
    """Digests of rejects by uri; no file is a row as well."""
    rejects = {row["uri"]: ("reject", row["sha256"]) for row in found}
    assert not rejects.keys() & kept.keys()
    return rejects


def has_begun(folder, key):
    """Tells if a killed run has put its commit into a lease, and nobody has committed that."""
    root = str(folder)
    done = {read_manifest(root, version).run for version in versions(root)}
    names = {path.name.removeprefix("run-") for path in folder.glob("__work/leases/run-*")}
    begun = (read_lease(root, name) for name in names - done)
    return any(isinstance(found, tuple) and found[0].section == key for found in begun)


@contextlib.contextmanager
def as_a_process(patch):
    """What ends here leaves neither a beating heart nor a lock, as after the end of a process."""
    held, lock = [], presence._locked

    def locked(path):
        descriptor = lock(path)
        held.append((descriptor, os.fstat(descriptor).st_ino))
        return descriptor

    patch.setattr(presence, "_locked", locked)
    yield
    for descriptor, number in held:
        with contextlib.suppress(OSError):
            if os.fstat(descriptor).st_ino == number:
                os.close(descriptor)
    lease._PROCESS = secrets.token_hex(8)


_WEIGHTS = {
    World.add: 14,
    World.edit_in_place: 10,
    World.delete: 5,
    World.move: 5,
    World.copy: 4,
    World.relabel: 4,
    World.rename_root: 3,
    World.run: 30,
    World.score: 12,
    World.die: 12,
    World.kill: 3,
    World.vacuum: 2,
    World.restore: 3,
    World.forget: 1,
    World.check_fresh: 1,
}


@pytest.fixture
def quick_beam(monkeypatch):
    """Has Beam look at each class of its options and steps once; that is half of a small run."""

    @functools.cache
    def parser(cls):
        made = pipeline_options._BeamArgumentParser(allow_abbrev=False)
        for each in cls.mro()[: cls.mro().index(pipeline_options.PipelineOptions)]:
            if "_add_argparse_args" in vars(each):
                each._add_argparse_args(made)
        return made

    def set_up(self, flags=None, **given):
        self._flags = flags
        self._visible_options, _ = parser(type(self)).parse_known_args(flags)
        self._all_options = {**vars(self._visible_options), **given}

    kept, look = {}, userstate.get_dofn_specs
    specs = lambda dofn: kept.get(type(dofn)) or kept.setdefault(type(dofn), look(dofn))  # noqa: E731
    monkeypatch.setattr(userstate, "get_dofn_specs", specs)
    monkeypatch.setattr(pipeline_options.PipelineOptions, "__init__", set_up)


@pytest.fixture
def fixed(tf, tmp_path):
    """A small network, and a head with its scores of all contents that there may be."""
    module = tf.Module()
    kernel = tf.constant(np.random.default_rng(2).normal(size=(3, 6)).astype(np.float32))
    module.__call__ = tf.function(
        lambda pixels: tf.reduce_mean(pixels, [1, 2]) @ kernel,
        input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32)],
    )
    tf.saved_model.save(module, str(tmp_path / TINY))
    (tmp_path / TINY / CONFIG_FILE).write_text('{"pixel_range": [-1, 1]}')
    backbones = {LITE: resolve(LITE), TINY: resolve(str(tmp_path / TINY))}
    for seed in range(40):
        path = tmp_path / "contents" / LABELS[seed % 3] / f"{seed}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(seed))
    (path.parent / "a.jpg").write_bytes(make_images.jpeg(seed=99))
    store, model, table = (tmp_path / name for name in ("vectors", "model", "all.parquet"))
    assert cli("embed", tmp_path / "contents", "--store", store) == 0
    assert cli("train", store, "--model", model) == 0
    assert cli("score", store, "--model", model, "--output", table) == 0
    found = pq.read_table(table).to_pylist()
    scores = {row["sha256"]: (row["label"], row["score"]) for row in found}
    assert len({label for label, _ in scores.values()}) > 1
    return Fixed(backbones, model, scores)


@pytest.mark.slow
@pytest.mark.timeout(36_000)
def test_the_store_is_what_the_rules_say(quick_beam, fixed, tmp_path):
    chance = random.Random(SEED)
    world = World(tmp_path / "world", chance, fixed)
    for root in ROOTS:
        for label in LABELS:
            path = world.base / "roots" / root / label / world.new_name()
            world.write(path, world.some_content())
    world.write(world.base / "roots" / "one" / "roses" / "a.jpg", make_images.jpeg(seed=99))
    world.do(Embed(world.base / "roots" / "one", LITE))
    world.check()
    done = []
    for number in range(OPERATIONS):
        (operation,) = chance.choices(list(_WEIGHTS), _WEIGHTS.values())
        done.append(operation.__name__)
        while len(world.files()) < 5:
            world.add()
        start = time.monotonic()
        try:
            operation(world)
            world.check()
        except BaseException as error:
            error.add_note(f"operation {number} of seed {SEED}, after {done[-12:]}")
            raise
        world.spent[operation.__name__] += time.monotonic() - start
        if number % 100 == 99:
            print(f"{number + 1} operations", flush=True)
    world.check_fresh()
    print({name: (done.count(name), round(spent, 1)) for name, spent in world.spent.items()})
