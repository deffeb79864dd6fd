"""Collections that several tests look at."""

import shutil

import pytest
from stores import embed, photos

from beam_flowers.backbones.network import tensorflow


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """A folder `pictures` of ten photographs and the folder `store` made of them."""
    base = tmp_path_factory.mktemp("embed")
    assert embed(photos(base / "pictures"), base / "store").embedded == 10
    return base


@pytest.fixture
def work(original):
    """The same two folders at the same path, to be changed; put back afterwards."""
    kept = original.with_name(original.name + "-kept")
    shutil.copytree(original, kept, symlinks=True)
    yield original
    shutil.rmtree(original)
    kept.rename(original)


@pytest.fixture(scope="session")
def tf():
    """TensorFlow, as the package loads it."""
    return tensorflow()


@pytest.fixture(scope="session")
def keras(tf):
    """Keras on TensorFlow."""
    import keras

    return keras


def pytest_addoption(parser):
    """The engine that `tests/engines` runs on, instead of those that it starts itself."""
    group = parser.getgroup("engines")
    group.addoption("--job-endpoint", help="HOST:PORT of a job server")
    group.addoption("--runner", help="FlinkRunner, SparkRunner, ...")
    group.addoption("--environment-type", help="EXTERNAL, PROCESS, LOOPBACK, ...")
    group.addoption("--environment-config", help="as Beam's flag")
    group.addoption("--beam-flag", action="append", default=[], help="any other --name=value")
