"""Manifests: what they say, which one is read, and where the parts lie that they name."""

import json
import shutil
from pathlib import Path

import pytest

from beam_flowers.errors import PartLostError, StoreError, StoreFieldError
from beam_flowers.store import commits
from beam_flowers.store.commits import (
    Manifest,
    Section,
    commit,
    decode_manifest,
    encode_manifest,
    encoding_in,
    latest,
    open_table,
    publish,
    read_manifest,
    read_steadily,
    require_outer_table,
    require_table_place,
    versions,
)
from beam_flowers.store.names import AUGMENTED, COMMITS, REJECTS, RESERVED, SCORED, WORK
from beam_flowers.store.parts import Part, Place

FINGERPRINT = "cd" * 32
KEY = "backbone=tiny-cdcdcdcd"


def part(number, prefix="part", digest=0, rows=1):
    return Part(f"{prefix}-{number:024x}.parquet", rows, f"{digest:064x}", int(prefix != "part"))


ROWS = (part(1, digest=2**256 - 1, rows=4), part(2, digest=2**255 + 3, rows=5))
BAD = (part(1, "rejects", 2**256 - 2, 2), part(2, "rejects", 2**255 + 5, 1))
SECTION = Section(FINGERPRINT, {"name": "tiny", "label": "玫瑰"}, (*ROWS, *BAD), ("/a", "/b"))
OTHER = Section("ef" * 32, {})
MANIFEST = Manifest(3, "run", {"backbone=z-efefefef": OTHER, KEY: SECTION}, {"embedded": 9})


class TestWhatAManifestSays:
    def test_rows_and_rejects_are_told_apart(self):
        assert (SECTION.rows, SECTION.rejects) == ([*ROWS], [*BAD])

    def test_the_hash_of_a_dataset_adds_up_the_digests_of_rows_and_of_rejects(self):
        one = Section(FINGERPRINT, {}, (part(9, digest=2**255 + 2), part(9, "rejects", 2**255 + 3)))
        assert SECTION.dataset_hash == one.dataset_hash
        assert (
            one.dataset_hash == "6ac0697e1977750fb84a7a822607a094cc7637b572b6775e5f41baa33a8a14f9"
        )
        assert (
            OTHER.dataset_hash == "45725791c47b32618cc57b88343e2bceec3b0a01b83bc97d144a2cbc11a20c3d"
        )

    def test_the_document(self):
        document = json.loads(encode_manifest(MANIFEST))
        assert document.pop("layout") > 0
        assert list(document) == ["version", "run", "counts", "sections"]
        sections = document.pop("sections")
        assert document == {"version": 3, "run": "run", "counts": {"embedded": 9}}
        assert list(sections) == [KEY, "backbone=z-efefefef"]
        assert sections[KEY] == {
            "fingerprint": FINGERPRINT,
            "about": {"name": "tiny", "label": "玫瑰"},
            "dataset_hash": SECTION.dataset_hash,
            "rows": 9,
            "rejects": 3,
            "roots": ["/a", "/b"],
            "parts": [
                {"name": p.name, "rows": p.rows, "digest": p.digest, "failures": p.failures}
                for p in SECTION.parts
            ],
        }

    def test_people_can_read_it(self):
        text = encode_manifest(MANIFEST).decode()
        assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False)

    def test_it_comes_back_as_it_was(self):
        assert decode_manifest(encode_manifest(MANIFEST), "uri") == MANIFEST

    def test_a_manifest_of_the_first_layout_is_read(self):
        section = {"fingerprint": FINGERPRINT, "about": {}, "parts": [], "roots": []}
        document = {"layout": 1, "version": 2, "run": "r", "counts": {}, "sections": {KEY: section}}
        manifest = decode_manifest(json.dumps(document).encode(), "uri")
        assert manifest == Manifest(2, "r", {KEY: Section(FINGERPRINT, {})}, layout=1)

    def test_names_and_places_of_the_parts(self):
        assert MANIFEST.part_names("/s") == {
            Place("/s", "backbone=z-efefefef", "ef" * 32): set(),
            Place("/s", KEY, FINGERPRINT): {p.name for p in SECTION.parts},
        }

    def test_sections_with_their_places_for_a_run(self):
        places = dict(MANIFEST.places("/s", "ab" * 8))
        assert places[Place("/s", KEY, FINGERPRINT, "ab" * 8)] == SECTION
        assert len(places) == len(MANIFEST.sections)

    @pytest.mark.parametrize(
        ("about", "encoding"), [({}, "split"), ({"encoding": "plain"}, "plain")]
    )
    def test_the_encoding_of_vectors(self, about, encoding):
        assert encoding_in(Section(FINGERPRINT, about)) == encoding


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(
            b"{", r"^s/1\.json is damaged \(Input data was trunc.*delete it to fall", id="cut-short"
        ),
        pytest.param(b"\xff", r"is damaged \(JSON is malformed", id="not-text"),
        pytest.param(b"{}", r"is damaged \(layout: Object missing", id="without-a-layout"),
        pytest.param(b'{"x":' + b"[" * 200_000, r"is damaged \(maximum recur", id="too-deep"),
        pytest.param(b"[]", r"is damaged \(Expected `object`", id="of-another-type"),
        pytest.param(
            b'{"layout": 99}',
            r"^s/1\.json has layout 99, .*; update beam-flowers",
            id="of-another-layout",
        ),
        pytest.param(
            encode_manifest(MANIFEST).replace(b'"failures"', b'"failed"'),
            r"is damaged \(sections.*parts\[0\]: .*unknown field `failed`\); delete",
            id="with-a-foreign-field",
        ),
    ],
)
def test_what_is_no_manifest_is_named(data, message):
    with pytest.raises(StoreError, match=message):
        decode_manifest(data, "s/1.json")


