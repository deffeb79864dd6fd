"""The tries of a writer beside others: only a lost race is worth another one."""

import pytest
from vectors import add, embeddings

from beam_flowers.errors import PartLostError, StoreError
from beam_flowers.store.commits import latest
from beam_flowers.store.table import TRIES, Race, until_committed


@pytest.fixture
def store(tmp_path):
    add(str(tmp_path / "store"), "small", embeddings([0], 2))
    return str(tmp_path / "store")


@pytest.fixture
def commit(store):
    """Another writer."""
    return lambda: add(store, "small", embeddings([latest(store).version], 2))


@pytest.mark.parametrize(
    ("error", "is_first", "tries"),
    [
        (PartLostError("gone"), True, 2),
        (PartLostError("gone"), False, 1),
        (StoreError("a fault of one's own"), True, 1),
        (OSError(5, "the disk"), True, 1),
    ],
)
def test_only_a_lost_part_of_a_lost_race_is_tried_again(store, commit, error, is_first, tries):
    bases = []

    def attempt(base):
        bases.append(base.version)
        if len(bases) == 1:
            if is_first:
                commit()
            raise error
        return base.version

    if tries == 1:
        with pytest.raises(type(error)):
            until_committed(store, attempt)
    else:
        assert until_committed(store, attempt) == 2
    assert bases == [1, 2][:tries]


def test_a_new_version_of_a_table_that_is_read_loses_the_race(store, commit, tmp_path):
    race = Race(str(tmp_path / "other"), [store])
    assert race.start().version == 0
    assert not race.is_lost()
    commit()
    assert race.is_lost()
    race.start()
    assert not race.is_lost()


def test_a_writer_gives_up(store):
    bases = []
    with pytest.raises(StoreError, match=f"other writers were first {TRIES} times; run this again"):
        until_committed(store, bases.append)
    assert len(bases) == TRIES
