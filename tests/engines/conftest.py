"""The engines: how each starts, and the flags that make a run go there."""

import pytest
import servers
from life import live

IN_PROCESS = {
    "two workers": [
        "--direct_num_workers=2",
        "--direct_running_mode=multi_threading",
        "--shards=7",
    ],
}
_PORTABLE = "--runner=PortableRunner"
_SUBPROCESS = [
    "--environment_type=beam:env:harness_subprocess_python:v1",
    "--environment_config={python} -m apache_beam.runners.worker.sdk_worker_main",
]
ENGINES = {
    "multi_processing": ["--direct_num_workers=2", "--direct_running_mode=multi_processing"],
    "embed, loopback": [_PORTABLE, "--job_endpoint=embed", "--environment_type=LOOPBACK"],
    "embed, subprocess": [_PORTABLE, "--job_endpoint=embed", *_SUBPROCESS],
    "prism, loopback": [_PORTABLE, "--job_endpoint={prism}", "--environment_type=LOOPBACK"],
    "prism, external": servers.external("{prism}", "{pool}"),
}


def pytest_generate_tests(metafunc):
    """One engine after another; or the user's own alone, where one is named."""
    if "engine" not in metafunc.fixturenames:
        return
    given = given_flags(metafunc.config)
    inside = [pytest.param(flags, id=name) for name, flags in IN_PROCESS.items()]
    outside = [
        pytest.param(flags, id=name, marks=[pytest.mark.engines, pytest.mark.timeout(300)])
        for name, flags in ENGINES.items()
    ]
    own = [pytest.param(given, id="given", marks=pytest.mark.timeout(900))]
    metafunc.parametrize("engine", own if given else inside + outside)


def given_flags(config):
    """Beam's flags from pytest's command line."""
    option = config.getoption
    named = {
        "--job_endpoint": option("--job-endpoint"),
        "--environment_type": option("--environment-type"),
        "--environment_config": option("--environment-config"),
        "--runner": option("--runner") or (option("--job-endpoint") and "PortableRunner"),
    }
    return [f"{name}={value}" for name, value in named.items() if value] + option("--beam-flag")


@pytest.fixture(scope="session")
def prism(tmp_path_factory):
    with servers.prism(tmp_path_factory.mktemp("prism") / "log") as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def pool(tmp_path_factory):
    with servers.worker_pool(tmp_path_factory.mktemp("pool") / "log") as endpoint:
        yield endpoint


@pytest.fixture
def flags(engine, request):
    """The engine's flags; what they need is running."""
    return [filled(flag, request) for flag in engine]


def filled(flag, request):
    """`flag` with the address of the server that it names in braces, which is then running."""
    for name in ("prism", "pool", "python"):
        if f"{{{name}}}" in flag:
            flag = flag.replace(f"{{{name}}}", request.getfixturevalue(name))
    return flag


@pytest.fixture(scope="session")
def python():
    return servers.sys.executable


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where the collection lies; the same for all engines, since tables hold the names."""
    return tmp_path_factory.mktemp("collection") / "images"


@pytest.fixture(scope="session")
def expected(folder, tmp_path_factory):
    """The tables that a run in this process gives, with one worker."""
    return live(folder, tmp_path_factory.mktemp("expected"), [])