def changed(*path, value):
    """The manifest's document with another value at a path."""
    document = json.loads(encode_manifest(MANIFEST))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(document).encode()


PARTS = ("sections", KEY, "parts")


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("version",), 0, "version"),
        (("version",), -1, "version"),
        (("version",), "3", "version"),
        (("version",), 3.0, "version"),
        (("version",), True, "version"),
        (("version",), 2**70, "version"),
        (("run",), None, "run"),
        (("counts",), [], "counts"),
        (("made",), [], "made"),
        (("made",), {"time": "now"}, "made.time"),
        (("made",), {"time": 1e300}, "made.time"),
        (("made",), {"time": 10**4000}, "made.time"),
        (("made",), {"options": 5}, "made.options"),
        (("sections", KEY, "about"), {"name": 7}, f"sections['{KEY}'].about.name"),
        (("sections", KEY, "lost"), {}, f"sections['{KEY}'].lost"),
        (("sections", KEY, "fingerprint"), FINGERPRINT[:-1], f"sections['{KEY}'].fingerprint"),
        (("sections", KEY, "fingerprint"), 7, f"sections['{KEY}'].fingerprint"),
        (("sections", KEY, "about"), [], f"sections['{KEY}'].about"),
        (("sections", KEY, "roots"), ["/a", 7], f"sections['{KEY}'].roots[1]"),
        ((*PARTS, 2, "name"), "../x.parquet", f"sections['{KEY}'].parts[2].name"),
        ((*PARTS, 0, "name"), 7, f"sections['{KEY}'].parts[0].name"),
        ((*PARTS, 1, "digest"), "ff", f"sections['{KEY}'].parts[1].digest"),
        ((*PARTS, 1, "digest"), None, f"sections['{KEY}'].parts[1].digest"),
        ((*PARTS, 3, "rows"), -1, f"sections['{KEY}'].parts[3].rows"),
        ((*PARTS, 3, "rows"), "1", f"sections['{KEY}'].parts[3].rows"),
        ((*PARTS, 3, "failures"), 1.5, f"sections['{KEY}'].parts[3].failures"),
    ],
)
def test_a_field_that_is_never_written_is_named(path, value, field):
    with pytest.raises(StoreFieldError) as refusal:
        decode_manifest(changed(*path, value=value), "s/1.json")
    assert (refusal.value.file, refusal.value.field) == ("s/1.json", field)
    assert f"{field}: " in str(refusal.value) or "Nothing was touched" in str(refusal.value)


@pytest.mark.parametrize("layout", [5, 99, 2**70])
def test_a_newer_layout_is_no_damage_whatever_else_is_new(layout):
    document = json.loads(changed("layout", value=layout))
    document |= {"sections": "elsewhere", "version": None}
    with pytest.raises(StoreError, match=r"s/1\.json has layout .* reads 1 to 4: .* update"):
        decode_manifest(json.dumps(document).encode(), "s/1.json")


@pytest.mark.parametrize("layout", [0, -1, "2", None, 4.5])
def test_what_no_program_has_numbered_so_is_damaged(layout):
    with pytest.raises(StoreFieldError, match=r"s/1\.json is damaged \(layout: Expected"):
        decode_manifest(changed("layout", value=layout), "s/1.json")


def test_numbers_of_nothing_are_numbers():
    data = changed(*PARTS, 0, "rows", value=0)
    assert decode_manifest(data, "s/1.json").sections[KEY].parts[0].rows == 0


def test_sections_that_are_no_mapping_are_damage():
    with pytest.raises(StoreError, match=r"s/1\.json is damaged \(sections: "):
        decode_manifest(changed("sections", value=[]), "s/1.json")


def test_a_key_that_is_no_section_is_named():
    document = json.loads(encode_manifest(MANIFEST))
    document["sections"]["../up"] = document["sections"].pop(KEY)
    with pytest.raises(StoreError, match=r"s/1\.json: a key of sections is '\.\./up'"):
        decode_manifest(json.dumps(document).encode(), "s/1.json")


class TestVersions:
    def test_the_newest_is_read(self, tmp_path):
        root = str(tmp_path)
        numbers = [5, 20_000_000, 2, *range(20, 8, -1), 100_000_000]
        for version in numbers:
            assert commit(root, Manifest(version, f"run{version}"))
        for name in ("notes.txt", ".00000031.json", "x.json"):
            (tmp_path / "__commits" / name).write_text("{}")
        assert (tmp_path / "__commits" / "00000002.json").exists()
        assert versions(root) == sorted(numbers)
        assert latest(root).run == "run100000000"
        assert read_manifest(root, 9).run == "run9"
        assert open_table(root) == latest(root)

    def test_there_may_be_none(self, tmp_path):
        assert versions(str(tmp_path / "absent")) == []
        assert latest(str(tmp_path / "absent")) == Manifest(0, "", {}, {})
        publish(str(tmp_path / "absent"))
        for root in (tmp_path, tmp_path / "absent"):
            with pytest.raises(StoreError, match=f"no store at '{root}'; .* --store {root}` makes"):
                open_table(str(root))

    def test_a_manifest_under_another_name_is_refused(self, tmp_path):
        commit(str(tmp_path), Manifest(1, "one"))
        folder = tmp_path / "__commits"
        shutil.copy(folder / "00000001.json", folder / "00000002.json")
        with pytest.raises(StoreError, match=r"00000002\.json: version is 1, not 2 as the file's"):
            latest(str(tmp_path))

    def test_the_newest_may_be_another_by_the_time_it_is_read(self, tmp_path, monkeypatch):
        root, read = str(tmp_path), commits.read_manifest
        commit(root, Manifest(1, "one"))

        def read_late(root, version):
            if version == 1:
                commit(root, Manifest(2, "two"))
                (tmp_path / "__commits" / "00000001.json").unlink()
            return read(root, version)

        monkeypatch.setattr(commits, "read_manifest", read_late)
        assert latest(root).run == "two"

    @pytest.mark.timeout(10)
    def test_a_newest_that_cannot_be_found_is_an_error(self, tmp_path):
        for version in (1, 2):
            commit(str(tmp_path), Manifest(version, "one"))
        (tmp_path / "__commits" / "00000003.json").symlink_to("nowhere")
        with pytest.raises(FileNotFoundError):
            latest(str(tmp_path))

    def test_of_two_writers_one_is_first(self, tmp_path):
        root = str(tmp_path / "store")
        assert commit(root, Manifest(1, "one"))
        assert not commit(root, Manifest(1, "two"))
        assert commit(root, Manifest(1, "one"))
        assert latest(root).run == "one"

    @pytest.mark.parametrize("newer", [True, False])
    def test_who_loses_a_part_reads_a_newer_version_if_there_is_one(self, tmp_path, newer):
        root = str(tmp_path)
        commit(root, Manifest(1, "one"))

        def read(manifest):
            if newer and manifest.version == 1:
                commit(root, Manifest(2, "two"))
            if manifest.version < 2:
                raise PartLostError("gone")
            return manifest.run

        if newer:
            assert read_steadily(lambda: latest(root), read) == "two"
        else:
            with pytest.raises(PartLostError, match="gone"):
                read_steadily(lambda: latest(root), read)


