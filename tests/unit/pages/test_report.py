"""The report: one file, right numbers, real images, and no name that becomes markup."""

import base64
import hashlib
import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import make_images
import numpy as np
import pytest
from memory_files import OBJECTS
from PIL import Image
from report_cases import HOSTILE, LABELS, image_path, make_model, make_scores, make_store
from stores import cli

from beam_flowers.errors import InputError, InputFieldError, StoreError
from beam_flowers.pages.charts import histogram
from beam_flowers.pages.model_sections import MOST_LABELS, confusion
from beam_flowers.pages.score_sections import threshold
from beam_flowers.pages.store_sections import principal_plane, sample_rows, thinned
from beam_flowers.pages.thumbnails import read_thumbnail, shrink
from beam_flowers.scoring.read_table import read_scores
from beam_flowers.workflows.evaluate import EvaluationJob, evaluate_model
from beam_flowers.workflows.report import ReportJob, write_report

pytest.importorskip("vl_convert", reason="the report's extra is not installed")


class Reader(HTMLParser):
    """What a browser would see of a page: elements, texts and scripts."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.scripts, self.texts, self._script = [], [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._script = tag == "script"

    def handle_endtag(self, tag):
        self._script = False

    def handle_data(self, data):
        (self.scripts if self._script else self.texts).append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    @property
    def data(self):
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store, a model and a table of scores; one image is gone, one changed, one broken."""
    base = tmp_path_factory.mktemp("report")
    make_store(base)
    make_model(base)
    make_scores(base)
    image_path(base, 10).unlink()
    image_path(base, 11).write_bytes(make_images.jpeg(seed=999))
    return base


def report(folder, source, **options):
    done = write_report(ReportJob(str(folder / source), str(folder / "r.html"), **options))
    html = (folder / "r.html").read_text("utf-8")
    assert html == done.html
    return Reader(html), done


@pytest.fixture(scope="module")
def pages(folder):
    """A page of each kind with what was written, by its source."""
    store, steps = str(folder / "store"), str(folder / "steps")
    return {
        "model": report(folder, "model", store=store, summaries_dir=steps),
        "store": report(folder, "store"),
        "scores.csv": report(folder, "scores.csv", store=store),
    }


SOURCES = ("model", "store", "scores.csv")


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_a_page_fetches_nothing_and_runs_one_script(pages, source):
    page, _ = pages[source]
    fetched = [
        (tag, name, value)
        for tag, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "data", "action") and not value.startswith("#")
    ]
    assert fetched == [("link", "href", "data:,")]
    assert [tag for tag, _ in page.elements].count("script") == len(page.scripts) == 2
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv"))
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


@pytest.mark.parametrize("source", SOURCES)
def test_names_and_labels_stay_text(pages, source):
    page, _ = pages[source]
    assert not [a for _, a in page.elements if any(n.startswith("on") for n in a)]
    assert "alert(1)" not in page.scripts[1]
    for label in LABELS:
        assert " ".join(label.split()) in page.text
    assert "49" not in re.findall(r"玫瑰 (\S+)", page.text)
    names = {p["name"] for p in page.data["images"]}
    assert "script>/new\nline.jpg" in names
    hrefs = [p["href"] for p in page.data["images"]]
    assert all(h.startswith("file:///") and not set('<>"#?\n ') & set(h) for h in hrefs)


def test_a_model_page_has_the_numbers_of_evaluate(folder, pages):
    page, _ = pages["model"]
    store, out = str(folder / "store"), str(folder / "evaluation")
    found = evaluate_model(EvaluationJob(store, str(folder / "model"), out)).report
    accuracy, cards = found["accuracy"], page.data["sections"]["mistakes"]["cards"]
    assert f"{accuracy['value']:.1%}".replace("%", "\xa0%") in page.text.replace(" %", "\xa0%")
    wrong = [row["uri"] for row in found["misclassified"]["rows"]]
    assert len(wrong) > 5
    assert [page.data["images"][n]["uri"] for n, _, _ in cards] == wrong
    counted = [a["aria-label"] for t, a in page.elements if "data-cell" in a]
    matrix = found["confusion"]["matrix"]
    assert len(counted) == np.count_nonzero(matrix)
    assert f"{LABELS[1]}, predicted {LABELS[1]}: {matrix[0][0]} images" in counted
    wrong_ones = np.array(matrix) - np.diag(np.diag(matrix))
    own, given = map(int, np.unravel_index(wrong_ones.argmax(), wrong_ones.shape))
    names = sorted(LABELS)
    cell = page.data["sections"]["confusion"]["cells"][f"{own},{given}"]
    assert len(cell) == matrix[own][given]
    assert {head for _, head, _ in cell} == {f"{names[own]} → {names[given]}"}
    assert "Training steps" in page.text
    assert len(page.data["sections"]["suspects"]["cards"]) == len(
        found["suspected_label_errors"]["rows"]
    )


