"""The report and the review page in a real Chromium: `pytest -m browser`."""

import re
import shutil
import threading
from itertools import pairwise

import pytest
from report_cases import FOLDERS, HOSTILE, LABELS, make_model, make_scores, make_store, rows

from beam_flowers.head.bundle import read_bundle
from beam_flowers.pages.page import render
from beam_flowers.pages.score_sections import score_sections, score_tiles
from beam_flowers.pages.sections import Page
from beam_flowers.review.serve import ReviewJob, reviewing
from beam_flowers.scoring.read_table import ScoreTable
from beam_flowers.workflows.report import ReportJob, write_report

pytestmark = pytest.mark.browser
DESK = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
DARK = {**DESK, "color_scheme": "dark"}


@pytest.fixture(scope="module")
def chromium():
    """A running browser; Debian's package chromium, driven by Playwright from PyPI."""
    reason = "Playwright is not installed: pip install 'beam-flowers[browser]'"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Opens pages; whatever the console complains of, or is fetched from elsewhere, fails."""
    complaints = []

    def open_page(url, **options):
        page = chromium.new_context(**(options or DESK)).new_page()
        page.on("console", lambda m: complaints.append(m.text) if m.type != "log" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        local = (url.rpartition("/")[0], "data:", "blob:")
        page.on("request", lambda r: r.url.startswith(local) or complaints.append(r.url))
        page.goto(url)
        return page

    yield open_page
    assert not complaints


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("browser")
    make_store(base)
    make_model(base)
    make_scores(base)
    store = str(base / "store")
    for source, options in (
        ("model", {"store": store, "summaries_dir": str(base / "steps")}),
        ("store", {}),
        ("scores.csv", {"store": store}),
    ):
        write_report(ReportJob(str(base / source), str(base / f"{source}.html"), **options))
    make_collection(base)
    return base


def make_collection(base):
    """`doctor.html` about copies under two labels, a torn image and many in print colours."""
    from make_images import cmyk_jpeg, jpeg, scene
    from stores import cli

    for i in range(30):
        for name, data in ((f"{i}.jpg", cmyk_jpeg(scene(80, 70, i))), ("same.jpg", jpeg(90, 80))):
            path = base / "odd" / FOLDERS[i % 3] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    (base / "odd" / FOLDERS[0] / "torn.jpg").write_bytes(jpeg()[:200])
    assert not cli("doctor", base / "odd", "--output", base / "doctor.html")


def expect(locator):
    from playwright.sync_api import expect

    return expect(locator)


@pytest.mark.parametrize("options", [DESK, DARK, PHONE], ids=["desk", "dark", "phone"])
@pytest.mark.parametrize("source", ["model", "store", "scores.csv", "doctor"])
def test_a_page_opens_from_a_disk_without_a_complaint(visit, folder, source, options):
    page = visit(f"file://{folder}/{source}.html", **options)
    image = page.locator(".cards img").first
    expect(image).to_be_visible()
    assert image.evaluate("i => i.naturalWidth") > 10
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = max(int(n) for n in re.findall(r"\d+", paper)) < 60
    assert dark == (options is DARK)
    # Colours of charts are the style sheet's.
    stroke = page.locator("svg [stroke^='var(']").first
    if stroke.count():
        assert stroke.evaluate("e => getComputedStyle(e).stroke").startswith("rgb")


def test_the_confusion_matrix_opens_its_images(visit, folder):
    page = visit(f"file://{folder}/model.html")
    # Of which two labels are confused hangs on the head.
    pairs = [(given, predicted) for given in LABELS for predicted in LABELS if given != predicted]
    cells = [
        (*pair, page.get_by_role("button", name=f"{pair[0]}, predicted {pair[1]}: "))
        for pair in pairs
    ]
    given, predicted, cell = next(each for each in cells if each[2].count())
    count = int(cell.inner_text())
    cell.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    expect(dialog.locator("h2")).to_have_text(f"{given}, predicted {predicted}")
    expect(dialog.locator(".cards li")).to_have_count(count)
    expect(dialog.locator(".cards b").first).to_have_text(f"{given} → {predicted}")
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    expect(cell).to_be_focused()


def test_tables_sort_by_key_and_say_so(visit, folder):
    page = visit(f"file://{folder}/model.html")
    table = page.locator("#labels table")
    head = table.locator("th", has_text="recall")
    head.get_by_role("button").focus()
    for order in ("descending", "ascending"):
        page.keyboard.press("Space")
        expect(head).to_have_attribute("aria-sort", order)
        cells = table.locator("tbody td:nth-child(3)")
        values = [float(v) for v in cells.evaluate_all("all => all.map(c => c.dataset.value)")]
        assert values == sorted(values, reverse=order == "descending")
    table.locator("th", has_text="label").get_by_role("button").click()
    assert not head.get_attribute("aria-sort")
    assert len(table.locator("tbody th").all_inner_texts()) == len(LABELS)


def test_galleries_filter_and_extend(visit, folder):
    page = visit(f"file://{folder}/scores.csv.html")
    section = page.locator("#unsure")
    shown = section.locator(".cards li")
    expect(shown).to_have_count(24)
    section.locator("button.more").click()
    expect(shown).to_have_count(48)
    assert page.evaluate("document.activeElement.className") == "frame"
    section.get_by_role("searchbox").fill("NEW\nLINE".replace("\n", " "))
    expect(shown).to_have_count(0)
    section.get_by_role("searchbox").fill(HOSTILE.upper())
    texts = shown.locator("b").all_inner_texts()
    assert texts
    assert all(HOSTILE in text for text in texts)
    expect(section.get_by_role("status")).to_contain_text("image")


def test_the_doctor_s_findings_lead_to_their_images(visit, folder):
    page = visit(f"file://{folder}/doctor.html", **PHONE)
    link = page.get_by_role("link", name="Same bytes, two labels").last
    link.focus()
    page.keyboard.press("Enter")
    section = page.locator("#same-bytes-two-labels")
    expect(section.get_by_role("heading")).to_be_in_viewport()
    group = section.get_by_role("list", name="3 images that belong together")
    assert group.locator("b").all_inner_texts() == sorted(FOLDERS)
    expect(page.locator("#unusable-files .frame")).to_contain_text("JPEG ends before")
    many = page.locator("#cmyk")
    expect(many.locator(".cards li")).to_have_count(24)
    many.get_by_role("searchbox").fill(HOSTILE[:16])
    expect(many.get_by_role("status")).to_have_text("10 images")


def test_the_map_by_mouse_and_by_key(visit, folder):
    page = visit(f"file://{folder}/model.html")
    figure, told = page.locator("#map figure"), page.locator("#map [aria-live]")
    figure.scroll_into_view_if_needed()
    box = figure.locator(".mark-symbol path").nth(5).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(told.locator("img")).to_be_visible()
    expect(told.locator("b")).to_have_count(1)
    figure.focus()
    seen = set()
    for key in ("ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
        seen.add(told.locator(".name").get_attribute("title"))
    assert len(seen) > 1
    page.locator("#map select").select_option(label=LABELS[0])
    chosen = figure.locator("path.on").count()
    assert 0 < chosen < figure.locator(".mark-symbol path").count()
    page.locator("#map select").select_option(label=LABELS[1])
    shown = told.locator("b")
    assert shown.count() == 0 or shown.inner_text() == LABELS[1]


def test_the_threshold_slider_counts(visit, folder):
    page = visit(f"file://{folder}/scores.csv.html")
    slider, output = page.get_by_role("slider"), page.locator("#threshold output")
    expect(output).to_contain_text("Below 0.50")
    slider.focus()
    page.keyboard.press("End")
    expect(output).to_contain_text("Below 1.00")
    page.keyboard.press("Home")
    expect(output).to_have_text("Below 0.00: 0 images of 150 (0.0 %) would become unknown")
    slider.fill("80")
    unknown = page.locator("#threshold tbody td:nth-child(4)").all_inner_texts()
    total = int(re.search(r": (\d+) images", output.inner_text())[1])
    assert sum(map(int, unknown)) == total > 0


def test_everything_has_a_name_for_a_screen_reader(visit, folder):
    page = visit(f"file://{folder}/model.html")
    nameless = page.locator("button, input, select, figure, img").evaluate_all(
        """all => all.filter(e => !(e.getAttribute('aria-label') || e.alt || e.textContent.trim()
        || (e.labels && e.labels.length))).map(e => e.outerHTML.slice(0, 80))"""
    )
    assert not nameless
    levels = [
        int(tag[1]) for tag in page.locator("h1, h2, h3").evaluate_all("a => a.map(e => e.tagName)")
    ]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert page.locator("th:not([scope])").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("source", ["model", "scores.csv", "doctor", "review"])
def test_axe_finds_nothing_in_the_way_of_people(chromium, folder, review, source, scheme):
    """Contrast, names, roles, landmarks: what Deque's axe-core can see."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="pip install 'beam-flowers[browser]'"
    )
    # The page's own policy would let no script of ours in.
    page = chromium.new_context(**{**DESK, "color_scheme": scheme, "bypass_csp": True}).new_page()
    page.goto(review[0] if source == "review" else f"file://{folder}/{source}.html")
    expect(page.locator("img").first).to_be_visible()
    found = axe.Axe().run(page).response["violations"]
    assert [(v["id"], [node["html"] for node in v["nodes"]]) for v in found] == []


