"""The step at which the job servers of Flink and Spark refuse a graph, without a cluster."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from apache_beam import Pipeline
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.transforms.environments import ExternalEnvironment

FUSED = "fused"
HERE = Path(__file__).parent
_WORKERS = ExternalEnvironment("localhost:50000")


def new_pipeline(*flags: str) -> Pipeline:
    """Begins a pipeline that is meant for a job server. Nothing is sent to it."""
    server = ("--runner=PortableRunner", "--job_endpoint=localhost:8099")
    return Pipeline(options=PipelineOptions([*server, *flags]))


def as_submitted(pipeline: Pipeline) -> bytes:
    """Returns the proto that `PortableRunner` sends to a job server."""
    # As PortableRunner.get_proto_pipeline, which besides asks pip what is installed: half a second.
    proto = pipeline.to_runner_api(default_environment=_WORKERS)
    sent = PortableRunner._optimize_pipeline(proto, pipeline.options)
    return bytes(sent.SerializeToString())


def fuse(graphs: dict[str, bytes], folder: Path) -> dict[str, str]:
    """Prepares pipelines as the job servers do, all in one Java process.

    Args:
        graphs: of `as_submitted`, by name.
        folder: an empty one, to work in.

    Returns:
        By name `FUSED`, or the error that the job servers would give.

    Raises:
        RuntimeError: Java or Maven is missing.
    """
    for program in ("java", "javac", "mvn"):
        if shutil.which(program) is None:
            raise RuntimeError(
                f"{program} is missing, with which graphs are fused as Flink's and Spark's job "
                "servers do it: install Maven and a JDK, 11 or newer "
                "(Debian: apt-get install maven default-jdk-headless)"
            )
    listed, classes = folder / "classpath", folder / "classes"
    _run("mvn", "-q", "-B", "-f", HERE, "dependency:build-classpath", f"-Dmdep.outputFile={listed}")
    classpath = f"{classes}:{HERE}:{listed.read_text()}"
    _run("javac", "-d", classes, "-cp", classpath, HERE / "Fuse.java")
    paths = [folder / str(number) for number in range(len(graphs))]
    for path, graph in zip(paths, graphs.values(), strict=True):
        path.write_bytes(graph)
    lines = _run("java", "-cp", classpath, "Fuse", *paths).splitlines()
    verdicts = [line.partition("\t")[2] for line in lines]
    return dict(zip(graphs, verdicts, strict=True))


def _run(*command: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout
