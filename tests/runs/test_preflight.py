"""What keeps a worker from working for a run: each is one line that names host, cause and cure."""

import bz2
import os
import socket
import threading
import time
from base64 import b64decode
from dataclasses import replace

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.portability.api import beam_runner_api_pb2
from stores import embed, photos, scenes

from beam_flowers import files
from beam_flowers.backbones import hardware, openvino_engine
from beam_flowers.backbones.catalogue import Backbone
from beam_flowers.backbones.engine import Engine
from beam_flowers.backbones.resolve import resolve
from beam_flowers.errors import BackboneError, InputError, WorkerError
from beam_flowers.images.find import find_images
from beam_flowers.records import Image
from beam_flowers.store.commits import Section
from beam_flowers.store.commits import versions as commits
from beam_flowers.store.outcomes import Outcome
from beam_flowers.store.parts import Place
from beam_flowers.store.plan import Plan
from beam_flowers.store.schema import StoreRows
from beam_flowers.store.work_units import Unit
from beam_flowers.transforms import dofns
from beam_flowers.transforms.check import CheckWorkers
from beam_flowers.transforms.plan import RunPlan, ScorePlan
from beam_flowers.transforms.preflight import (
    expected_setup,
    processes_on_a_host,
    require_seen,
    signs_of_life,
    unfit,
)
from beam_flowers.workflows import embed as embed_run

HOST = socket.gethostname()


@pytest.fixture
def setup(tmp_path):
    return expected_setup(Place(str(tmp_path / "store"), "", "f" * 64, tmp_path.name), {})


def test_the_drivers_own_process_may_work_and_does_not_answer(setup):
    assert not signs_of_life(setup.place)
    assert setup.problem() == ""
    assert signs_of_life(setup.place) != signs_of_life(setup.place)
    assert not files.exists(setup.place.run_file("answers"))


def test_another_process_answers_and_goes_on_answering_until_the_run_ends(setup):
    elsewhere = replace(setup, driver="elsewhere", pulse=0.01)
    assert elsewhere.problem() == ""
    (answer,) = files.list_folder(setup.place.run_file("answers"))
    assert answer.name.startswith(HOST)
    assert answer.name.endswith(f"-{os.getpid()}")
    while next(files.list_folder(setup.place.run_file("answers"))).modified == answer.modified:
        time.sleep(0.01)
    (beating,) = (t for t in threading.enumerate() if t.name.endswith("(_go_on_beating)"))
    files.delete_tree(setup.place.run_file())
    beating.join(5)
    assert not beating.is_alive()


@pytest.mark.parametrize("package", ["python", "beam-flowers", "tensorflow", "pillow"])
def test_another_version(setup, package):
    wanted = tuple((name, "0.0" if name == package else v) for name, v in setup.versions)
    found = dict(setup.versions)[package]
    problem = replace(setup, versions=wanted).problem()
    assert problem == f"{HOST}: {package} is {found} there and 0.0 here"


def test_a_store_that_the_worker_does_not_see(setup):
    hidden = replace(setup, place=replace(setup.place, root=setup.place.root + "-elsewhere"))
    assert f"does not see {hidden.place.root} as this machine does" in hidden.problem()
    assert "all workers share" in hidden.problem()


def test_another_store_of_the_same_name(setup):
    problem = replace(setup, nonce="another").problem()
    assert problem == f"{HOST}: what it sees at {setup.place.root} is something else"


def test_weights_that_are_absent_or_others(setup, tmp_path):
    backbone = resolve("efficientnet-lite0")
    other = replace(setup, backbones=(replace(backbone, weights_sha256="0" * 64),))
    assert f"{backbone.weights_sha256}: they are others" in other.problem()
    row = Backbone("mine", input_size=None, vector_length=None, source="mine")
    absent = replace(backbone, row=row, path=str(tmp_path / "weights.keras"))
    problem = replace(setup, backbones=(absent,)).problem()
    assert f"the weights of mine are not at {absent.path}" in problem


def test_a_worker_without_the_engine_or_the_precision(setup, monkeypatch):
    lite = resolve("efficientnet-lite0", engine="openvino", precision="bf16")
    monkeypatch.setattr(hardware, "flags", lambda: frozenset())
    assert "has no bfloat16 arithmetic" in replace(setup, backbones=(lite,)).problem()
    monkeypatch.setattr(openvino_engine, "is_installed", lambda: False)
    lite = replace(lite, precision="float32")
    assert "OpenVINO is not installed on" in replace(setup, backbones=(lite,)).problem()


def test_a_worker_whose_int8_vectors_are_others_is_refused(setup, monkeypatch):
    lite = resolve("efficientnet-lite0", precision="int8", engine="openvino")
    first = replace(setup, backbones=(lite,))
    assert first.problem() == ""
    assert replace(first, pulse=1.0).problem() == ""
    computed = Engine.embed

    def on_another_processor(self, pixels):
        return np.nextafter(computed(self, pixels), np.float32(9))

    monkeypatch.setattr(Engine, "embed", on_another_processor)
    assert (
        f"it computes other int8 vectors of efficientnet-lite0 than {HOST} does: their processors"
        in replace(first, pulse=2.0).problem()
    )
    in_float32 = replace(first, backbones=(lite.in_precision("float32"),))
    assert in_float32.problem() == ""


def test_a_worker_with_another_quantised_network_is_refused(setup):
    lite = resolve("efficientnet-lite0", precision="int8", engine="openvino")
    other = replace(setup, backbones=(replace(lite, quantised_sha256="0" * 64),))
    assert "it is another; every worker needs the same" in other.problem()


@pytest.mark.parametrize(("engine", "matters"), [("openvino", True), ("tensorflow", False)])
def test_openvino_matters_where_it_is_used(setup, engine, matters):
    versions = tuple((n, "9" if n == "openvino" else v) for n, v in setup.versions)
    lite = resolve("efficientnet-lite0", engine=engine)
    found = replace(setup, versions=versions, backbones=(lite,)).problem()
    assert ("openvino is" in found) == matters


def test_images_that_the_worker_does_not_see(tmp_path):
    folder = scenes(tmp_path / "images", 2)
    images = [found for found in find_images([str(folder)]) if isinstance(found, Image)]
    require_seen(images)
    (folder / "0000.jpg").unlink()
    require_seen(images)
    (folder / "0001.jpg").rename(folder / "other.jpg")
    require_seen(images)  # Deleted while the run is under way: two rejects.
    (folder / "other.jpg").unlink()
    with pytest.raises(WorkerError, match=f"{HOST}.* does not see the images in .*images"):
        require_seen(images)


def test_a_step_on_a_bad_worker_does_nothing_and_passes_the_reason_on(setup):
    bad = replace(setup, nonce="another")
    called = []
    step = dofns.Step(bad, called.append)
    (outcome,) = step.process("unit")
    assert outcome.problem == bad.problem()
    assert not called
    assert list(step.process(outcome)) == [outcome]
    (tagged,) = dofns.Step(bad, called.append, "elsewhere").process("unit")
    assert (tagged.tag, tagged.value) == ("elsewhere", outcome)


@pytest.mark.parametrize("error", [BackboneError("no network"), WorkerError("no images")])
def test_what_a_worker_is_at_fault_for_is_no_exception(setup, error):
    def fail(unit):
        raise error

    (outcome,) = dofns.Step(setup, fail).process("unit")
    assert outcome == Outcome((), problem=f"{HOST}: {error}")


def test_a_run_on_bad_workers_commits_nothing_and_says_why(tmp_path, monkeypatch):
    folder = photos(tmp_path / "images", 1)
    write = files.write_atomic

    def another_nonce(uri, data):
        write(uri, b"another" if uri.endswith("nonce") else data)

    monkeypatch.setattr(files, "write_atomic", another_nonce)
    with pytest.raises(WorkerError, match=f"nothing was committed.*{HOST}.*something else"):
        embed(folder, tmp_path / "store")
    assert commits(str(tmp_path / "store")) == []
    assert not list((tmp_path / "store").rglob("part-*"))
    monkeypatch.undo()
    assert embed(folder, tmp_path / "store").embedded == 5


def test_problems_that_only_the_last_step_met_are_in_the_result(setup):
    files.write_atomic(
        setup.place.run_file("result.json"), b'{"committed": false, "problems": ["a: b", "c: d"]}'
    )
    with pytest.raises(WorkerError, match=r"a: b\. c: d\. Mend it there"):
        embed_run.read_result(setup.place)


def test_each_problem_is_named_once():
    assert str(unfit(["b", "a", "b"])).count("b.") == 1


@pytest.mark.parametrize(
    ("options", "processes"),
    [
        ({}, 1),
        ({"direct_num_workers": 4}, 1),
        ({"direct_num_workers": 4, "direct_running_mode": "multi_processing"}, 4),
        ({"direct_num_workers": 0, "direct_running_mode": "multi_processing"}, 8),
        ({"sdk_worker_parallelism": 3}, 3),
    ],
    ids=str,
)
def test_worker_processes_that_beams_options_put_on_a_host(monkeypatch, options, processes):
    monkeypatch.setattr(hardware, "cores", lambda: 8)
    assert processes_on_a_host(options) == processes


@pytest.mark.parametrize(
    ("own", "given", "processes", "cores"),
    [
        (None, "", 1, 8),
        (None, "", 3, 2),
        (None, "", 20, 1),
        (None, "5", 3, 5),
        ("6", "5", 3, 6),
    ],
)
def test_worker_processes_share_the_cores(monkeypatch, setup, own, given, processes, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(hardware, "_quota", lambda: 100)
    monkeypatch.setenv(hardware.THREADS, own or "")
    if own is None:
        monkeypatch.delenv(hardware.THREADS)
    hardware.cores.cache_clear()
    try:
        replace(setup, driver="elsewhere", processes=processes, threads=given).problem()
        assert hardware.cores() == cores
    finally:
        os.environ.pop(hardware.THREADS, None)
        hardware.cores.cache_clear()


@pytest.mark.parametrize("given", ["0", "-1", "two", ""])
def test_threads_that_are_no_number(monkeypatch, given):
    monkeypatch.setenv(hardware.THREADS, given)
    hardware.cores.cache_clear()
    with pytest.raises(InputError, match=f"BEAM_FLOWERS_THREADS={given} is no number of threads"):
        hardware.cores()


def test_no_step_is_sent_as_bytecode(setup):
    """Another version of Python could not read it, and so not say that it is another one."""
    backbone, units = resolve("efficientnet-lite0"), (Unit("file", 0),)
    section = Section(backbone.fingerprint, {})
    plan = Plan(setup.place, 0, section, units, units, units, units)
    kind = StoreRows(backbone.fingerprint, "name")
    for transform in (
        RunPlan(plan, kind, [backbone]),
        ScorePlan(plan, [setup.place], kind),
        CheckWorkers(setup.place, backbone, [None]),
    ):
        pipeline = beam.Pipeline()
        pipeline | transform
        steps = [
            beam_runner_api_pb2.ParDoPayload.FromString(step.spec.payload).do_fn.payload
            for step in pipeline.to_runner_api().components.transforms.values()
            if step.spec.urn == "beam:transform:pardo:v1"
            and "/Rebalance/" not in step.unique_name  # Clusters have their own.
        ]
        assert len(steps) > 3
        # What cloudpickle calls to build a function from its code.
        assert not any(b"_make_function" in bz2.decompress(b64decode(step)) for step in steps)
