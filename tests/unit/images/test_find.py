"""What a listing of folders, patterns, manifests and single files brings."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from memory_files import OBJECTS

from beam_flowers.errors import InputError
from beam_flowers.images.find import find_images
from beam_flowers.records import HiddenFile, Image, Reject, RootListed


def fill(root, *names):
    for name in names:
        path = Path(root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))
    return str(root)


def paths(found):
    return [image.relative_path for image in found if isinstance(image, Image)]


def rejects(found):
    return {r.image.relative_path: r.error_class for r in found if isinstance(r, Reject)}


def end(found):
    (last,) = [item for item in found if isinstance(item, RootListed)]
    assert found[-1] is last
    return last


@contextmanager
def as_nobody():
    """Root may read everything, so that permissions are tested as somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder():
    """A folder that any user can reach; pytest's own are closed to others."""
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o755)
    yield folder
    shutil.rmtree(folder)


def test_labelled_tree(tmp_path):
    root = fill(tmp_path / "photos", "rose/a.jpg", "rose/wild/b", "LICENSE.txt", "tulip/c.png")
    found = list(find_images([f"{root}/"]))
    assert [(i.relative_path, i.label) for i in found[:-1]] == [
        ("LICENSE.txt", None),
        ("rose/a.jpg", "rose"),
        ("rose/wild/b", "rose"),
        ("tulip/c.png", "tulip"),
    ]
    status = os.stat(f"{root}/rose/a.jpg")
    image = Image(f"{root}/rose/a.jpg", root, "rose/a.jpg", "rose", None)
    assert found[1] == image._replace(bytes=10, modified=status.st_mtime_ns // 1000)
    assert end(found) == RootListed(root, complete=True, is_tree=True)


def test_split_folders(tmp_path):
    fill(tmp_path, "train/rose/a", "val/rose/b", "test/c", ".git/x", "d")
    found = {i.relative_path: i[3:5] for i in find_images([str(tmp_path)]) if isinstance(i, Image)}
    assert found == {
        "train/rose/a": ("rose", "training"),
        "val/rose/b": ("rose", "validation"),
        "test/c": (None, "testing"),
        "d": (None, None),
    }


def test_split_names_among_others_are_labels(tmp_path):
    fill(tmp_path, "train/rose/a", "test/rose/b", "steam/c")
    found = [i for i in find_images([str(tmp_path)]) if isinstance(i, Image)]
    assert [(i.label, i.split) for i in found] == [
        ("steam", None),
        ("test", None),
        ("train", None),
    ]


def test_hidden_is_below_the_root(tmp_path):
    root = fill(tmp_path / ".cache" / "x", "a", ".b", "rose/.thumbs/deep/c", ".git/d")
    os.symlink("nowhere", f"{root}/.link")
    found = list(find_images([root]))
    assert paths(found) == ["a"]
    hidden = [os.path.relpath(h.uri, root) for h in found if isinstance(h, HiddenFile)]
    assert hidden == [".b", ".git/d", ".link", "rose/.thumbs/deep/c"]
    assert end(found).complete


@pytest.mark.parametrize(
    "name",
    ["a b/c d.jpg", "y[1]/y[1].jpg", "a*?/x*.jpg", "line\nbreak/a\nb.jpg", "玫瑰/图.jpg", "%20/#?"],
)
def test_names_are_literal(tmp_path, name):
    root = fill(tmp_path, name)
    (image, _) = find_images([root])
    label, file_name = name.split("/", 1)
    assert image[:4] == (f"{root}/{name}", root, name, label)
    assert paths(find_images([f"{root}/{name}"])) == [file_name]
    assert paths(find_images([f"{root}/{label}"])) == [file_name]


def test_links(tmp_path):
    fill(tmp_path / "out", "secret.jpg")
    root = fill(tmp_path / "root", "rose/a.jpg")
    os.symlink("rose/a.jpg", f"{root}/inside.jpg")
    os.symlink("rose", f"{root}/folder")
    os.symlink("nowhere", f"{root}/dangling")
    os.symlink("loop", f"{root}/loop")
    os.symlink(tmp_path / "out" / "secret.jpg", f"{root}/outside.jpg")
    os.symlink(tmp_path / "out", f"{root}/outside")
    os.symlink(tmp_path / "root2", f"{root}/sibling")
    fill(tmp_path / "root2", "x")
    found = list(find_images([root]))
    assert paths(found) == ["inside.jpg", "rose/a.jpg"]
    assert rejects(found) == {
        "dangling": "DanglingLink",
        "loop": "DanglingLink",
        "outside.jpg": "LinkOutsideRoot",
        "outside": "LinkOutsideRoot",
        "sibling": "LinkOutsideRoot",
    }
    assert [i.bytes for i in found if isinstance(i, Image)] == [10, 10]
    assert end(found).complete


def test_the_root_may_be_a_link(tmp_path):
    fill(tmp_path / "real", "rose/a.jpg")
    os.symlink("rose/a.jpg", tmp_path / "real" / "b.jpg")
    os.symlink("real", tmp_path / "link")
    found = list(find_images([str(tmp_path / "link")]))
    assert [image.uri for image in found[:2]] == [
        f"{tmp_path}/link/b.jpg",
        f"{tmp_path}/link/rose/a.jpg",
    ]


@pytest.mark.timeout(10)
def test_pipes_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.symlink("pipe", tmp_path / "to pipe")
    found = list(find_images([str(tmp_path), str(tmp_path / "pipe")]))
    assert rejects(found) == {"pipe": "NotARegularFile", "to pipe": "NotARegularFile"}
    assert len(found) == 5


def test_bad_names(tmp_path):
    root = fill(tmp_path, os.fsdecode(b"r\xff/a.jpg"), os.fsdecode(b"b\xe9.jpg"))
    found = list(find_images([root]))
    assert rejects(found) == {r"r\xff/a.jpg": "BadName", r"b\xe9.jpg": "BadName"}
    assert [item.image.uri.encode() for item in found[:-1]]
    assert end(found).complete


def test_unreadable_folder(open_folder):
    fill(open_folder, "rose/a.jpg", "closed/b.jpg", "tulip/c.jpg")
    os.chmod(f"{open_folder}/closed", 0o000)
    with as_nobody():
        found = list(find_images([open_folder]))
    assert paths(found) == ["rose/a.jpg", "tulip/c.jpg"]
    assert rejects(found) == {"closed": "UnreadableFolder"}
    assert end(found) == RootListed(open_folder, complete=False, is_tree=True)


def test_names_without_sizes_leave_the_listing_incomplete(open_folder):
    fill(open_folder, "rose/a.jpg")
    os.chmod(f"{open_folder}/rose", 0o744)
    with as_nobody():
        found = list(find_images([open_folder]))
    assert [(image.relative_path, image.bytes) for image in found[:-1]] == [("rose/a.jpg", None)]
    assert not end(found).complete


def test_unreadable_root(open_folder):
    os.chmod(open_folder, 0o711)
    try:
        with as_nobody(), pytest.raises(InputError, match="cannot be listed: Permission denied"):
            list(find_images([open_folder]))
    finally:
        os.chmod(open_folder, 0o755)


@pytest.mark.parametrize("name", ["x.tar", "x.tfrecord", "x.csv", "x.parquet", "x.txt"])
def test_unreadable_file_of_images(open_folder, name):
    fill(open_folder, name)
    os.chmod(f"{open_folder}/{name}", 0o200)
    with as_nobody(), pytest.raises(InputError, match=f"{name}' cannot be read: Permission"):
        list(find_images([f"{open_folder}/{name}"]))


PATTERNS = [
    ("*/*.jpg", ["lily[1]/e.jpg", "rose/a.jpg", "tulip/c.jpg"]),
    ("rose/?.jpg", ["a.jpg"]),
    ("[rl]*", ["lily[1]/e.jpg", "rose/a.jpg", "rose/b.png", "rose/wild/d.jpg"]),
    ("**/*.jpg", ["f.jpg", "lily[1]/e.jpg", "rose/a.jpg", "rose/wild/d.jpg", "tulip/c.jpg"]),
    ("*.jpg", ["f.jpg"]),
    ("rose/**", ["a.jpg", "b.png", "wild/d.jpg"]),
    ("**/wild/*", ["rose/wild/d.jpg"]),
    ("lily[1]/*", ["e.jpg"]),
]
FLOWERS = ["rose/a.jpg", "rose/b.png", "tulip/c.jpg", "rose/wild/d.jpg", "lily[1]/e.jpg", "f.jpg"]


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize(("pattern", "expected"), PATTERNS)
def test_patterns(tmp_path, pattern, expected, remote):
    root = fill(tmp_path, *FLOWERS)
    if remote:
        root = "mem://bucket/photos"
        OBJECTS.clear()
        OBJECTS.update({f"{root}/{name}": b"1" for name in FLOWERS})
    found = list(find_images([f"{root}/{pattern}"]))
    assert sorted(paths(found)) == expected
    fixed = {"rose/?.jpg": "/rose", "rose/**": "/rose", "lily[1]/*": "/lily[1]"}.get(pattern, "")
    assert end(found) == RootListed(root + fixed, complete=False)


def test_pattern_stays_out_of_other_folders(tmp_path, monkeypatch):
    fill(tmp_path, "a.jpg", "big/b.jpg")
    listed, listdir = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or listdir(path))
    assert paths(find_images([f"{tmp_path}/*.jpg"])) == ["a.jpg"]
    assert listed == [str(tmp_path)]


