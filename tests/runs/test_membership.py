"""Which rows leave a store, and which stay; the network is the real one."""

import os
import shutil
from dataclasses import replace

import make_images
import pytest
from stores import cli, embed, photos, refusing, rejects, rows, scenes

from beam_flowers import files
from beam_flowers.backbones.resolve import resolve
from beam_flowers.store.commits import latest, versions
from beam_flowers.workflows.embed import RunOptions, embed_images


def told(sources, store, **options):
    """What a run came to and what it said."""
    said = []
    images = [str(source) for source in sources]
    network = resolve("efficientnet-lite0")
    summary = embed_images(images, str(store), network, RunOptions(**options), warn=said.append)
    return summary, said


def fresh_hash(tmp_path, *sources):
    """The dataset_hash of a new store of the same files."""
    return told(sources, tmp_path / "fresh")[0].dataset_hash


def uris(store):
    return {row["uri"] for row in rows(store)} | set(rejects(store))


def killed(*_):
    raise KeyboardInterrupt


class TestCoverage:
    def test_files_found_from_above_leave_with_a_listing_of_their_own_folder(self, work, tmp_path):
        gone = sorted((work / "images" / "roses").iterdir())[0]
        gone.unlink()
        embed(work / "images" / "roses", work / "store")
        assert str(gone) not in uris(work / "store")
        assert len(rows(work / "store")) == 9
        assert embed(work / "images", work / "store").dataset_hash == fresh_hash(
            tmp_path, work / "images"
        )

    @pytest.mark.slow
    def test_files_found_by_a_pattern_or_alone_leave_with_a_listing_from_above(self, work):
        extra = work / "images" / "extra"
        extra.mkdir()
        for name in ("a.jpg", "b.jpg"):
            (extra / name).write_bytes(make_images.jpeg(40 + ord(name[0]), 50, 8))
        embed(extra / "a*", work / "store")
        embed(extra / "b.jpg", work / "store")
        shutil.rmtree(extra)
        embed(work / "images", work / "store")
        assert not any("extra" in uri for uri in uris(work / "store"))

    def test_what_a_listing_passes_over_stays(self, work, tmp_path):
        elsewhere = photos(tmp_path / "elsewhere", 1)
        (work / "images" / "link").symlink_to(elsewhere / "daisy")
        shutil.copytree(elsewhere / "roses", work / "images" / ".hidden")
        for name in ("link", ".hidden"):
            embed(work / "images" / name, work / "store")
        before = {uri for uri in uris(work / "store") if "/link/" in uri or "/.hidden/" in uri}
        assert len(before) == 2
        embed(work / "images", work / "store")
        assert before < uris(work / "store")

    def test_a_folder_whose_name_begins_alike_stays(self, work):
        other = work / "images2"
        shutil.copytree(work / "images" / "daisy", other / "daisy")
        embed(other, work / "store")
        embed(work / "images", work / "store")
        assert len(rows(work / "store")) == 12