def big_table(count):
    import numpy as np

    scores = np.random.default_rng(0).uniform(0.2, 1, count)
    given = [f"label {i % 300}" for i in range(count)]
    rest = (1 - scores) / 2
    top = [[(g, s), ("other", r)] for g, s, r in zip(given, scores, rest, strict=True)]
    uris = [f"/images/{i:06d}.jpg" for i in range(count)]
    return ScoreTable(
        "t", uris, [f"{i:064x}" for i in range(count)], given, scores, top, "m", (), []
    )


def test_a_hundred_thousand_rows_open_at_once(visit, tmp_path):
    table = big_table(100_000)
    page = Page("Big", "", score_tiles(table, 0), [], score_sections(table))
    (tmp_path / "big.html").write_text(render(page, 0).html, "utf-8")
    assert (tmp_path / "big.html").stat().st_size < 5e6
    (tmp_path / "empty.html").write_text("<!doctype html>")
    shown = visit(f"file://{tmp_path}/empty.html")
    session = shown.context.new_cdp_session(shown)
    # The thread's own time: a busy machine makes a page no slower.
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    shown.goto(f"file://{tmp_path}/big.html")
    expect(shown.locator("#threshold output")).to_contain_text("of 100,000")
    metrics = session.send("Performance.getMetrics")["metrics"]
    seconds = {metric["name"]: metric["value"] for metric in metrics}
    assert 0 < seconds["TaskDuration"] < 3
    shown.get_by_role("searchbox", name="Filter the labels").fill("label 299")
    expect(shown.locator("#threshold tbody tr:visible")).to_have_count(1)