class TestPlacesForATable:
    def test_nothing_and_an_empty_folder_become_one(self, tmp_path):
        require_table_place(str(tmp_path / "absent"))
        require_table_place(str(tmp_path))

    def test_so_does_what_a_killed_run_began(self, tmp_path):
        (tmp_path / "__work").mkdir()
        require_table_place(str(tmp_path))

    def test_a_table_may_hold_other_things(self, tmp_path):
        (tmp_path / "__commits").mkdir()
        (tmp_path / "notes.txt").write_text("mine")
        require_table_place(str(tmp_path))

    def test_a_file_does_not(self, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(StoreError, match="file' is a file; a store is a folder: give another"):
            require_table_place(str(tmp_path / "file"))

    def test_nor_a_folder_of_other_things(self, tmp_path):
        (tmp_path / "__work").mkdir()
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(
            StoreError, match=r"holds other things \('notes\.txt'\) and is no store"
        ):
            require_table_place(str(tmp_path))

    def test_folders_are_named_as_readers_expect(self):
        named = (AUGMENTED, SCORED, COMMITS, REJECTS, WORK)
        assert named == ("__augmented", "__scored", "__commits", "__rejects", "__work")

    @pytest.mark.parametrize("name", RESERVED)
    def test_a_folder_of_its_own_is_no_link(self, tmp_path, name):
        table, other = tmp_path / "table", tmp_path / "other"
        commit(str(table), Manifest(1, "one"))
        other.mkdir()
        if name == COMMITS:
            (table / name).rename(other / "moved")
        (table / name).symlink_to(other)
        with pytest.raises(StoreError, match=f"{table / name} is a link, .* Nothing was touched"):
            versions(str(table))
        # Also where it is named itself.
        with pytest.raises(StoreError, match=f"{table / name} is a link"):
            versions(str(table / name))

    def test_the_table_itself_may_be_a_link(self, tmp_path):
        commit(str(tmp_path / "table"), Manifest(1, "one"))
        (tmp_path / "link").symlink_to("table")
        root = str(tmp_path / "link")
        assert versions(root) == [1]
        scores = {"": Section(FINGERPRINT, {}, (part(1),))}
        assert commit(root, Manifest(2, "two", scores))
        work = Path(Place(root, "", FINGERPRINT).work(part(1).name))
        work.parent.mkdir(parents=True)
        work.write_bytes(b"rows")
        publish(root)
        assert (tmp_path / "table" / part(1).name).exists()

    @pytest.mark.parametrize("name", RESERVED)
    def test_a_user_gives_it_another_name(self, name):
        with pytest.raises(StoreError, match=f"^/s/{name}: a store uses the name {name} for itsel"):
            require_outer_table(f"/s/{name}")
        require_outer_table(f"/{name}/s")
        require_outer_table(f"/s/{name}2")


class Table:
    """A table in a folder, of parts that are files of any content."""

    def __init__(self, root):
        self.place = Place(str(root), KEY, FINGERPRINT)
        self.root = str(root)

    def commit(self, *parts, version):
        for p in parts:
            if not Path(self.place.published(p.name)).exists():
                path = Path(self.place.work(p.name))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(p.name)
        section = Section(FINGERPRINT, {}, parts)
        assert commit(self.root, Manifest(version, f"run{version}", {KEY: section}))

    def published(self):
        found = [part(n, prefix) for n in range(12) for prefix in ("part", "rejects")]
        return [p for p in found if Path(self.place.published(p.name)).exists()]

    def unpublished(self):
        return sorted(path.name for path in Path(self.root, "__work").rglob("*.parquet"))


@pytest.fixture
def table(tmp_path):
    return Table(tmp_path / "store")


class TestPublishing:
    def test_parts_come_to_where_plain_readers_look(self, table):
        table.commit(part(1), part(2), part(3, "rejects"), version=1)
        publish(table.root)
        assert table.published() == [part(1), part(2), part(3, "rejects")]
        assert table.unpublished() == []
        assert Path(table.root, KEY, part(1).name).read_text() == part(1).name
        assert Path(table.root, "__rejects", KEY, part(3, "rejects").name).exists()
        publish(table.root)
        assert table.published() == [part(1), part(2), part(3, "rejects")]

    def test_what_was_replaced_goes(self, table):
        table.commit(part(1), part(2), version=1)
        publish(table.root)
        table.commit(part(2), part(3), version=2)
        publish(table.root)
        assert table.published() == [part(2), part(3)]

    def test_a_section_that_was_dropped_goes(self, table):
        table.commit(part(1), version=1)
        publish(table.root)
        commit(table.root, Manifest(2, "run2"))
        publish(table.root)
        assert table.published() == []

    def test_what_was_never_published_and_is_replaced_goes_too(self, table):
        table.commit(part(1), version=1)
        table.commit(part(2), version=2)
        publish(table.root)
        assert table.published() == [part(2)]
        assert table.unpublished() == []

    def test_a_section_that_never_came_to_lie_anywhere_is_passed_over(self, table):
        table.commit(part(1), version=1)
        shutil.rmtree(Path(table.root, "__work"))
        commit(table.root, Manifest(2, "run2"))
        publish(table.root)
        assert table.published() == []

    def test_what_no_commit_names_stays(self, table):
        table.commit(part(1), version=1)
        for other in (table.place.work(part(7).name), table.place.published(part(8).name)):
            Path(other).parent.mkdir(parents=True, exist_ok=True)
            Path(other).write_text("mine")
        publish(table.root)
        assert table.published() == [part(1), part(8)]
        assert table.unpublished() == [part(7).name]

    def test_eight_versions_are_looked_back_upon(self, table):
        for version in range(1, 11):
            table.commit(part(version), version=version)
        publish(table.root)
        assert table.published() == [part(10)]
        assert table.unpublished() == [part(1).name]

    def test_a_part_that_is_lost_is_left_to_the_next_plan(self, table):
        table.commit(part(1), part(2), version=1)
        Path(table.place.work(part(1).name)).unlink()
        publish(table.root)
        assert table.published() == [part(2)]

    def test_the_record_of_an_old_version_may_go_meanwhile(self, table, monkeypatch):
        for number in (1, 2, 3):
            table.commit(part(number), version=number)
        # As if it had been there when the versions were looked up.
        Path(table.root, "__commits", "00000001.json").unlink()
        look = commits.versions
        monkeypatch.setattr(commits, "versions", lambda root: [1, *look(root)])
        publish(table.root)
        assert table.published() == [part(3)]

    def test_a_manifest_that_is_refused_keeps_all_as_it_was(self, table):
        table.commit(part(1), version=1)
        publish(table.root)
        table.commit(part(2), version=2)
        Path(table.root, "__commits", "00000001.json").write_text("[]")
        with pytest.raises(StoreError, match=r"00000001\.json is damaged"):
            publish(table.root)
        assert (table.published(), table.unpublished()) == ([part(1)], [part(2).name])

    @pytest.mark.parametrize("kind", ["part", "rejects"])
    @pytest.mark.parametrize("version", [1, 2])
    @pytest.mark.parametrize("locate", ["published", "work"])
    def test_no_part_goes_through_a_link(self, table, tmp_path, kind, version, locate):
        of = {1: part(1), 2: part(2)} | {version: part(version, kind)}
        for number in (1, 2):
            table.commit(of[number], version=number)
        other = tmp_path / "other"
        folder = Path(getattr(table.place, locate)(of[version].name)).parent
        if folder.exists():
            folder.rename(other)
        else:
            other.mkdir()
        folder.parent.mkdir(exist_ok=True)
        folder.symlink_to(other)
        with pytest.raises(StoreError, match=f"{folder} is a link"):
            publish(table.root)

    def test_another_publisher_may_be_faster(self, table, monkeypatch):
        table.commit(part(1), version=1)
        table.commit(part(2), version=2)
        publish(table.root)
        # As if it had moved and deleted them since they were seen.
        monkeypatch.setattr(commits, "_present", lambda locate, names: sorted(names))
        publish(table.root)
        assert table.published() == [part(2)]

    def test_a_version_that_came_meanwhile_is_published_as_well(self, table, monkeypatch):
        table.commit(part(1), version=1)
        move = commits._move_parts

        def move_slowly(place, names):
            move(place, names)
            if latest(table.root).version == 1:
                table.commit(part(2), version=2)

        monkeypatch.setattr(commits, "_move_parts", move_slowly)
        publish(table.root)
        assert table.published() == [part(2)]