class TestAbsentRoots:
    @pytest.fixture
    def renamed(self, work):
        (work / "images" / "tulips" / "bad.jpg").write_bytes(make_images.jpeg()[:500])
        embed(work / "images", work / "store")
        return (work / "images").rename(work / "renamed")

    def test_a_renamed_root_leaves_no_ghosts(self, work, renamed, tmp_path):
        summary, said = told([renamed], work / "store")
        assert str(summary) == "embedded 0, reused 10, rejected 1, hidden 0, of 11"
        assert {uri.rpartition("/")[0].rpartition("/")[0] for uri in uris(work / "store")} == {
            str(renamed)
        }
        assert said == []
        assert summary.dataset_hash == fresh_hash(tmp_path, renamed)
        assert told([renamed], work / "store")[0] == summary

    def test_new_files_beside_are_counted_once(self, work, renamed, tmp_path):
        (renamed / "roses" / "new.jpg").write_bytes(make_images.jpeg(seed=3))
        summary, _ = told([renamed], work / "store")
        assert str(summary) == "embedded 1, reused 10, rejected 1, hidden 0, of 12"
        assert summary.dataset_hash == fresh_hash(tmp_path, renamed)

    def test_what_the_new_root_lacks_stays_and_is_counted(self, work, renamed):
        sorted((renamed / "roses").iterdir())[0].unlink()
        for _ in range(2):
            summary, (line,) = told([renamed], work / "store")
            assert summary.rows == 9
            assert line.startswith("the store keeps 1 image of folders that are not there any more")
            assert f"({work}/images)" in line
            assert f"`beam-flowers forget {work}/store --missing`" in line
        assert len(rows(work / "store")) == 10

    def test_a_run_that_was_killed_between_its_two_commits_is_finished_by_the_next(
        self, work, renamed, monkeypatch, tmp_path
    ):
        with monkeypatch.context() as patch:
            patch.setattr("beam_flowers.workflows.embed.TableRun._decide", killed)
            with pytest.raises(KeyboardInterrupt):
                told([renamed], work / "store")
        assert len(rows(work / "store")) == 20
        summary, _ = told([renamed], work / "store")
        assert len(rows(work / "store")) == 10
        assert summary.dataset_hash == fresh_hash(tmp_path, renamed)

    def test_copies_of_a_root_that_is_there_are_no_ghosts(self, work):
        shutil.copytree(work / "images", work / "copy")
        number = versions(str(work / "store"))[-1]
        assert told([work / "copy"], work / "store")[1] == []
        assert len(rows(work / "store")) == 20
        assert versions(str(work / "store"))[-1] == number + 1

    def test_files_of_a_manifest_that_is_gone_stay_while_they_are_there(self, work):
        manifest = work / "list.csv"
        image = sorted((work / "images" / "roses").iterdir())[0]
        shutil.copy(image, work / "alone.jpg")
        manifest.write_text("alone.jpg\n")
        embed(manifest, work / "store")
        manifest.unlink()
        _, (line,) = told([work / "images"], work / "store")
        assert str(manifest) in line
        assert str(work / "alone.jpg") in uris(work / "store")
        (work / "alone.jpg").unlink()
        assert told([work / "images"], work / "store")[1] == []
        assert str(work / "alone.jpg") not in uris(work / "store")


class TestForgetMissing:
    def forget(self, work, *flags):
        return cli("forget", work / "store", "--missing", *flags)

    def test_only_rows_whose_files_are_gone_leave(self, work, capsys, tmp_path):
        (work / "images" / "tulips" / "bad.jpg").write_bytes(make_images.jpeg()[:500])
        (work / "images" / "tulips" / "sound.jpg").write_bytes(make_images.jpeg()[:400])
        embed(work / "images", work / "store")
        (work / "images" / "tulips" / "bad.jpg").unlink()
        for path in (work / "images" / "roses").iterdir():
            path.unlink()
        assert self.forget(work, "--dry-run") == 0
        assert "would forget 2 rows and 1 reject of files" in capsys.readouterr().out
        assert len(uris(work / "store")) == 12
        assert self.forget(work) == 0
        assert "forgot 2 rows and 1 reject of files that are not" in capsys.readouterr().out
        assert uris(work / "store") == {str(p) for p in (work / "images").rglob("*") if p.is_file()}
        number = versions(str(work / "store"))
        assert self.forget(work) == 0
        assert "forgot 0 rows" in capsys.readouterr().out
        assert versions(str(work / "store")) == number
        summary = embed(work / "images", work / "store")
        assert summary.embedded == 0
        assert summary.dataset_hash == fresh_hash(tmp_path, work / "images")

    def test_it_takes_out_what_the_message_counted(self, work):
        (work / "images").rename(work / "renamed")
        sorted((work / "renamed" / "roses").iterdir())[0].unlink()
        assert len(told([work / "renamed"], work / "store")[1]) == 1
        assert self.forget(work) == 0
        assert len(rows(work / "store")) == 9
        assert latest(str(work / "store")).sections.popitem()[1].roots == (f"{work}/renamed",)
        assert told([work / "renamed"], work / "store")[1] == []

    def test_members_of_archives_leave_with_them(self, work):
        other = photos(work / "other", 1)
        for name in ("kept", "gone"):
            shutil.make_archive(str(work / name), "tar", other)
            embed(work / f"{name}.tar", work / "store")
        (work / "gone.tar").unlink()
        assert self.forget(work) == 0
        assert len(rows(work / "store")) == 15
        assert not any("gone.tar" in uri for uri in uris(work / "store"))

    @pytest.mark.parametrize("why", ["empty", "above is empty", "dangling", "file"])
    def test_what_may_be_an_unmounted_disk_ends_it(self, work, why, capsys):
        root = work / "images"
        if why == "above is empty":
            root = work / "disk"
            embed(shutil.copytree(work / "images", root / "deep" / "photos"), work / "store")
        before = uris(work / "store")
        if why in ("empty", "above is empty"):
            for path in root.iterdir():
                shutil.rmtree(path)
        else:
            root.rename(work / "moved")
            if why == "dangling":
                root.symlink_to(work / "nowhere")
            else:
                root.touch()
        code = 0 if why == "file" else 1
        assert self.forget(work, "--dry-run") == self.forget(work) == code
        if why != "file":
            assert uris(work / "store") == before
            message = capsys.readouterr().err
            assert "nobody can say whether" in message
            assert str(root) in message
        else:
            assert uris(work / "store") == set()

    def test_a_folder_that_may_not_be_entered_ends_it(self, work, monkeypatch, capsys):
        is_gone = files.is_gone
        closed = str(work / "images" / "roses")

        def refused(uri):
            if uri.startswith(closed):
                raise PermissionError(13, "Permission denied", uri)
            return is_gone(uri)

        monkeypatch.setattr(files, "is_gone", refused)
        shutil.rmtree(work / "images" / "daisy")
        assert self.forget(work) == 1
        assert "Permission denied" in capsys.readouterr().err
        assert len(uris(work / "store")) == 10

    def test_flags_may_stand_before_the_root(self, work, capsys):
        assert cli("forget", work / "store", "--dry-run", work / "images") == 0
        assert "would forget 10 rows" in capsys.readouterr().out

    @pytest.mark.parametrize("flags", [[], ["--missing", "images"], ["x", "--missing"]])
    def test_either_a_root_or_missing_is_named(self, work, flags, capsys):
        assert cli("forget", work / "store", *flags) == 1
        assert "a ROOT, a BACKBONE or --missing" in capsys.readouterr().err


class TestPrune:
    """`embed --prune`: the section holds exactly what is listed."""

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["list", "manifest", "glob", "folder"])
    def test_the_section_holds_exactly_the_listing(self, work, kind, monkeypatch):
        monkeypatch.chdir(work)
        embed(photos(work / "elsewhere", 1), work / "store")
        roses = sorted((work / "images" / "roses").iterdir())
        (work / "list").write_text("".join(f"{path}\n" for path in roses))
        (work / "list.csv").write_text("".join(f"{path},rose\n" for path in roses))
        (work / "images" / "roses" / "new.jpg").write_bytes(make_images.jpeg())
        images = {
            "list": ["--files-from", "list"],
            "manifest": ["list.csv"],
            "glob": ["images/r*s/*.jpg"],
            "folder": ["images/roses"],
        }[kind]
        new = {str(work / "images" / "roses" / "new.jpg")} if kind in ("glob", "folder") else set()
        assert cli("embed", *images, "--store", "store") == 0
        assert len(rows(work / "store")) == 15 + len(new)
        assert cli("embed", *images, "--store", "store", "--prune") == 0
        assert uris(work / "store") == {str(path) for path in roses} | new
        if kind == "manifest":
            assert {row["label"] for row in rows(work / "store")} == {"rose"}

    def test_another_backbone_keeps_its_rows(self, work):
        embed(work / "images", work / "store", "efficientnet-lite0")
        network = replace(resolve("efficientnet-lite0"), vectors="float16")
        embed_images([str(work / "images")], str(work / "store"), network)
        embed_images([str(work / "images" / "roses")], str(work / "store"), network, prune=True)
        held = latest(str(work / "store")).sections.values()
        assert sorted(sum(part.rows for part in section.rows) for section in held) == [2, 10]

    def test_a_listing_with_a_gap_takes_nothing_out(self, work, capsys):
        damaged = work / "damaged.tar"
        shutil.make_archive(str(damaged)[:-4], "tar", work / "images" / "roses")
        with damaged.open("r+b") as file:
            file.truncate(damaged.stat().st_size // 2)
        number = versions(str(work / "store"))
        assert cli("embed", damaged, "--store", work / "store", "--prune") == 1
        message = capsys.readouterr().err
        assert str(damaged) in message
        assert "leave --prune away" in message
        assert versions(str(work / "store")) == number


class TestNotSilentlyMuch:
    """Ten photographs of five labels; more than one row may not leave unasked."""

    @pytest.fixture(autouse=True)
    def few(self, monkeypatch):
        monkeypatch.setattr("beam_flowers.store.plan.FEW_ROWS", 1)

    def unmount(self, work, *names):
        """Leaves an empty folder where a disk was, and a new file beside."""
        for name in names:
            (work / "images" / name).rename(work / name)
            (work / "images" / name).mkdir()

    def embed(self, work, *flags, images="images"):
        return cli("embed", work / images, "--store", work / "store", *flags)

    def test_nothing_leaves_until_it_is_allowed(self, work, capsys, tmp_path):
        before = uris(work / "store")
        self.unmount(work, "daisy", "roses")
        new = work / "images" / "tulips" / "new.jpg"
        new.write_bytes(make_images.jpeg())
        (work / "images" / "tulips" / "bad.jpg").write_bytes(make_images.jpeg()[:400])
        for _ in range(2):
            assert self.embed(work) == 4
            message = capsys.readouterr().err
            assert "4 of 10 stored images are not there any more" in message
            assert "--max-removed-fraction 1" in message
            assert uris(work / "store") == before | {str(new), str(new.with_name("bad.jpg"))}
        number = versions(str(work / "store"))
        assert self.embed(work, "--max-removed-fraction", "0.3") == 4
        assert versions(str(work / "store")) == number
        assert self.embed(work, "--max-removed-fraction", "0.4") == 0
        assert len(rows(work / "store")) == 7
        store = latest(str(work / "store")).sections.popitem()[1]
        assert store.dataset_hash == fresh_hash(tmp_path, work / "images")

    def test_when_the_disk_is_there_again_all_is_as_it_was(self, work):
        self.unmount(work, "daisy", "roses")
        assert self.embed(work) == 4
        for name in ("daisy", "roses"):
            (work / "images" / name).rmdir()
            (work / name).rename(work / "images" / name)
        assert self.embed(work) == 0
        assert embed(work / "images", work / "store").reused == 10

    @pytest.mark.slow
    def test_what_was_added_since_allows_no_more(self, work, capsys):
        self.unmount(work, "daisy", "roses")
        scenes(work / "images" / "tulips" / "new", 12)
        other = photos(work / "other", 2)
        for _ in range(2):
            assert self.embed(work) == 4
            assert "4 of 10 stored images" in capsys.readouterr().err
            # Another listing has its own share.
            (sorted(other.glob("*/*"))[0]).unlink()
            assert self.embed(work, images="other") == 0
        assert self.embed(work, "--max-removed-fraction", "1") == 0
        assert "held" not in latest(str(work / "store")).sections.popitem()[1].about

    def test_a_share_of_a_quarter_may_leave(self, work):
        self.unmount(work, "daisy")
        assert self.embed(work) == 0
        assert len(rows(work / "store")) == 8

    @pytest.mark.slow
    @pytest.mark.parametrize("extra", [0, 1, 3])
    def test_moved_and_edited_files_are_none_that_are_gone(self, work, extra, tmp_path, capsys):
        for name in ("daisy", "roses", "tulips"):
            (work / "images" / name).rename(work / "images" / f"{name}2")
        for path in (work / "images" / "sunflowers").iterdir():
            path.write_bytes(make_images.jpeg(seed=len(path.name)))
        moved = sorted((work / "images").glob("*2/*"))
        for path in moved[:extra]:
            path.unlink()
        assert self.embed(work) == (4 if extra == 3 else 0)
        section = latest(str(work / "store")).sections.popitem()[1]
        assert (section.dataset_hash == fresh_hash(tmp_path, work / "images")) == (extra < 3)
        err = capsys.readouterr().err
        assert ("3 of 10 stored images are not there" in err) == (extra == 3)

    def test_files_of_a_manifest_that_are_not_there_count_too(self, work, capsys):
        names = sorted((work / "images").glob("*/*"))
        (work / "list.csv").write_text("".join(f"{name},flower\n" for name in names))
        assert self.embed(work, images="list.csv") == 0
        self.unmount(work, "daisy", "roses")
        for _ in range(2):
            assert self.embed(work, images="list.csv") == 4
            assert "4 of 10 stored images" in capsys.readouterr().err
            assert (len(rows(work / "store")), len(rejects(work / "store"))) == (10, 0)
        assert self.embed(work, "--max-removed-fraction", "1", images="list.csv") == 0
        assert (len(rows(work / "store")), len(rejects(work / "store"))) == (6, 4)

    def test_prune_takes_no_more(self, work, capsys):
        images = "images/roses"
        assert self.embed(work, "--prune", images=images) == 4
        assert "8 of 10 stored images" in capsys.readouterr().err
        assert self.embed(work, "--prune", "--max-removed-fraction", "1", images=images) == 0
        assert len(rows(work / "store")) == 2

    def test_verify_does_not_read_again_to_decide(self, work):
        (work / "images" / "roses").rename(work / "images" / "roses2")
        (work / "images" / "daisy").rename(work / "images" / "daisy2")
        summary, said = told([work / "images"], work / "store", verify=True)
        assert (summary.rows, summary.held, said) == (10, 0, [])
        assert len(rows(work / "store")) == 10

    def test_a_fraction_is_a_share(self, work, capsys):
        assert self.embed(work, "--max-removed-fraction", "25") == 1
        assert "a share from 0 to 1, not 25.0" in capsys.readouterr().err


class TestReadErrors:
    """A file that could not be read is no verdict on what it holds."""

    @pytest.fixture
    def locked(self, work, monkeypatch):
        """A function that makes one file unreadable, and one that makes it readable again."""
        patch = pytest.MonkeyPatch()
        yield lambda path: patch.setattr(files, "read_bytes", refusing(str(path))), patch.undo
        patch.undo()

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["sound.jpg", "bad.jpg"])
    def test_it_is_tried_again_by_every_run(self, work, locked, name, tmp_path):
        lock, unlock = locked
        path = work / "images" / "tulips" / name
        path.write_bytes(make_images.jpeg()[: 500 if name == "bad.jpg" else None])
        lock(path)
        for _ in range(2):
            assert embed(work / "images", work / "store").rejected == 1
            assert rejects(work / "store") == {str(path): "PermissionError"}
        unlock()
        summary = embed(work / "images", work / "store")
        assert summary.rejected == (name == "bad.jpg")
        assert rejects(work / "store") == ({str(path): "Truncated"} if summary.rejected else {})
        assert summary.dataset_hash == fresh_hash(tmp_path, work / "images")
        number = versions(str(work / "store"))
        embed(work / "images", work / "store")
        assert versions(str(work / "store")) == number

    def test_verify_keeps_the_row_of_a_file_that_looks_unchanged(self, work, locked):
        lock, _ = locked
        row = next(row for row in rows(work / "store") if "/roses/" in row["uri"])
        lock(row["uri"])
        before = latest(str(work / "store")).sections.popitem()[1].dataset_hash
        summary, (line,) = told([work / "images"], work / "store", verify=True)
        assert line.startswith("1 file could not be read (PermissionError 1); what is stored of ")
        assert (summary.reused, summary.rejected) == (10, 0)
        assert summary.unread == {"PermissionError": 1}
        assert summary.dataset_hash == before
        assert next(r for r in rows(work / "store") if r["uri"] == row["uri"]) == row

    def test_verify_keeps_the_verdict_on_it_likewise(self, work, locked):
        lock, _ = locked
        bad = work / "images" / "tulips" / "bad.jpg"
        bad.write_bytes(make_images.jpeg()[:500])
        embed(work / "images", work / "store")
        lock(bad)
        for options in ({"verify": True}, {"retry_rejects": True}):
            summary, (line,) = told([work / "images"], work / "store", **options)
            assert "1 file could not be read" in line
            assert summary.reasons == {"Truncated": 1}
            assert (summary.reused, summary.rejected, summary.failures) == (10, 1, 1)
            assert rejects(work / "store") == {str(bad): "Truncated"}

    def test_a_file_that_changed_and_cannot_be_read_has_no_row(self, work, locked):
        lock, unlock = locked
        path = sorted((work / "images" / "roses").iterdir())[0]
        path.write_bytes(make_images.jpeg())
        lock(path)
        summary, said = told([work / "images"], work / "store", verify=True)
        assert (summary.rows, said) == (9, [])
        assert rejects(work / "store") == {str(path): "PermissionError"}
        unlock()
        assert embed(work / "images", work / "store").rows == 10

    def test_scores_keep_theirs_too(self, work, locked, tmp_path):
        lock, _ = locked
        assert cli("train", work / "store", "--model", tmp_path / "model") == 0
        table = tmp_path / "table"
        score = ["score", work / "images", "--model", tmp_path / "model", "--output", table]
        assert cli(*score) == 0
        row = rows(table)[3]
        lock(row["uri"])
        assert cli(*score, "--verify") == 0
        assert (rows(table)[3], len(rows(table))) == (row, 10)


class TestScoresOfAnEditedImage:
    @pytest.mark.slow
    @pytest.mark.parametrize("images", ["store", "images"])
    def test_it_is_scored_again_although_size_and_time_are_the_same(self, work, tmp_path, images):
        assert cli("train", work / "store", "--model", tmp_path / "model") == 0
        score = ["score", work / images, "--model", tmp_path / "model", "--output"]
        score += [tmp_path / "table"]
        if images == "images":
            score += ["--store", work / "store"]
        assert cli(*score) == 0
        before = {row["uri"]: row for row in rows(tmp_path / "table")}
        path = sorted((work / "images" / "roses").iterdir())[0]
        status = path.stat()
        other = sorted((work / "images" / "daisy").iterdir())[0].read_bytes()
        data = other if len(other) <= status.st_size else make_images.jpeg()
        path.write_bytes(data + bytes(status.st_size - len(data)))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert cli("embed", work / "images", "--store", work / "store", "--verify") == 0
        assert cli(*score) == 0
        after = {row["uri"]: row for row in rows(tmp_path / "table")}
        stored = {row["uri"]: row["sha256"] for row in rows(work / "store")}
        assert {uri: row["sha256"] for uri, row in after.items()} == stored
        changed = {uri for uri, row in after.items() if row != before[uri]}
        assert changed == {str(path)}
        assert after[str(path)]["top_k"] != before[str(path)]["top_k"]
