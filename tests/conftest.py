"""Collections that several tests look at."""

import shutil

import pytest
from stores import embed, photos


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
