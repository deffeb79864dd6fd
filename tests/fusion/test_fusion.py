"""The job servers of Flink and Spark take every graph that the package makes."""

import importlib
import re
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.pipeline import PipelineVisitor
from fuser import FUSED, as_submitted, fuse, new_pipeline
from shapes import material, pipelines

import beam_flowers

# The first run on a machine fetches 60 MB from Maven Central.
pytestmark = [pytest.mark.fusion, pytest.mark.timeout(600)]
PACKAGE = Path(beam_flowers.__file__).parent


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """A pipeline of every shape, by name."""
    return pipelines(material(tmp_path_factory.mktemp("material")))


def same(element):
    yield element


def flattened(pass_through):
    """What a Reshuffle gives and what a ParDo gives, in one Flatten."""
    pipeline = new_pipeline()
    units = pipeline | "Some" >> beam.Impulse() | beam.Reshuffle()
    fresh = pipeline | "Others" >> beam.Impulse() | "Find" >> beam.FlatMap(same)
    if pass_through:
        units = units | "PassUnits" >> beam.FlatMap(same)
    (units, fresh) | beam.Flatten() | "Embed" >> beam.FlatMap(same)
    return pipeline


def test_every_graph_is_taken_and_the_old_one_refused(graphs, tmp_path):
    more = {"old": flattened(pass_through=False), "mended": flattened(pass_through=True)}
    said = fuse({n: as_submitted(p) for n, p in (graphs | more).items()}, tmp_path)
    assert re.search("PCollectionNodes .* were consumed but never produced", said.pop("old"))
    refused = [f"{name}: {error}" for name, error in said.items() if error != FUSED]
    assert not refused, "\n".join(refused)


def test_every_transform_is_in_a_graph(graphs):
    for path in PACKAGE.rglob("*.py"):
        if "PTransform" in path.read_text():
            name = path.relative_to(PACKAGE.parent).with_suffix("")
            importlib.import_module(".".join(name.parts))
    public = {cls for cls in below(beam.PTransform) if not cls.__name__.startswith("_")}
    seen = Classes()
    for pipeline in graphs.values():
        pipeline.visit(seen)
    assert public
    assert public - seen.found == set(), "add graphs with these to shapes.py"


def below(cls):
    """The package's own classes that are derived from `cls`."""
    for child in cls.__subclasses__():
        yield from below(child)
        if child.__module__.startswith("beam_flowers."):
            yield child


class Classes(PipelineVisitor):
    """Collects the classes of the transforms that it visits."""

    def __init__(self):
        self.found = set()

    def enter_composite_transform(self, transform_node):
        self.found.add(type(transform_node.transform))


@pytest.mark.parametrize("program", ["java", "javac", "mvn"])
def test_a_missing_program_is_an_error_that_names_it(program, tmp_path, monkeypatch):
    for name in {"java", "javac", "mvn"} - {program}:
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=rf"^{program} is missing.*install Maven and a JDK"):
        fuse({}, tmp_path)
