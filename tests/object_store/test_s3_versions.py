"""Versions of a store in an object store: copies within the server, readers that go on in them."""

import numpy as np
import pytest
from vectors import LABELS

from beam_flowers import files
from beam_flowers.records import Embedding, Image
from beam_flowers.store.append import append_parts, store_place
from beam_flowers.store.commits import latest, publish, versions
from beam_flowers.store.fsck import fsck
from beam_flowers.store.history import history, restore
from beam_flowers.store.parts import Place, open_part, read_part, write_part
from beam_flowers.store.vacuum import vacuum

pytestmark = [pytest.mark.engines, pytest.mark.timeout(300)]
FINGERPRINT = "ab" * 32


def add(store, run, count=400):
    """Commits rows of some 2 MB: more than is read when a part is opened."""
    place, kind = store_place(store, "made", FINGERPRINT)
    random = np.random.default_rng(run)
    rows = [
        Embedding(
            Image(f"/r/{n}.jpg", "/r", f"{n}.jpg", LABELS[n % 3], None, 9, run),
            f"{n:064x}",
            4,
            3,
            "JPEG",
            random.standard_normal(1280).astype(np.float32),
        )
        for n in range(count)
    ]
    part = write_part(place, kind, kind.table(rows))
    append_parts(place, kind, {}, [part])
    return Place(place.root, place.section, place.fingerprint), part


def test_a_reader_goes_on_in_the_retired_copy(reached):
    store = files.join(reached.uri, "store")
    place, first = add(store, 1)
    expected = read_part(place, first.name)
    with open_part(place, first.name) as part:
        assert part.metadata.num_rows == 400
        add(store, 2)
        assert not files.exists(place.published(first.name))
        assert part.read().equals(expected)
    assert read_part(place, first.name).equals(expected)


def test_versions_are_kept_restored_and_go(reached):
    store = files.join(reached.uri, "store")
    place, first = add(store, 1)
    _, second = add(store, 2)
    assert [v.readable for v in history(store)] == [True, True]
    assert restore(store, 1) == 3
    assert fsck(store).is_sound
    (part,) = latest(store).sections[place.section].rows
    assert part.digest == first.digest
    assert part.name not in (first.name, second.name)
    assert not vacuum(store, retention=0, older_than=0, dry_run=True).foreign
    vacuum(store, retention=0, older_than=0)
    assert versions(store) == [2, 3]
    retired = [e.name for e in files.walk(files.join(store, "__retired"))]
    assert retired == [f"{second.name}.retired"]
    publish(store)
    assert read_part(place, part.name).num_rows == 400
