"""Images that are worth a label: diverse ones first, then the least sure."""

import hashlib
import json
import threading
import urllib.request

import numpy as np
import pytest
from report_cases import make_store
from stores import cli

from beam_flowers.errors import InputError
from beam_flowers.head.bundle import read_bundle
from beam_flowers.head.corrections import read_corrections
from beam_flowers.review.choose import choose_images, diverse_rows
from beam_flowers.review.decisions import Decisions
from beam_flowers.review.serve import ReviewJob, reviewing
from beam_flowers.review.session import Session
from beam_flowers.scoring.recognise import STORE, recognise
from beam_flowers.store.features import Features, has_labels

CLASSES = ("ant", "bee", "cat")


def features(count=60, labels=(None,), copies=0):
    """Vectors around three centres, the class of a row being its number modulo three."""
    centres = np.random.default_rng(1).standard_normal((3, 8))
    noise = np.random.default_rng(2).standard_normal((count, 8)) * 0.3
    vectors = (centres[np.arange(count) % 3] + noise).astype(np.float32)
    sha256 = [hashlib.sha256(b"%d" % max(i, copies)).hexdigest() for i in range(count)]
    given = [labels[i % len(labels)] for i in range(count)]
    return Features([f"/{i:03d}.jpg" for i in range(count)], sha256, given, [None] * count, vectors)


def decided(stored, *rows):
    return {stored.sha256[row]: CLASSES[row % 3] for row in rows}


def asked(chosen):
    return [int(candidate.uri[1:4]) for candidate in chosen.candidates]


def test_without_labels_the_first_images_are_of_every_kind():
    chosen = choose_images(features(), {}, 3)
    assert {row % 3 for row in asked(chosen)} == {0, 1, 2}
    assert chosen.is_diverse
    assert [candidate.ranking for candidate in chosen.candidates] == [()] * 3


def test_an_interrupted_round_goes_on_up_to_its_number():
    stored = features()
    first = asked(choose_images(stored, {}, 10))
    again = choose_images(stored, decided(stored, *first[:4]), 10)
    assert (len(first), len(again.candidates), again.is_diverse) == (10, 6, True)
    assert not set(asked(again)) & set(first[:4])


def test_the_next_round_asks_where_the_labels_so_far_are_least_sure():
    stored = features()
    chosen = choose_images(stored, decided(stored, 0, 1, 2, 3, 4, 5), 6)
    margins = [c.ranking[0][1] - c.ranking[1][1] for c in chosen.candidates]
    assert (len(margins), chosen.is_diverse) == (6, False)
    assert margins == sorted(margins)
    everyone = choose_images(stored, decided(stored, 0, 1, 2, 3, 4, 5), 60)
    assert everyone.is_diverse  # Sixty labels were not given yet.
    middle = np.delete(np.arange(60), range(6))
    between = stored.vectors[asked(chosen)], stored.vectors[middle]
    spread = [np.abs(part - stored.vectors.mean(0)).mean() for part in between]
    assert spread[0] < spread[1]


def test_what_has_a_label_or_was_left_out_is_not_asked():
    half = features(labels=("ant", None))
    assert all(row % 2 for row in asked(choose_images(half, {}, 40)))
    left_out = choose_images(features(), {features().sha256[7]: ""}, 60)
    assert 7 not in asked(left_out)
    assert len(left_out.candidates) == 59
    with pytest.raises(InputError, match="every image of the store has a label"):
        choose_images(features(labels=("ant", "bee")), {}, 5)


def test_a_content_is_asked_once_and_all_where_few_are_left():
    copies = features(12, copies=8)
    assert len(choose_images(copies, {}, 40).candidates) == 4
    assert len(choose_images(copies, decided(copies, 9), 40).candidates) == 3


def test_one_label_alone_makes_nobody_unsure():
    stored = features()
    assert choose_images(stored, decided(stored, 0, 3, 6), 3).is_diverse


def test_equal_vectors_fill_no_cluster_and_are_chosen_all_the_same():
    vectors = np.ones((9, 4), np.float32)
    assert len(set(diverse_rows(vectors, np.arange(9), 5))) == 5
    assert diverse_rows(vectors, np.arange(3), 5) == [0, 1, 2]


def test_a_choice_depends_on_the_contents_alone():
    stored = features()
    texts = (stored.uris, stored.sha256, stored.labels, stored.splits)
    turned = Features(*(list(each)[::-1] for each in texts), stored.vectors[::-1].copy())
    assert set(asked(choose_images(turned, {}, 9))) == set(asked(choose_images(stored, {}, 9)))


def test_a_second_spelling_is_no_second_label(tmp_path):
    chosen = choose_images(features(), {}, 4)
    session = Session(chosen.candidates, (), Decisions(str(tmp_path / "fix.csv")))
    session.decide(0, "Blue  tit")
    with pytest.raises(InputError, match="is there as Blue  tit already"):
        session.decide(1, "blue tit")
    session.decide(1, "Blue  tit")
    assert [each["label"] for each in session.state()["labels"]] == ["Blue  tit"]


@pytest.fixture(scope="module")
def unsorted(tmp_path_factory):
    base = tmp_path_factory.mktemp("unsorted")
    make_store(base, 60, labels=(None,))
    return base


def answer(url, action, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + action, data, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))


def label_all(store, output, choose):
    """Labels what the page asks by the centre that an image was made around."""
    with reviewing(ReviewJob(str(store), str(output), choose=choose)) as found:
        thread = threading.Thread(target=found.server.serve_forever)
        thread.start()
        state = answer(found.url, "state")
        while state["image"]:
            name = state["image"]["uri"].rpartition("/")[2]
            number = 7 if name.startswith("new") else int(name[:4])
            body = {"number": state["image"]["number"], "label": CLASSES[number % 3]}
            state = answer(found.url, "decide", body)
        found.server.shutdown()
        thread.join()
        return found


def test_from_a_store_without_labels_to_a_model(unsorted, tmp_path, capsys):
    output = tmp_path / "corrections.csv"
    store = unsorted / "store"
    assert (recognise(str(store)), has_labels(str(store))) == (STORE, False)
    first = label_all(store, output, 20)
    second = label_all(store, output, 20)
    assert (first.chosen.is_diverse, second.chosen.is_diverse) == (True, False)
    assert len(read_corrections(str(output)).labels) == 40
    assert str(store) in second.following
    assert not cli("train", store, "--model", tmp_path / "model", "--labels", output)
    assert read_bundle(str(tmp_path / "model")).labels == CLASSES


def test_choose_is_for_stores(unsorted, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("review", unsorted / "store", "--choose", "0") == 1
    assert "--choose takes a number of images from 1 on" in capsys.readouterr().err
    (tmp_path / "t.csv").write_text('"uri"\n')
    assert cli("review", "t.csv", "--choose", "3") == 1
    assert "--choose is for a feature store" in capsys.readouterr().err


def test_a_store_says_if_it_has_labels(unsorted, tmp_path):
    make_store(tmp_path, 6, labels=(None, "ant"))
    found = [has_labels(str(folder / "store")) for folder in (unsorted, tmp_path)]
    assert found == [False, True]