@pytest.fixture
def review(folder, tmp_path):
    """The page's address and where its corrections go."""
    job = ReviewJob(str(folder / "scores.csv"), str(tmp_path / "fix.csv"))
    with reviewing(job) as found:
        thread = threading.Thread(target=found.server.serve_forever)
        thread.start()
        yield found.url, tmp_path / "fix.csv"
        found.server.shutdown()
        thread.join()


def test_review_by_key(visit, review, folder):
    url, output = review
    page = visit(url)
    status, count = page.get_by_role("status"), page.locator("#count")
    expect(page.locator("#image")).to_have_attribute("src", re.compile("^blob:"))
    first = page.locator("#name").inner_text()

    def press(key):
        expect(page.locator("#frame")).to_have_attribute("aria-busy", "false")
        page.keyboard.press(key)

    press("1")
    expect(count).to_have_text("1 of 150 done")
    label = page.locator("#labels span").first.inner_text()
    assert rows(output)[0]["label"].split() == label.split()
    press("u")
    expect(count).to_have_text("0 of 150 done")
    assert (rows(output), page.locator("#name").inner_text()) == ([], first)
    press("s")
    expect(status).to_have_text("Skipped")
    expect(page.locator("#name")).not_to_have_text(first)
    press("n")
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.type("1 new <i>label</i> sun")  # None of it is a key here.
    press("Enter")
    press("Enter")  # A new label is confirmed.
    expect(count).to_have_text("1 of 150 done")
    expect(page.locator("#labels li")).to_have_count(4)
    assert [row["label"] for row in rows(output)] == ["1 new <i>label</i> sun"]
    press("4")
    expect(count).to_have_text("2 of 150 done")
    press("x")
    expect(count).to_have_text("3 of 150 done")
    press("Enter")
    expect(count).to_have_text("4 of 150 done")
    found = [row["label"] for row in rows(output)]
    assert found[1:3] == ["1 new <i>label</i> sun", ""]
    assert found[3] in LABELS


