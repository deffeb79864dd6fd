"""What becomes of each file and each stored row."""

import itertools
import sqlite3

import pytest
from ledgers import (
    COMMITTED,
    INSIDE,
    LEFT,
    OTHER_SHA,
    REJECTS,
    SHA,
    UNLABELLED,
    A,
    fresh,
    image,
    joined,
    reject,
    states,
    stored,
)

from beam_flowers.errors import InputError
from beam_flowers.records import HiddenFile, Image, RootListed
from beam_flowers.store.ledger import Ledger, Rules, StoredRow

DONE, UNDONE = RootListed("/r", True, True), RootListed("/r", False, True)


BUCKET, MANIFEST = RootListed("s3://b", True, True), RootListed("s3://b/m", True)


OUTDATED = StoredRow(A, SHA, outdated=True)


TAGGED = A._replace(etag="t1")
"""An object that S3 has given a tag."""


def of_root(root, uri="/r/a"):
    """The stored row of a file that was found under some root."""
    return A._replace(uri=uri, root=root)


def case(name, listed, row, state, part=COMMITTED, read=False, **rules):
    """A stored row of /r/a and a listing: the row's state, and whether the file is read."""
    return pytest.param(listed, row, state, part, read, Rules(**rules), id=name)


@pytest.mark.parametrize(
    ("listed", "row", "state", "part", "read", "rules"),
    [
        case("the-unchanged-is-kept", [A, DONE], A, "kept"),
        # Not listed.
        case("unlisted-without-its-root-is-kept", [], A, "kept"),
        case("unlisted-in-a-root-seen-in-part-is-kept", [UNDONE], A, "kept"),
        case("unlisted-in-a-root-seen-whole-is-gone", [DONE], A, "gone"),
        case("unlisted-in-a-root-seen-whole-once-is-gone", [DONE, UNDONE], A, "gone"),
        case("unlisted-in-a-root-seen-whole-at-last-is-gone", [UNDONE, DONE], A, "gone"),
        case("unlisted-beside-a-root-seen-whole-is-kept", [RootListed("/q", True)], A, "kept"),
        case("unlisted-below-a-folder-is-gone-whatever-its-root", [DONE], of_root("/r/x"), "gone"),
        case("unlisted-found-from-above-is-gone", [DONE], of_root("/"), "gone"),
        case("unlisted-of-a-manifest-is-gone-below-a-folder", [DONE], of_root("/m.csv"), "gone"),
        case("unlisted-below-the-root-of-all-is-gone", [RootListed("/", True, True)], A, "gone"),
        case(
            "unlisted-below-a-bucket-is-gone", [BUCKET], of_root("s3://b/p", "s3://b/p/a"), "gone"
        ),
        case(
            "unlisted-in-another-bucket-is-kept", [BUCKET], of_root("s3://b2", "s3://b2/a"), "kept"
        ),
        case(
            "unlisted-below-a-name-that-begins-alike-is-kept",
            [DONE],
            of_root("/rest", "/rest/a"),
            "kept",
        ),
        case("unlisted-above-is-kept", [RootListed("/r/x", True, True)], A, "kept"),
        case("unlisted-below-a-folder-seen-in-part-is-kept", [UNDONE], of_root("/r/x"), "kept"),
        case("unlisted-and-hidden-is-kept", [DONE], of_root("/r/.x", "/r/.x/a"), "kept"),
        case("unlisted-and-hidden-deeper-is-kept", [DONE], of_root("/q", "/r/x/.y/a"), "kept"),
        case(
            "unlisted-below-a-hidden-root-is-gone",
            [RootListed("/r/.x", True, True)],
            of_root("/r/.x/y", "/r/.x/y/a"),
            "gone",
        ),
        case(
            "unlisted-in-an-archive-is-kept",
            [DONE],
            of_root("/r/t.tar", "tar:///r/t.tar!/a"),
            "kept",
        ),
        case(
            "unlisted-in-a-manifest-seen-whole-is-gone-wherever-it-lies",
            [MANIFEST],
            of_root("s3://b/m", "/q/a"),
            "gone",
        ),
        case(
            "unlisted-below-the-name-of-a-manifest-is-kept",
            [MANIFEST],
            of_root("s3://b", "s3://b/m/a"),
            "kept",
        ),
        case(
            "unlisted-found-from-a-working-folder-is-kept-where-that-is-listed",
            [DONE],
            of_root("/r", "/q/a"),
            "kept",
        ),
        case(
            "unlisted-and-hidden-below-its-own-root-is-kept",
            [DONE],
            of_root("/r", "/r/.x/a"),
            "kept",
        ),
        case("of-several-roots-one-that-covers-will-do", [BUCKET, DONE, MANIFEST], A, "gone"),
        case("unlisted-is-gone-where-the-list-is-exact", [], A, "gone", exact=True),
        case("unlisted-is-kept-when-all-is-verified", [], A, "kept", verify=True),
        case("unlisted-work-of-a-killed-run-is-gone", [], A, "gone", LEFT),
        case("listed-work-of-a-killed-run-is-taken-up", [A], A, "kept", LEFT),
        # Listed as a reject.
        case(
            "the-same-reject-is-kept",
            [reject(A)],
            StoredRow(A, None, "DanglingLink"),
            "kept",
            REJECTS,
        ),
        case(
            "the-same-reject-is-kept-whatever-the-rules",
            [reject(A)],
            StoredRow(image("a", size=11), None, "DanglingLink"),
            "kept",
            REJECTS,
            verify=True,
            retry=True,
        ),
        case(
            "another-reject-replaces-the-first",
            [reject(A)],
            StoredRow(A, None, "Truncated"),
            "gone",
            REJECTS,
        ),
        case("a-reject-replaces-a-row", [reject(A)], A, "gone"),
        # Stale.
        case("edited-size-is-stale", [image("a", size=11)], A, "stale", read=True),
        case("edited-time-is-stale", [image("a", modified=2)], A, "stale", read=True),
        case("another-tag-is-stale", [TAGGED], A._replace(etag="t2"), "stale", read=True),
        case("the-same-tag-is-kept", [TAGGED], TAGGED, "kept"),
        case("a-tag-known-at-last-is-kept", [TAGGED], A, "kept"),
        case("a-tag-no-longer-known-is-kept", [A], TAGGED, "kept"),
        case("size-no-longer-known-is-stale", [image("a", size=None)], A, "stale", read=True),
        case("size-known-at-last-is-stale", [A], image("a", size=None), "stale", read=True),
        case("time-no-longer-known-is-stale", [image("a", modified=None)], A, "stale", read=True),
        case("size-never-known-is-kept", [image("a", size=None)], image("a", size=None), "kept"),
        case(
            "time-never-known-is-kept",
            [image("a", modified=None)],
            image("a", modified=None),
            "kept",
        ),
        case("verified-is-stale", [A], A, "stale", read=True, verify=True),
        case("edited-and-relabelled-is-stale", [image("a", "x", 11)], A, "stale", read=True),
        case("edited-work-of-a-killed-run-is-stale", [image("a", size=11)], A, "stale", LEFT, True),
        case("a-reject-is-kept", [A], StoredRow(A, None, "Truncated"), "kept", REJECTS),
        case(
            "a-reject-retried-is-stale",
            [A],
            StoredRow(A, None, "Truncated"),
            "stale",
            REJECTS,
            True,
            retry=True,
        ),
        case(
            "a-file-that-could-not-be-read-is-tried-again",
            [A],
            StoredRow(A, None, "OSError", True),
            "stale",
            REJECTS,
            True,
        ),
        case(
            "unless-this-run-has-just-tried",
            [A],
            StoredRow(A, None, "OSError", True),
            "kept",
            REJECTS,
            reread=False,
        ),
        case("by-older-rules-is-stale", [A], OUTDATED, "stale", read=True),
        case("by-older-rules-is-kept-if-no-file-is-read", [A], OUTDATED, "kept", reread=False),
        case("unlisted-and-by-older-rules-is-kept", [UNDONE], OUTDATED, "kept"),
        case("a-row-is-not-retried", [A], A, "kept", retry=True),
        # Changed.
        case("another-label-changes-the-row", [image("a", "tulip")], A, "changed"),
        case("a-first-label-changes-the-row", [A], UNLABELLED, "changed"),
        case("another-split-changes-the-row", [image("a", split="testing")], A, "changed"),
        case("a-split-given-up-changes-the-row", [A], image("a", split="testing"), "changed"),
        case("another-root-changes-the-row", [A._replace(root="/")], A, "changed"),
        case("another-path-changes-the-row", [A._replace(relative_path="./a")], A, "changed"),
        case("a-label-its-root-no-longer-gives-changes-the-row", [UNLABELLED], A, "changed"),
        case("no-label-of-the-same-root-is-no-change", [UNLABELLED], UNLABELLED, "kept"),
        case("one-folder-of-a-tree-does-not-wipe-a-label", [INSIDE], A, "kept"),
        case("without-any-label-another-root-is-no-change", [INSIDE], UNLABELLED, "kept"),
        case("without-relabel-labels-stay", [image("a", "tulip")], A, "kept", relabel=False),
        case(
            "a-reject-is-relabelled",
            [image("a", "tulip")],
            StoredRow(A, None, "Truncated"),
            "changed",
            REJECTS,
        ),
        case("work-of-a-killed-run-is-relabelled", [image("a", "tulip")], A, "changed", LEFT),
    ],
)
def test_what_becomes_of_a_stored_row(listed, row, state, part, read, rules):
    ledger = joined(listed, (part, [row]), rules=rules)
    assert states(ledger) == [state]
    assert fresh(ledger) == (["a"] if read else [])
    assert ledger.part_names() == (
        [part] if state == "kept" else [],
        [part] if state == "changed" else [],
    )
    before = row.image if isinstance(row, StoredRow) else row
    left = {"kept": [before], "changed": listed[:1]}.get(state, [])
    assert [row.image for row in ledger.remaining(part)] == left


