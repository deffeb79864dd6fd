"""A bucket on a real S3 server, behind a proxy that counts requests and makes faults."""

import itertools
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import gateway
import pytest
from apache_beam.io.filesystems import FileSystems
from proxy import proxied

# Without the extra `aws` the modules here cannot even be imported.
collect_ignore_glob = [] if find_spec("boto3") else ["test_*.py"]
_NUMBERS = itertools.count()
_VARIABLES = {
    "AWS_ACCESS_KEY_ID": gateway.KEY,
    "AWS_SECRET_ACCESS_KEY": gateway.SECRET,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Bucket:
    """A new bucket.

    Attributes:
        uri: `s3://<name>`.
        folder: where the server keeps its objects, as files.
        proxy: what stands between.
        flags: Beam's, to reach it without environment variables.
    """

    def __init__(self, name, folder, proxy):
        self.uri, self.folder, self.proxy = f"s3://{name}", Path(folder, name), proxy
        self.folder.mkdir()
        self.flags = [
            f"--s3_endpoint_url={proxy.url}",
            f"--s3_access_key_id={gateway.KEY}",
            f"--s3_secret_access_key={gateway.SECRET}",
            "--s3_region_name=us-east-1",
            "--s3_disable_ssl",
        ]


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """(port, folder) of the running server."""
    folder = tmp_path_factory.mktemp("s3") / "buckets"
    with gateway.serving(folder) as port:
        yield port, folder


@pytest.fixture
def bucket(server, monkeypatch):
    """A `Bucket`; nothing points to it yet."""
    with new_bucket(server, monkeypatch) as found:
        yield found


@pytest.fixture
def reached(bucket, monkeypatch):
    """The same, with AWS' environment variables set to reach it."""
    return reach(bucket, monkeypatch)


@pytest.fixture(scope="module")
def shared(server):
    """One that is reached likewise, for all tests of a module."""
    with pytest.MonkeyPatch.context() as patch, new_bucket(server, patch) as found:
        yield reach(found, patch)


@contextmanager
def new_bucket(server, patch):
    """A `Bucket` for as long as the block lasts."""
    patch.setattr(FileSystems, "_pipeline_options", None)
    for name in _VARIABLES:
        patch.delenv(name, raising=False)
    for name in list(_VARIABLES)[3:]:
        patch.setenv(name, _VARIABLES[name])
    forget()
    with proxied(server[0]) as proxy:
        yield Bucket(f"bucket-{next(_NUMBERS)}", server[1], proxy)
    forget()


def reach(bucket, patch):
    """Sets AWS' environment variables to a bucket, and returns it."""
    for name, value in _VARIABLES.items():
        patch.setenv(name, value)
    patch.setenv("AWS_ENDPOINT_URL", bucket.proxy.url)
    return bucket


def forget():
    """Lets the next request see the environment as it is now."""
    from beam_flowers.files import s3_server

    s3_server._connect.cache_clear()
    s3_server._latest = None