def test_the_loop_through_the_browser(visit, review, folder, tmp_path):
    from stores import cli

    url, output = review
    page = visit(url, **PHONE)
    for done in range(1, 151):
        expect(page.locator("#frame")).to_have_attribute("aria-busy", "false")
        page.locator("#labels button.best").tap()
        expect(page.locator("#count")).to_have_text(f"{done} of 150 done")
    expect(page.get_by_role("heading", name="All looked at")).to_be_visible()
    assert not cli("train", folder / "store", "--model", tmp_path / "again", "--labels", output)
    assert set(read_bundle(str(tmp_path / "again")).labels) == set(LABELS)


def test_unsorted_images_get_labels_typed_once_and_confirmed(visit, tmp_path):
    make_store(tmp_path, 30, labels=(None,))
    output = tmp_path / "fix.csv"
    with reviewing(ReviewJob(str(tmp_path / "store"), str(output), choose=4)) as found:
        thread = threading.Thread(target=found.server.serve_forever)
        thread.start()
        page = visit(found.url)
        text, confirm, count = (page.locator(name) for name in ("#text", "#confirm", "#count"))
        expect(text).to_be_focused()  # There is no label yet to press a key for.
        expect(page.locator("#says")).to_contain_text("No label yet")
        page.keyboard.type("rose")
        page.keyboard.press("Enter")
        expect(confirm).to_contain_text("“rose” is a new label")
        expect(count).to_have_text("0 of 4 done")
        page.keyboard.press("Escape")
        expect(confirm).to_be_empty()
        for number, label in enumerate(("rose", "tulip"), start=1):
            expect(page.locator("#frame")).to_have_attribute("aria-busy", "false")
            text.focus()
            page.keyboard.type(label)
            page.keyboard.press("Enter")
            page.keyboard.press("Enter")
            expect(count).to_have_text(f"{number} of 4 done")
        for key, number in (("1", 3), ("2", 4)):
            expect(page.locator("#frame")).to_have_attribute("aria-busy", "false")
            page.keyboard.press(key)
            expect(count).to_have_text(f"{number} of 4 done")
        expect(page.locator("#end pre")).to_have_text(found.following)
        found.server.shutdown()
        thread.join()
    assert [row["label"] for row in rows(output)] == ["rose", "tulip", "rose", "tulip"]


def test_from_unsorted_photographs_to_a_table_in_five_commands(
    visit, tmp_path, monkeypatch, capsys
):
    """`embed`, `review`, `train`, `score`, `report`; nothing else, and no document."""
    from stores import cli, photos

    monkeypatch.chdir(tmp_path)
    label_of = {}
    (tmp_path / "unsorted").mkdir()
    for number, photo in enumerate(sorted(photos(tmp_path / "sorted", 12).glob("*/*"))):
        label_of[f"{number * 37 % 60:03d}.jpg"] = photo.parent.name
        photo.rename(tmp_path / "unsorted" / f"{number * 37 % 60:03d}.jpg")
    assert not cli("embed", "unsorted", "--store", "store")
    assert "next: beam-flowers review store" in capsys.readouterr().out
    with reviewing(ReviewJob("store", "corrections.csv", choose=25)) as found:
        thread = threading.Thread(target=found.server.serve_forever)
        thread.start()
        page = visit(found.url)
        for done in range(1, 26):
            expect(page.locator("#frame")).to_have_attribute("aria-busy", "false")
            label = label_of[page.locator("#name").inner_text().rpartition("/")[2]]
            known = page.locator("#labels span:nth-child(2)").all_inner_texts()
            if label in known:
                page.keyboard.press(str(known.index(label) + 1))
            else:
                page.locator("#text").fill(label)
                page.locator("#text").press("Enter")
                page.locator("#text").press("Enter")
            expect(page.locator("#count")).to_have_text(f"{done} of 25 done")
        found.server.shutdown()
        thread.join()
    assert not cli("train", "store", "--model", "model", "--labels", "corrections.csv")
    assert not cli("score", "store", "--model", "model", "--output", "labels.csv")
    assert not cli("report", "labels.csv", "--output", "report.html")
    table = rows(tmp_path / "labels.csv")
    right = [row["label"] == label_of[row["relative_path"]] for row in table]
    assert len(right) == 60
    assert sum(right) / 60 > 0.7


def test_a_stranger_sees_nothing(chromium, review):
    url, _ = review
    page = chromium.new_page()
    answer = page.goto(url.rpartition("/")[0].rpartition("/")[0] + "/")
    assert answer.status == 404
    page.close()