EDITED, RELABELLED = image("a", modified=2), image("a", "tulip")
TRUNCATED = StoredRow(A, None, "Truncated")


@pytest.mark.parametrize(
    ("listed", "parts", "expected"),
    [
        pytest.param(
            [A],
            [(LEFT, [A]), (COMMITTED, [A])],
            ["double", "kept"],
            id="of-two-kept-the-committed-one-stays",
        ),
        pytest.param(
            [A],
            [(COMMITTED, [A]), ("part-d", [A])],
            ["kept", "double"],
            id="of-two-committed-the-first-stays",
        ),
        pytest.param(
            [EDITED],
            [(COMMITTED, [A]), (LEFT, [EDITED])],
            ["double", "kept"],
            id="work-of-a-killed-run-replaces-a-stale-row",
        ),
        pytest.param(
            [RELABELLED],
            [(COMMITTED, [EDITED]), (LEFT, [A])],
            ["double", "changed"],
            id="relabelled-work-replaces-a-stale-row",
        ),
        pytest.param(
            [A],
            [(LEFT, [A]), (COMMITTED, [RELABELLED])],
            ["double", "changed"],
            id="a-changed-row-is-as-good-as-a-kept-one",
        ),
        pytest.param(
            [RELABELLED],
            [(COMMITTED, [A]), ("part-d", [RELABELLED])],
            ["changed", "double"],
            id="the-first-changed-row-stays-before-a-kept-one",
        ),
        pytest.param(
            [A],
            [(COMMITTED, [EDITED]), ("part-d", [EDITED])],
            ["stale", "double"],
            id="of-two-stale-ones-both-go",
        ),
        pytest.param(
            [A],
            [("part-d", [A]), (REJECTS, [TRUNCATED]), (COMMITTED, [A])],
            ["kept", "double", "double"],
            id="of-three-one-stays",
        ),
        pytest.param(
            [A, image("b")],
            [(LEFT, [image("b"), A]), (COMMITTED, [A])],
            ["kept", "double", "kept"],
            id="files-are-judged-one-by-one",
        ),
    ],
)
def test_what_becomes_of_several_rows_of_one_file(listed, parts, expected):
    ledger = joined(listed, *parts)
    assert states(ledger) == expected
    stays = sum(len(ledger.remaining(name)) for name, _ in parts)
    assert stays + ledger.fresh() == ledger.listed()


OTHER_ROOT = image("a", "tulip")._replace(root="/")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param([A, A], A, id="found-twice-counts-once"),
        pytest.param([A, OTHER_ROOT], A, id="of-two-labels-the-first-found-counts"),
        pytest.param([OTHER_ROOT, A], OTHER_ROOT, id="whatever-that-label-is"),
        pytest.param([INSIDE, A], A, id="a-label-counts-before-none"),
        pytest.param([A, INSIDE], A, id="a-label-is-not-lost-to-none"),
        pytest.param([INSIDE, UNLABELLED], INSIDE, id="of-two-without-label-the-first-counts"),
        pytest.param([INSIDE, A, OTHER_ROOT, INSIDE], A, id="the-first-label-of-many-counts"),
        pytest.param([image("a", ""), A._replace(root="/")], image("a", ""), id="empty-is-a-label"),
    ],
)
def test_of_a_file_found_twice_one_finding_counts(found, expected):
    ledger = joined([*found, HiddenFile("/r/.h")])
    assert (ledger.listed(), ledger.hidden) == (1, 1)
    assert list(ledger.fresh_units(9)) == [[expected]]


def test_one_root_gives_one_file_one_label():
    with pytest.raises(InputError, match=r"^/r gives /r/a two labels, 'rose' and 'tulip'; keep"):
        joined([image("a", "tulip"), image("a", "rose"), image("b")])
    # One label twice, two of different roots, and one beside none are no contradiction.
    assert joined([A, A, UNLABELLED, OTHER_ROOT]).label_names() == ["rose"]


