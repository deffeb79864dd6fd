"""A new table of a whole store takes its parts as they are; one that exists, or that is made by a
list of images, is joined. Both are the same table."""

import make_images
import pytest
from stores import cli, embed, photos, rejects, rows

from beam_flowers.head.bundle import read_bundle
from beam_flowers.store.commits import latest
from beam_flowers.transforms import dofns
from beam_flowers.workflows import score_stored
from beam_flowers.workflows.score import score_images
from beam_flowers.workflows.score_options import ScoreOptions


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Folder of `images` (20 good, 2 bad), a `store` of them in four parts, `model`."""
    base = tmp_path_factory.mktemp("whole")
    folder = photos(base / "images", 4)
    (folder / "bad.txt").write_bytes(make_images.TEXT)
    (folder / "tulips" / "cut.jpg").write_bytes(make_images.truncated(make_images.jpeg()))
    embed(folder, base / "store", shards=4)
    assert cli("train", base / "store", "--model", base / "model") == 0
    return base


@pytest.fixture
def score(base, tmp_path):
    def score(name, said=None):
        warn = pytest.fail if said is None else said.append
        job = ScoreOptions((str(base / "store"),), str(tmp_path / name))
        return score_images(job, read_bundle(str(base / "model")), warn=warn)

    return score


@pytest.fixture
def joined(monkeypatch, score):
    """The table as a join makes it."""
    with monkeypatch.context() as patched:
        patched.setattr("beam_flowers.workflows.embed.is_new", lambda place, manifest: False)
        return score("joined")


def test_the_table_is_that_of_a_join(score, joined, tmp_path):
    whole = score("whole")
    assert str(whole) == str(joined) == "embedded 0, reused 20, rejected 2, hidden 0, of 22"
    assert (whole.dataset_hash, whole.reasons) == (joined.dataset_hash, joined.reasons)
    assert rows(tmp_path / "whole") == rows(tmp_path / "joined")
    assert rejects(tmp_path / "whole") == rejects(tmp_path / "joined")
    assert len(rejects(tmp_path / "whole")) == 2


def test_a_part_in_several_pieces_gives_the_same_files(score, monkeypatch, tmp_path):
    def files(name):
        return sorted(p.read_bytes() for p in (tmp_path / name).glob("part-*.parquet"))

    score("whole")
    monkeypatch.setattr(dofns, "_SCORED_ROWS", 2)
    score("pieces")
    assert files("pieces") == files("whole")


def test_no_row_is_listed(score, monkeypatch):
    monkeypatch.setattr(score_stored, "stored_rows", None)
    assert score("whole").rows == 20


def test_again_there_is_nothing_to_do(score, tmp_path):
    first = score("whole")
    version = latest(str(tmp_path / "whole")).version
    assert score("whole").dataset_hash == first.dataset_hash
    assert latest(str(tmp_path / "whole")).version == version


def test_work_that_a_killed_run_left_is_taken_up(score, monkeypatch, tmp_path):
    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("beam_flowers.store.plan.commit_under_lease", die)
        with pytest.raises(BaseException, match=r".*"):
            score("whole")
    assert latest(str(tmp_path / "whole")).sections == {}
    made = {p.name for p in (tmp_path / "whole").rglob("part-*.parquet")}
    assert len(made) == 4
    assert score("whole").rows == 20
    taken_up = {p.name.rpartition("-")[2] for p in (tmp_path / "whole").glob("part-*.parquet")}
    assert taken_up == {name.rpartition("-")[2] for name in made}


def test_labels_that_become_one_are_named(base, tmp_path):
    folder = photos(tmp_path / "images", 1)
    for name in ("Rosa canina", "rosa-canina"):
        (folder / name).mkdir()
        (folder / name / "a.jpg").write_bytes(make_images.jpeg(seed=len(name) + ord(name[0])))
    cli("embed", folder, "--store", tmp_path / "store")
    said = []
    job = ScoreOptions((str(tmp_path / "store"),), str(tmp_path / "out"))
    score_images(job, read_bundle(str(base / "model")), warn=said.append)
    assert said == ["labels that differ in writing only: 'Rosa canina', 'rosa-canina'"]