def test_a_text_file_that_a_pattern_matches_is_no_list(tmp_path):
    fill(tmp_path, "LICENSE.txt")
    assert paths(find_images([f"{tmp_path}/*"])) == ["LICENSE.txt"]


def test_one_file(tmp_path):
    fill(tmp_path / "rose", ".a.jpg")
    image, last = find_images([str(tmp_path / "rose" / ".a.jpg")])
    assert (image.root, image.relative_path, image.label) == (f"{tmp_path}/rose", ".a.jpg", None)
    assert image.bytes == 6
    assert last == RootListed(f"{tmp_path}/rose", complete=False)


def test_manifest(tmp_path):
    fill(tmp_path, "a.jpg")
    (tmp_path / "m.csv").write_text("a.jpg,rose\nb.jpg,tulip\n")
    found = list(find_images([str(tmp_path / "m.csv")]))
    assert [(i.uri, i.label) for i in found if isinstance(i, Image)] == [
        (f"{tmp_path}/a.jpg", "rose")
    ]
    assert rejects(found) == {"b.jpg": "NotFound"}
    assert end(found) == RootListed(f"{tmp_path}/m.csv", complete=True)


def test_object_store(tmp_path):
    root = "mem://bucket/photos"
    OBJECTS.clear()
    OBJECTS.update({f"{root}/train/y[1]/a": b"1", f"{root}/test/b": b"", f"{root}2/c": b""})
    found = list(find_images([root + "/"]))
    assert [(i.uri, i.label, i.split) for i in found[:-1]] == [
        (f"{root}/test/b", None, "testing"),
        (f"{root}/train/y[1]/a", "y[1]", "training"),
    ]
    assert end(found) == RootListed(root, complete=True, is_tree=True)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "empty"),
        ("missing", "'missing' is not there.*check the spelling"),
        ("missing/*.jpg", "is not there"),
        ("*.jpg", "no file matches .*quotes"),
        ("y[1].jpg", "no file matches .*quotes"),
        (os.fsdecode(b"r\xff"), "not UTF-8"),
        ("nosuch://bucket/a", "no file system for nosuch://"),
        ("mem://bucket/missing", "is not there"),
        ("mem://broken/x", "cannot be looked at"),
    ],
)
def test_unusable_sources(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        list(find_images([source]))


def test_all_sources_are_checked_first(tmp_path):
    fill(tmp_path, "a.jpg")
    with pytest.raises(InputError, match="missing"):
        next(find_images([str(tmp_path), str(tmp_path / "missing")]))


def test_overlapping_sources_come_twice(tmp_path):
    fill(tmp_path, "rose/a.jpg")
    found = list(find_images([str(tmp_path), str(tmp_path / "rose")]))
    assert [i.label for i in found if isinstance(i, Image)] == ["rose", None]


def test_empty_folder(tmp_path):
    assert list(find_images([str(tmp_path)])) == [
        RootListed(str(tmp_path), complete=True, is_tree=True)
    ]