def test_what_was_listed_and_stored_is_counted():
    found = [image(n, str(2 - int(n) % 3), int(n)) for n in "0123456"]
    found += [reject(image("8", None)), reject(image("7", "x"), "Unreadable", OTHER_SHA)]
    ledger = joined(
        [*found, HiddenFile("/r/.h"), HiddenFile("/r/.i")],
        (COMMITTED, [found[0], found[1]._replace(label="x"), found[2]._replace(bytes=99)]),
        (LEFT, [found[1]]),
        ("rejects-d", [StoredRow(found[4], None, "Truncated"), StoredRow(found[5], None, "Huge")]),
        (REJECTS, [StoredRow(found[6]._replace(label="x"), None, "Truncated")]),
    )
    assert (ledger.listed(), ledger.hidden, ledger.fresh()) == (9, 2, 2)
    assert (ledger.known(), ledger.known_rejects()) == (2, {"Truncated": 2, "Huge": 1})
    assert list(ledger.found_rejects()) == [found[8], found[7]]
    assert ledger.label_names() == ["0", "1", "2", "x"]
    assert ledger.part_names() == (["rejects-d"], [COMMITTED, REJECTS])


def test_what_the_store_knows_as_rejected_is_not_found_again():
    found = [reject(A), reject(image("b"))]
    ledger = joined(found, (REJECTS, [StoredRow(A, None, "DanglingLink")]))
    assert list(ledger.found_rejects()) == found[1:]
    assert ledger.fresh() == 0


def test_a_part_that_loses_one_row_is_written_again():
    ledger = joined([EDITED, DONE], (COMMITTED, [A, image("b", root="/q")]), ("part-d", [A]))
    assert states(ledger) == ["stale", "kept", "double"]
    assert ledger.part_names() == ([], [COMMITTED])


@pytest.mark.parametrize(
    ("found", "empty"),
    [
        pytest.param([], True, id="nothing"),
        pytest.param([HiddenFile("/r/.h"), DONE], True, id="hidden-files"),
        pytest.param([A], False, id="a-file"),
        pytest.param([reject(A)], False, id="a-reject"),
    ],
)
def test_an_empty_listing(found, empty):
    ledger = Ledger()
    assert (ledger.hidden, ledger.sections) == (0, 0)
    ledger.list_found(found)
    assert ledger.is_empty() == empty


@pytest.mark.parametrize(
    ("found", "gap"),
    [
        pytest.param([A, reject(image("b")), DONE, UNDONE], None, id="a-file-is-none"),
        pytest.param(
            [A, reject(image("b"), "UnreadableFolder")],
            ("/r/b", "leads to nothing"),
            id="a-folder-that-is-closed",
        ),
        pytest.param(
            [A, reject(Image("/t.tar", "/t.tar", "t.tar"), "DamagedShard")],
            ("/t.tar", "leads to nothing"),
            id="an-archive-that-is-damaged",
        ),
        pytest.param([Image("/t", "/t", "t")], None, id="a-file-under-its-own-name-is-none"),
    ],
)
def test_what_could_not_be_listed_to_its_end(found, gap):
    ledger = Ledger()
    ledger.list_found(found)
    assert ledger.gap() == gap


def test_roots_listed_completely_are_in_order():
    found = [RootListed("/r", True), RootListed("/q", False), RootListed("/p", True)]
    assert joined(found).complete_roots() == ["/p", "/r"]


def test_a_listing_is_known_again_by_its_roots():
    roots = [RootListed("/r", True), RootListed("/q", False), RootListed("/p", True)]
    names = [joined(found).listing_name() for found in (roots, roots[::-1], roots[1:])]
    assert names[0] == names[1] != names[2]