def test_what_cannot_be_shown_says_why(folder, pages):
    page, done = pages["store"]
    problems = {p["uri"]: p["problem"] for p in page.data["images"] if p["problem"]}
    gone, changed = str(image_path(folder, 10)), str(image_path(folder, 11))
    assert set(problems) == {gone, changed}
    assert problems[gone] == "cannot be read: No such file or directory"
    assert problems[changed].startswith("the file has changed since")
    assert (done.images, done.unavailable, done.thumbnails) == (150, 2, 148)
    first = next(p for p in page.data["images"] if p["thumb"])
    thumb = Image.open(io.BytesIO(base64.b64decode(first["thumb"].partition(",")[2])))
    assert max(thumb.size) <= 96  # The map's; those of galleries are larger.


def test_rejects_are_listed_by_reason_and_name(folder):
    page, _ = report(folder, "store", points=0, folds=0)
    assert "Truncated 1 ends early" in page.text
    assert f"/images/{HOSTILE}.txt NotAnImage (passed over)" in page.text
    assert "map" not in page.data["sections"]


@pytest.mark.parametrize("most", [0, 4])
def test_thumbnails_are_capped_and_that_is_said(folder, most):
    page, done = report(folder, "scores.csv", thumbnails=most)
    made = [p for p in page.data["images"] if p["thumb"]]
    assert len(made) + done.unavailable == most
    others = {p["problem"] for p in page.data["images"] if not p["thumb"]}
    assert f"no thumbnail: only {most} are made" in others
    assert f"(at most {most}, --thumbnails)" in page.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("scores.jsonl", ()),
        ("scores.parquet", ()),
        ("columns.csv", ("--separate-columns",)),
        ("hive", ("--partition-by", "label")),
    ],
)
def test_every_kind_of_score_table_gives_the_same_page(folder, kind, flags):
    csv_page, _ = report(folder, "scores.csv", thumbnails=0)
    make_scores(folder, kind, *flags)
    page, _ = report(folder, kind, thumbnails=0)
    assert page.data == csv_page.data
    assert "NotAnImage" in page.text


def test_the_threshold_counts_what_lies_below_it(folder):
    table = read_scores(str(folder / "scores.csv"))
    section = threshold(table)
    for label, below, count in zip(section.labels, section.below, section.counts, strict=True):
        own = table.scores[[given == label for given in table.given]]
        assert len(own) == count
        assert list(below) == [(own < level / 100).sum() for level in range(101)]


def test_a_model_without_a_store_says_what_it_knows_of_itself(folder):
    page, done = report(folder, "model")
    assert "accuracy, testing side" in page.text
    assert "Give --store STORE" in page.text
    assert done.images == 0


def test_a_multi_label_model(tmp_path):
    make_store(tmp_path, 90, ("a|b", "b", "a|<i>c</i>"))
    make_model(tmp_path, "|")
    page, _ = report(tmp_path, "model", store=str(tmp_path / "store"))
    assert page.data["sections"]["confusion"] == {}
    heads = [head for _, head, _ in page.data["sections"]["mistakes"]["cards"]]
    assert heads
    assert all(re.match(r"(has|lacks) the label (a|b|<i>c</i>)$", head) for head in heads)


def test_many_labels_become_a_list_of_confusions(folder):
    labels = [f"l{i}" for i in range(MOST_LABELS + 1)]
    cells = [{"label": "l1", "predicted": "l2", "count": 3}]
    found = {
        "confusion": {"most_frequent": cells, "measured_on": "5 images"},
        "model": {"labels": labels, "multi_label": False},
    }
    section = confusion(found, scored="unused")
    assert section.rows == [["l1", "l2", 3]]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("nothing", {}, "is not there; name the folder of a model"),
        ("images", {}, "is a folder of images. First: beam-flowers embed"),
        ("nothing.csv", {}, "cannot be read as a table of scores"),
        ("store", {"store": "store"}, "--store says nothing about a store"),
        ("model", {"summaries_dir": "model"}, "has no steps.jsonl"),
        ("scores.rejects.csv", {}, "a table of scores has"),
        ("model", {"labels": "scores.csv", "store": "nothing"}, "no store at"),
    ],
)
def test_what_cannot_be_reported_on(folder, source, options, message, capsys):
    flags = [f"--{k.replace('_', '-')}={folder / v}" for k, v in options.items()]
    code = cli("report", folder / source, "--output", folder / "none.html", *flags)
    assert code == 1
    assert message in capsys.readouterr().err
    assert not (folder / "none.html").exists()


@pytest.mark.parametrize(
    "options", [{"thumbnails": -1}, {"points": -2}, {"folds": -1}, {"output": "report.pdf"}]
)
def test_a_job_is_checked(options):
    with pytest.raises(InputError, match=re.escape(repr(next(iter(options.values()))))):
        ReportJob(**{"source": "model", "output": "r.html", **options})


def test_a_store_without_its_packages(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(InputError, match=re.escape("pip install 'beam-flowers[report]'")):
        report(folder, "store")


def test_a_damaged_step_log(folder):
    (folder / "bad" / "run-001").mkdir(parents=True)
    (folder / "bad" / "run-001" / "steps.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(
        InputFieldError, match=r"steps\.jsonl is damaged \(line 1\.train_accuracy: .*no step log"
    ):
        report(folder, "model", summaries_dir=str(folder / "bad"))


def test_a_torn_table(folder, tmp_path):
    (tmp_path / "store" / "__commits").mkdir(parents=True)
    (tmp_path / "store" / "__commits" / "00000001.json").write_text("{")
    with pytest.raises(StoreError, match="is damaged"):
        report(tmp_path, "store")


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_thumbnail_is_upright_and_whole(orientation):
    upright = make_images.quadrants(640, 480)
    turned = {1: 0, 3: 180, 6: 90, 8: 270}[orientation]
    data = make_images.oriented(upright.rotate(turned, expand=True), orientation)
    small = shrink(data, 160)
    assert small.size == (160, 120)
    corners = [small.getpixel(p) for p in ((20, 20), (140, 20), (20, 100))]
    colours = (make_images.RED, make_images.GREEN, make_images.BLUE)
    for colour, wanted in zip(corners, colours, strict=True):
        assert np.abs(np.subtract(colour, wanted)).max() < 60


def test_images_and_report_in_an_object_store(monkeypatch):
    """A remote image is shown, but nothing links to it: a browser could not open it."""
    data = make_images.jpeg()
    monkeypatch.setitem(OBJECTS, "mem://bucket/photos/a.jpg", data)
    monkeypatch.setitem(OBJECTS, "mem://bucket/r.html", b"")
    row = {"uri": "mem://bucket/photos/a.jpg", "sha256": hashlib.sha256(data).hexdigest()}
    ranked = {"label": "a", "score": 0.9, "top_k": [{"label": "a", "score": 0.9}], "model_id": "m"}
    table = json.dumps({**row, **ranked}).encode()
    monkeypatch.setitem(OBJECTS, "mem://bucket/scores.jsonl", table)
    done = write_report(ReportJob("mem://bucket/scores.jsonl", "mem://bucket/r.html"))
    assert OBJECTS["mem://bucket/r.html"].decode() == done.html
    (shown,) = Reader(done.html).data["images"]
    assert (shown["name"], shown["href"]) == ("photos/a.jpg", None)
    assert shown["thumb"].startswith("data:image/webp;base64,")


def test_a_small_image_is_not_enlarged():
    assert shrink(make_images.png(20, 10), 160).size == (20, 10)


@pytest.mark.parametrize("name", ["empty.jpg", "text.jpg", "truncated.jpg", "bomb.png"])
def test_a_bad_image_is_told(tmp_path, name):
    (tmp_path / name).write_bytes(make_images.bad_files()[name])
    found = read_thumbnail(str(tmp_path / name), 100)
    assert (found.data, found.url) == (None, None)
    assert found.problem


@pytest.mark.parametrize("shape", [(200, 12), (12, 200), (3, 2)])
def test_the_plane_is_that_of_the_singular_values(shape):
    vectors = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    vectors[:, 0] *= 5
    plane, share = principal_plane(vectors)
    left, values, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(plane), np.abs(left * values)[:, :2], atol=1e-4)
    np.testing.assert_allclose(share, (values[:2] ** 2).sum() / (values**2).sum(), rtol=1e-5)


def test_equal_vectors_have_a_place():
    plane, share = principal_plane(np.ones((4, 3), np.float32))
    assert not plane.any()
    assert share == 1


def test_samples_are_the_same_each_time():
    assert sample_rows(5, 9).tolist() == [0, 1, 2, 3, 4]
    chosen = sample_rows(1000, 10)
    assert chosen.tolist() == sorted({*chosen.tolist(), *sample_rows(1000, 10).tolist()})


def test_a_chart_keeps_the_numbers_of_its_axes():
    labels = re.findall(r">([\d.]+)<", histogram([3, 1, 0, 2]))
    assert labels[:5] == ["0.00", "0.25", "0.50", "0.75", "1.00"]


def test_steps_are_thinned_with_both_ends():
    steps = [{"step": i} for i in range(1, 1001)]
    found = thinned(steps, 50)
    assert (len(found), found[0]["step"], found[-1]["step"]) == (50, 1, 1000)
    assert thinned(steps[:3]) == steps[:3]


def test_the_command_says_what_it_wrote(folder, capsys):
    assert not cli("report", folder / "store", "--output", folder / "c.html")
    out = capsys.readouterr().out
    assert re.search(r"report: .*c\.html \(\d\.\d MB, 148 thumbnails\)", out)
    assert "2 images cannot be shown" in out
    first = Path(folder / "c.html").read_bytes()
    report(folder, "store")
    assert (folder / "r.html").read_bytes() == first
