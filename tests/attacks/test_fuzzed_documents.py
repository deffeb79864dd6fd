"""Mutated documents and parts: a reader gives what this program could have written, or one error.

`BEAM_FLOWERS_FUZZ=SECONDS pytest tests/attacks/test_fuzzed_documents.py` goes on for so long with
each reader, from another seed each time; it prints the seed of an input that fails.
"""

import copy
import io
import json
import math
import os
import random
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from places import KEY, OLD

from beam_flowers.cli.config import parse_config
from beam_flowers.errors import BeamFlowersError, FieldError
from beam_flowers.scoring.read_table import read_scores
from beam_flowers.store.commits import Manifest, Section, decode_manifest, encode_manifest, latest
from beam_flowers.store.lease import lease_uri, read_lease
from beam_flowers.store.names import is_digest, is_part, is_section
from beam_flowers.store.outcomes import Outcome, find_settled
from beam_flowers.store.parts import Part, Place, read_part
from beam_flowers.store.plan import stored_rows

SECONDS = float(os.environ.get("BEAM_FLOWERS_FUZZ", "0"))
INPUTS = 40
RUN = "0123456789abcdef"
UNIT = "0f" * 16
PART = Part(f"part-{RUN}-{RUN}.parquet", 3, "ab" * 32, 0, 100, "cd" * 32)
REJECTS = replace(PART, name=f"rejects-{RUN}-{RUN}.parquet", failures=1)
ABOUT = {"name": "tiny", "encoding": "split", "pixels": {"low": -1.0}, "held": {"ab": 3}}
MANIFEST = Manifest(
    3,
    RUN,
    {KEY: Section("ef" * 32, ABOUT, (PART, REJECTS), ("/photos",), (replace(PART, rows=9),))},
    {"listed": 3, "reasons": {"Truncated": 1}},
    {"time": 1.5e9, "program": "beam-flowers", "command": "embed", "options": {"shards": 3}},
)
OUTCOME = {
    "parts": [PART.as_dict()],
    "computed": 3,
    "reasons": {"Truncated": 1},
    "seconds": {"read": 0.5},
    "more": [[7, "ab" * 32], None],
}
CONFIG = b"""x-shared: &shared {verify: true, log-file: run.log}
embed:
  <<: *shared
  images: [/photos, s3://bucket/more]
  store: /store
  beam: {runner: DirectRunner, options: [a, b]}
score: {top-k: 3, threshold: 0.5}
"""
ODD = [
    *(None, True, False, 0, 1, -1, 1.5, 1e300, -0.0, 2**31, 2**53, 2**63, 2**64, 10**30, 10**400),
    *(float("nan"), float("inf"), "", "a", "..", "../../x", "/etc/passwd", "\0", "\n", "\ud800"),
    *("NaN", "玫瑰", "=1+1", "0" * 64, "ab" * 32, "x" * 5000, PART.name, f"../{PART.name}", KEY),
    *(
        f"{PART.name}\n",
        f"{KEY}/..",
        [],
        {},
        [[]],
        [None],
        {"": None},
        {"name": 7},
        {"a": {"b": []}},
    ),
]


def paths(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, inner in items:
        yield from paths(inner, (*path, key))


def mutated(document, draw):
    """The document with a few values odd, gone, doubled, renamed or nested."""
    document = copy.deepcopy(document)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        *path, key = draw.choice([p for p in paths(document) if p] or [("x",)])
        place = document
        for step in path:
            place = place[step]
        if not isinstance(place, dict | list):
            break
        odd = copy.deepcopy(draw.choice(ODD))
        match draw.randrange(6):
            case 0 | 1:
                place[key] = odd
            case 2:
                del place[key]
            case 3 if isinstance(place, list):
                place.insert(key, odd)
            case 3:
                other = draw.choice([*map(str, ODD), "rows", "name", "lost", "made"])
                place[other] = place.pop(key)
            case 4:
                for _ in range(draw.choice([1, 1, 2, 5, 5, 20, 40, 40, 990, 1100])):
                    place[key] = draw.choice([[place[key]], {"a": place[key]}])
            case 5:
                place[key] = [place[key]] * draw.choice([0, 2, 100])
    return document


def damaged(data, draw):
    """The bytes with some changed, gone, doubled or put in."""
    data = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 5])):
        at = draw.randrange(len(data) + 1)
        match draw.randrange(5):
            case 0:
                data[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                del data[at : at + draw.choice([1, 2, 100])]
            case 2:
                data[at:at] = data[at : at + draw.choice([1, 30, 300])]
            case 3:
                data[at:at] = draw.choice(
                    [b"[" * 50, b'{"a":' * 2000, b"NaN", b"1e999", b'"\\u0000"']
                )
            case 4:
                del data[at:]
    return bytes(data)


def inputs(document, name):
    """JSON of mutated documents, and of damaged ones."""
    began, number = time.monotonic(), 0
    start = int(began * 1000) if SECONDS else 0
    while time.monotonic() - began < SECONDS or (not SECONDS and number < INPUTS):
        seed = f"{name} {start + number}"
        draw, number = random.Random(seed), number + 1
        if isinstance(document, bytes):
            yield seed, damaged(document, draw)
            continue
        try:
            changed = mutated(document, draw) if draw.random() < 0.7 else document
            data = json.dumps(changed, indent=draw.choice([None, 1])).encode()
        except RecursionError:  # Our own: it has been nested too often.
            continue
        yield seed, data if changed is not document else damaged(data, draw)
    if SECONDS:
        print(f"{name}: {number} inputs")


def attempt(seed, read, *more):
    """Calls a reader; returns what it gives, or None after an error for the user."""
    began = time.monotonic()
    try:
        return read(*more)
    except BeamFlowersError as error:
        told = str(error)
    except BaseException as error:
        raise AssertionError(f"{seed}: {error!r}") from error
    assert len(told) < 3000, seed
    assert time.monotonic() - began < 20, seed
    return None


def require_ours(seed, manifest):
    """A manifest that is read names nothing outside of its store, and can be written again."""
    for key, section in manifest.sections.items():
        assert is_section(key), seed
        place = Place("/store", key, section.fingerprint)
        for part in (*section.parts, *section.lost):
            assert is_part(part.name), seed
            assert is_digest(part.digest), seed
            assert part.rows >= 0, seed
            assert part.rows == int(part.rows), seed
            for uri in (*place.addresses(part.name), place.damaged(part.name)):
                assert os.path.normpath(uri) == uri, seed
                assert uri.startswith("/store/"), seed
        assert len(section.dataset_hash) == 64, seed
        assert isinstance(section.about.get("name", ""), str), seed
    assert math.isfinite(manifest.time), seed
    assert dict(manifest.made.get("options", {})) is not None, seed
    again = decode_manifest(encode_manifest(manifest), "again")
    assert replace(again, layout=manifest.layout) == manifest, seed


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("base", ["new", "old"])
def test_manifests(base):
    old = (OLD / "store" / "__commits" / "00000002.json").read_bytes()
    document = json.loads(encode_manifest(MANIFEST) if base == "new" else old)
    read = 0
    for seed, data in inputs(document, f"manifest {base}"):
        manifest = attempt(seed, decode_manifest, data, "1.json")
        if manifest is not None:
            require_ours(seed, manifest)
            read += 1
    assert read  # Unknown fields and free values are no reason to refuse.


@pytest.mark.timeout(SECONDS + 120)
def test_leases(tmp_path):
    path = Path(lease_uri(str(tmp_path), RUN))
    path.parent.mkdir(parents=True)
    manifest = json.loads(encode_manifest(MANIFEST))
    document = {"state": "committing", "base": 2, "exact": False, "manifest": manifest}
    for seed, data in inputs(document, "lease"):
        path.write_bytes(data)
        found = attempt(seed, read_lease, str(tmp_path), RUN)
        if isinstance(found, tuple):
            place, intent = found
            require_ours(seed, replace(MANIFEST, sections={place.section: intent.section}))
            assert place.root == str(tmp_path), seed


@pytest.mark.timeout(SECONDS + 120)
def test_outcomes(tmp_path):
    place = Place(str(tmp_path), KEY, "ef" * 32, RUN)
    path = Path(place.run_file(f"outcomes/{UNIT}"))
    path.parent.mkdir(parents=True)
    for seed, data in inputs(OUTCOME, "outcome"):
        path.write_bytes(data)
        settled = attempt(seed, find_settled, place, UNIT)
        if settled:
            assert isinstance(settled.outcome, Outcome), seed
            assert all(is_part(part.name) for part in settled.outcome.parts), seed
            assert all(pair is None or is_digest(pair[1]) for pair in settled.more or ()), seed


@pytest.mark.timeout(SECONDS + 120)
def test_configurations():
    for seed, data in inputs(CONFIG, "configuration"):
        attempt(seed, parse_config, data)


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("name", [PART.name, REJECTS.name])
def test_parts(tmp_path, name):
    store = OLD / "store"
    kind = "__rejects/" if name.startswith("rejects") else ""
    source = next((store / f"{kind}{KEY}").glob("*.parquet"))
    rows = pq.read_table(source).slice(0, 2)
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd", write_page_checksum=True)
    fingerprint = latest(str(store)).sections[KEY].fingerprint
    place = Place(str(tmp_path), KEY, fingerprint)
    path = Path(place.published(name))
    path.parent.mkdir(parents=True)
    for seed, data in inputs(sink.getvalue(), "part"):
        path.write_bytes(data)
        found = attempt(seed, read_part, place, name)
        assert found is None or isinstance(found, pa.Table), seed
        attempt(seed, lambda: list(stored_rows(place, name)))


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("name", ["scores.jsonl", "scores.csv", "scores.parquet", "scores.arrow"])
def test_tables(tmp_path, name):
    path = tmp_path / name
    for seed, data in inputs((OLD / name).read_bytes(), name):
        path.write_bytes(data)
        attempt(seed, read_scores, str(path))


def test_the_field_is_named_whatever_is_wrong():
    """Each field of our own with a value that it never has."""
    document = json.loads(encode_manifest(MANIFEST))
    free = {"counts", "made", "about", "dataset_hash", "rejects", "rows", "layout"}
    fields = [p for p in paths(document) if p and not free.intersection(p[:1] + p[2:3])]
    assert len(fields) > 20
    for path in fields:
        changed = copy.deepcopy(document)
        place = changed
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = {"odd": []}
        if path[-1] in ("sections", KEY):
            place[path[-1]] = 7
        with pytest.raises(FieldError) as refusal:
            decode_manifest(json.dumps(changed).encode(), "1.json")
        assert str(path[-1]) in refusal.value.field, path