def test_rows_that_stay_have_their_new_identities_and_their_old_contents():
    old = [
        StoredRow(image("c", "old", split="training"), "c" * 64),
        StoredRow(image("gone"), "e" * 64),
        StoredRow(image("b", None, size=None), "b" * 64),
        StoredRow(image("a", "old", root="/z"), "a" * 64),
    ]
    new = Image("/r/c", "/", "r/c", "new", "testing", 10, 1)
    found = [new, Image("/r/b", "/r/sub", "sub-b", None, "testing", None, 1), DONE]
    ledger = joined(found, ("part-d", [image("c")]), (COMMITTED, old[1:]), (LEFT, old[:1]))
    # A row that the same file has in the first part stands for it.
    assert ledger.remaining("part-d") == [StoredRow(new, SHA)]
    assert ledger.remaining(LEFT) == []
    assert ledger.remaining(COMMITTED) == old[2:]
    ledger = joined(found, (COMMITTED, old), ("part-d", [image("d", root="/z")]))
    assert ledger.remaining(COMMITTED) == [StoredRow(new, "c" * 64), *old[2:]]
    assert ledger.part_names() == (["part-d"], [COMMITTED])


def test_rows_of_other_parts_are_forgotten():
    rows = [StoredRow(image(n), n * 64) for n in "abc"]
    ledger = stored(("p", rows[:1]), ("q", rows[1:2]), ("r", rows[2:]))
    ledger.keep_parts(["r", "p", "absent"])
    ledger.list_found([RootListed("/r", False)])
    ledger.join(Rules())
    assert ledger.part_names() == (["p", "r"], [])


def test_the_same_bytes_under_two_labels_are_named():
    def rows(sha256, *labels):
        return [StoredRow(image(f"{sha256}-{label}", label), sha256) for label in labels]

    ledger = stored(
        ("p", [*rows("9", "rose", "tulip"), *rows("1", "rose", "daisy")]),
        ("q", [*rows("7", "aster"), *rows("2", "a", "c", "b"), *rows("3", "rose", None)]),
        ("r", [*rows("0", "rose"), StoredRow(image("0-again"), "0"), *rows(None, "x", "y")]),
    )
    assert ledger.shared_contents() == [
        ("/r/1-daisy", "daisy", "/r/1-rose", "rose"),
        ("/r/2-a", "a", "/r/2-c", "c"),
        ("/r/9-rose", "rose", "/r/9-tulip", "tulip"),
    ]
    assert [pair[0] for pair in ledger.shared_contents(2)] == ["/r/1-daisy", "/r/2-a"]
    many = stored(("p", list(itertools.chain(*(rows(sha, "a", "b") for sha in "654321")))))
    assert [pair[0] for pair in many.shared_contents()] == [f"/r/{sha}-a" for sha in "12345"]


def test_an_idle_ledger_answers_and_a_closed_one_does_not():
    ledger = joined([A])
    ledger.rest()
    assert ledger.listed() == 1
    ledger.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        ledger.listed()


class TestUnchanged:
    """What stays of a file that is read although it looks unchanged, and cannot be read."""

    def unchanged(self, found, *parts, **rules):
        return list(joined(found, *parts, rules=Rules(**rules)).unchanged())

    def test_only_what_is_read_again_and_looks_unchanged(self):
        rows = [image(name) for name in "cab"]
        found = [image("a"), image("b", size=11), image("c", modified=2), DONE]
        assert self.unchanged(found, (COMMITTED, rows)) == []
        expected = [(StoredRow(image("a"), SHA), COMMITTED)]
        assert self.unchanged(found, (COMMITTED, rows), verify=True) == expected

    def test_in_the_order_of_their_uris_with_their_parts(self):
        parts = (("part-d", [image("b")]), (COMMITTED, [image("c"), image("a")]))
        found = [image(name) for name in "cba"]
        result = self.unchanged(found, *parts, verify=True)
        assert [(row.image, part) for row, part in result] == [
            (image("a"), COMMITTED),
            (image("b"), "part-d"),
            (image("c"), COMMITTED),
        ]

    def test_a_size_or_time_that_nobody_knows_is_no_sign(self):
        for unknown in (image("a", size=None), image("a", modified=None)):
            assert self.unchanged([unknown], (COMMITTED, [unknown]), verify=True) == []

    def test_another_tag_is_a_change_and_an_unknown_one_is_no_sign(self):
        for listed, stays in ((TAGGED, True), (A, True), (A._replace(etag="t2"), False)):
            found = self.unchanged([listed], (COMMITTED, [TAGGED]), verify=True)
            assert [row.image for row, _ in found] == [TAGGED] * stays
        ((row, _),) = self.unchanged([TAGGED], (COMMITTED, [A]), verify=True)
        assert row.image == A

    def test_verdicts_stay_and_earlier_read_errors_do_not(self):
        verdict = StoredRow(A, OTHER_SHA, "Truncated")
        unread = StoredRow(image("b"), None, "OSError", True)
        rows = (REJECTS, [verdict, unread])
        found = [A, image("b")]
        expected = [(StoredRow(A, OTHER_SHA), REJECTS)]
        assert self.unchanged(found, rows) == []
        assert self.unchanged(found, rows, verify=True) == expected
        assert self.unchanged(found, rows, retry=True) == expected

    def test_what_a_killed_run_left_is_not_in_the_store(self):
        assert self.unchanged([A], (LEFT, [A]), verify=True) == []

    @pytest.mark.parametrize(
        ("listed", "row", "relabel", "stays"),
        [
            pytest.param(image("a", "tulip"), A, True, "listed", id="a-new-label-counts"),
            pytest.param(image("a", "tulip"), A, False, "stored", id="unless-labels-stay"),
            pytest.param(INSIDE, A, True, "stored", id="no-label-of-another-root-does-not"),
            pytest.param(UNLABELLED, A, True, "listed", id="of-the-same-root-it-does"),
            pytest.param(
                Image("/r/a", "/", "r/a", "r", "testing", 10, 1), A, True, "listed", id="all-of-it"
            ),
        ],
    )
    def test_labels_follow_the_rule_of_rows_that_stay(self, listed, row, relabel, stays):
        ((found, _),) = self.unchanged([listed], (COMMITTED, [row]), verify=True, relabel=relabel)
        assert found.image == {"listed": listed, "stored": row}[stays]


def test_files_behind_a_link_to_a_folder_are_not_covered(tmp_path):
    (tmp_path / "there" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("there")
    root = str(tmp_path)
    rows = [
        of_root(f"{root}/x", f"{root}/{name}/a") for name in ("link", "link/deep", "there/deep")
    ]
    assert states(joined([RootListed(root, True, True)], (COMMITTED, rows))) == [
        *["kept", "kept", "gone"]
    ]
    # Below the link everything was seen.
    assert states(joined([RootListed(f"{root}/link", True, True)], (COMMITTED, rows))) == [
        *["gone", "gone", "kept"]
    ]


class TestGhosts:
    """Rows of a root that is not there, /old, whose contents may be listed below /new."""

    OLD = (StoredRow(image("a", root="/old"), SHA), StoredRow(image("b", root="/old"), OTHER_SHA))
    NEW = StoredRow(image("c", root="/new"), SHA)

    def ledger(self, found, *parts, absent=("/old",)):
        ledger = joined(found, *parts)
        self.stray = ledger.stray_roots()
        ledger.take_out_ghosts(absent)
        return ledger

    def test_a_row_goes_whose_content_is_listed_and_the_others_are_counted(self):
        ledger = self.ledger([self.NEW.image], (COMMITTED, [*self.OLD, self.NEW]))
        assert self.stray == {"/old": True}
        assert states(ledger) == ["gone", "kept", "kept"]
        assert ledger.absent_rows() == {"/old": 1}
        assert not ledger.is_undecided()
        assert ledger.part_names() == ([], [COMMITTED])

    def test_rows_of_a_root_that_is_there_stay(self):
        ledger = self.ledger([self.NEW.image], (COMMITTED, [*self.OLD, self.NEW]), absent=())
        assert states(ledger) == ["kept"] * 3
        assert ledger.absent_rows() == {}

    def test_a_content_that_is_stored_and_not_listed_counts_for_nothing(self):
        ledger = self.ledger([A], (COMMITTED, [*self.OLD, self.NEW, StoredRow(A, "ef" * 32)]))
        assert self.stray == {"/old": False, "/new": False}
        assert states(ledger) == ["kept"] * 4

    def test_neither_does_the_old_content_of_an_edited_file(self):
        edited = self.NEW.image._replace(modified=2, bytes=11)
        ledger = self.ledger([edited], (COMMITTED, [*self.OLD, self.NEW]))
        assert states(ledger) == ["kept", "kept", "stale"]

    def test_relabelled_rows_and_rejects_are_contents_too(self):
        rejected = StoredRow(image("d", root="/new"), OTHER_SHA, "Truncated")
        found = [self.NEW.image._replace(label="tulip"), rejected.image]
        ledger = self.ledger(found, (COMMITTED, [*self.OLD, self.NEW]), (REJECTS, [rejected]))
        assert states(ledger) == ["gone", "gone", "changed", "kept"]

    def test_rejects_go_likewise_and_those_without_a_content_stay(self):
        old = [
            StoredRow(image("a", root="/old"), SHA, "Truncated"),
            StoredRow(image("b", root="/old"), None, "TooLarge"),
        ]
        new = StoredRow(image("a", root="/new"), SHA, "Truncated")
        nothing = StoredRow(image("b", root="/new"), None, "TooLarge")
        found = [new.image, nothing.image]
        ledger = self.ledger(found, (REJECTS, [*old, new, nothing]))
        assert states(ledger) == ["gone", "kept", "kept", "kept"]

    @pytest.mark.parametrize(
        ("found", "undecided"),
        [
            pytest.param(image("c", root="/new"), True, id="of-the-same-size"),
            pytest.param(image("c", root="/new", size=11), False, id="of-another-size"),
            pytest.param(image("c", root="/new", size=None), True, id="of-unknown-size"),
        ],
    )
    def test_a_file_to_be_read_may_have_the_content(self, found, undecided):
        ledger = self.ledger([found], (COMMITTED, self.OLD))
        assert self.stray == {"/old": undecided}
        assert ledger.is_undecided() == undecided
        assert states(ledger) == ["kept", "kept"]

    def test_what_may_be_said_of_a_root_that_is_there_decides_nothing(self):
        ledger = self.ledger([image("c", root="/new")], (COMMITTED, self.OLD), absent=())
        assert not ledger.is_undecided()

    def test_one_row_is_enough_to_leave_it_undecided(self):
        assert self.ledger([image("c", root="/new")], (COMMITTED, self.OLD[:1])).is_undecided()

    def test_a_content_may_be_listed_twice(self):
        again = StoredRow(image("d", root="/new"), SHA)
        found = [self.NEW.image, again.image]
        ledger = self.ledger(found, (COMMITTED, [self.OLD[0], self.NEW, again]))
        assert states(ledger) == ["gone", "kept", "kept"]

    def test_rows_without_a_digest_are_of_no_content(self):
        old = StoredRow(image("a", root="/old"), None, "TooLarge")
        listed = StoredRow(image("b", root="/new"), None, "TooLarge")
        ledger = self.ledger([self.NEW.image, listed.image], (REJECTS, [old, listed]),
                             (COMMITTED, [self.NEW]))  # fmt: skip
        assert self.stray == {"/old": False}
        assert states(ledger) == ["kept"] * 3

    def test_absent_rows_are_told_by_root_in_order(self):
        rows = [of_root("/p", "/p/a"), of_root("/p", "/p/b"), of_root("/q", "/q/a")]
        ledger = self.ledger([], (COMMITTED, rows[::-1]), absent=("/q", "/p"))
        assert list(ledger.absent_rows().items()) == [("/p", 2), ("/q", 1)]

    def test_rejects_without_a_content_are_of_no_file_to_be_read(self):
        old = StoredRow(image("a", root="/old"), None, "TooLarge")
        ledger = self.ledger([image("c", root="/new")], (REJECTS, [old]))
        assert (self.stray, ledger.is_undecided()) == ({"/old": False}, False)

    def test_a_file_of_a_manifest_has_to_be_gone_itself(self, tmp_path):
        (tmp_path / "here.jpg").touch()
        rows = [
            StoredRow(of_root("/m.csv", f"{tmp_path}/{name}.jpg"), SHA) for name in ("here", "gone")
        ]
        rows.append(StoredRow(of_root("/t.tar", "tar:///t.tar!/a"), SHA))
        rows.append(StoredRow(of_root("/m.csv", "unknown://x"), SHA))
        # Nobody can be asked for a name that is too long.
        rows.append(StoredRow(of_root("/m.csv", f"{tmp_path}/{'x' * 300}"), SHA))
        absent = ["/m.csv", "/t.tar"]
        ledger = self.ledger([self.NEW.image], (COMMITTED, [*rows, self.NEW]), absent=absent)
        assert states(ledger) == ["kept", "gone", "gone", "kept", "kept", "kept"]

    def test_another_look_at_the_store_begins_anew(self):
        ledger = self.ledger([self.NEW.image], (COMMITTED, self.OLD))
        assert (ledger.fresh(), ledger.is_undecided()) == (1, True)
        ledger.empty()
        for name, rows in ((COMMITTED, self.OLD), ("part-d", [self.NEW])):
            ledger.add_part(name, rows, False, True)
        ledger.join(Rules())
        assert ledger.stray_roots() == {"/old": True}
        ledger.take_out_ghosts(["/old"])
        assert (ledger.fresh(), ledger.is_undecided()) == (0, False)
        assert states(ledger) == ["gone", "kept", "kept"]
        assert ledger.part_names() == (["part-d"], [COMMITTED])


class TestGoing:
    """Rows of /r, listed completely: how many leave, and that they may be kept."""

    def ledger(self, found, *parts):
        ledger = joined([*found, DONE], *parts)
        ledger.stray_roots()
        return ledger

    def test_rows_of_files_that_are_gone_are_counted_among_those_covered(self):
        rows = [StoredRow(image(name), name * 64) for name in "abc"]
        away = StoredRow(image("q", root="/q"), "e" * 64)
        ledger = self.ledger([image("a")], (COMMITTED, [*rows, away]))
        assert ledger.going() == (2, 3, 0)
        ledger.hold()
        assert states(ledger) == ["kept"] * 4
        assert ledger.part_names() == ([COMMITTED], [])

    def test_edited_moved_and_rejected_files_are_not(self):
        rows = [StoredRow(image(name), name * 64) for name in "abc"]
        moved = StoredRow(image("d"), "a" * 64)
        refused = StoredRow(image("e"), "5" * 64, "Truncated")
        found = [image("b", size=11), image("c", "tulip"), moved.image]
        ledger = self.ledger(found, (COMMITTED, [*rows, moved]), (REJECTS, [refused]))
        assert states(ledger) == ["gone", "stale", "changed", "kept", "gone"]
        assert ledger.going() == (0, 4, 0)

    def test_what_a_killed_run_left_is_no_row_of_the_store(self):
        ledger = self.ledger([], (LEFT, [A, image("b")]), (COMMITTED, [image("c")]))
        assert ledger.going() == (1, 1, 0)
        ledger.hold()
        assert states(ledger) == ["gone", "gone", "kept"]

    @pytest.mark.parametrize(("size", "doubtful"), [(10, 2), (11, 0), (None, 2)])
    def test_files_to_be_read_may_be_those_that_are_gone(self, size, doubtful):
        ledger = self.ledger([image("n", size=size)], (COMMITTED, [A, image("b")]))
        assert ledger.going() == (2, 2, doubtful)

    def test_what_is_listed_is_not_doubtful(self):
        found = [A, image("n")]
        ledger = self.ledger(found, (COMMITTED, [A, StoredRow(image("b", size=11), OTHER_SHA)]))
        assert ledger.going() == (1, 2, 0)

    def test_only_what_was_to_leave_is_held(self):
        rows = [A, image("b"), image("c")]
        ledger = self.ledger([image("a", size=11), image("b", "tulip")], (COMMITTED, rows))
        ledger.hold()
        assert states(ledger) == ["stale", "changed", "kept"]

    def test_what_a_killed_run_left_hides_no_reject(self):
        ledger = self.ledger([reject(A)], (LEFT, [A]))
        ledger.hold()
        assert list(ledger.found_rejects()) == [reject(A)]

    def test_a_listing_that_rejects_a_file_counts_and_is_put_off_likewise(self):
        ledger = self.ledger([reject(A)], (COMMITTED, [A]))
        assert ledger.going() == (1, 1, 0)
        ledger.hold()
        assert list(ledger.found_rejects()) == []
        assert (ledger.known(), ledger.fresh()) == (1, 0)

    def test_rows_that_are_held_are_not_those_of_absent_roots(self):
        ledger = joined([DONE], (COMMITTED, [of_root("/r/x"), of_root("/q", "/q/a")]))
        ledger.stray_roots()
        ledger.take_out_ghosts(["/r/x", "/q"])
        ledger.hold()
        assert ledger.absent_rows() == {"/q": 1}

    def test_nothing_is_stored(self):
        assert self.ledger([A]).going() == (0, 0, 0)


def test_a_run_relabels_and_trusts_what_it_knows_unless_told_otherwise():
    assert Rules() == (False, False, False, True, True)
