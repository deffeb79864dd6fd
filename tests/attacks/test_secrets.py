"""Passwords, keys and tokens are shown and written nowhere; nobody quotes or steers our files."""

import io
import logging
import os
import stat
import sys

import pytest
from stores import cli
from vectors import make_store, train_run

from beam_flowers.cli import log, screen
from beam_flowers.cli.beam_flags import split_flags, without_secret
from beam_flowers.cli.config import command_parser
from beam_flowers.cli.parser import make_parser
from beam_flowers.cli.progress import print_object
from beam_flowers.errors import ImageError, InputError, OutputError
from beam_flowers.files.text import without_secrets
from beam_flowers.images.decode import decode
from beam_flowers.images.recipe import PixelRecipe
from beam_flowers.records import Image, Reject
from beam_flowers.store.schema import rejects_table
from beam_flowers.workflows.progress import Progress
from beam_flowers.workflows.score import score_images
from beam_flowers.workflows.score_options import ScoreOptions, check_outputs, make_unfinished

HELD = [
    "https://me:S3CRET@hub.example/net.tar.gz",
    "https://me:p@S3CRET@hub.example/net.tar.gz",
    "https://S3CRET@hub.example",
    "https://a.blob.core.windows.net/c/x.jpg?sv=2022&sig=S3CRET%3D&se=2030",
    "https://b.s3.amazonaws.com/k?X-Amz-Credential=S3CRET&X-Amz-Signature=S3CRET",
    "DefaultEndpointsProtocol=https;AccountName=me;AccountKey=S3CRET+/==;EndpointSuffix=x",
    "--azure_connection_string=AccountName=me;AccountKey=S3CRET==",
    "BlobEndpoint=https://x;SharedAccessSignature=sv=1&sig=S3CRET",
    "{'s3_secret_access_key': 'S3CRET', 's3_session_token': 'S3CRET'}",
    "Authorization: Bearer S3CRET0123456789abc",
    "token hf_S3CRETabcdefghijk and eyJS3CRETabcdef.S3CRET.S3CRET",
]


@pytest.mark.parametrize("text", HELD)
def test_secrets_are_left_out(text):
    """Logs are sent around: whoever reads one could enter the account."""
    assert "S3CRET" not in without_secrets(text)
    assert "..." in without_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a@b.jpg?x=1",
        "/photos/token/a=b.jpg",
        "review: http://127.0.0.1:1/abcdefghijklmnopqrst/",
        "/photos/label=rose/x@2.jpg is no image: fetch or export it again",
    ],
)
def test_other_text_stays(text):
    assert without_secrets(text) == text


@pytest.mark.parametrize("text", HELD)
def test_no_message_shows_one(text, capsys):
    screen.say("error", text)
    print_object(event="x", store=text)
    print(text, file=screen.Escaped(sys.stdout))
    out, err = capsys.readouterr()
    assert "S3CRET" not in out + err


def test_no_log_holds_one():
    stream = io.StringIO()
    logger = logging.Logger("beam")
    logger.addHandler(log.handler(stream))
    try:
        raise OSError(HELD[0])
    except OSError:
        logger.exception("options: %s", HELD[8])
    assert "S3CRET" not in stream.getvalue()
    assert "Traceback" in stream.getvalue()


@pytest.mark.parametrize(
    "flag", ["--s3_secret_access_key=x9", "--azure_connection_string=x9;x9", "--hdfs_passwd=x9"]
)
def test_flags_of_beam_are_shown_without(flag):
    assert "x9" not in without_secret(flag)


def test_a_misspelt_flag_does_not_show_its_value():
    parser = command_parser(make_parser(), "embed")
    with pytest.raises(InputError) as caught:
        split_flags(["--zzqxvkj-pass", "x9"], parser)
    assert "x9" not in str(caught.value)


def test_no_command_shows_the_password_of_an_address(tmp_path, capsys):
    handle = "https://me:S3CRET@127.0.0.1:9/net.tar.gz"
    assert cli("embed", tmp_path, "--store", tmp_path / "s", "--backbone", handle)
    out, err = capsys.readouterr()
    assert "S3CRET" not in out + err


def test_no_reject_table_holds_one():
    image = Image("/a.jpg", "/", "a.jpg")
    table = rejects_table([Reject(image, "read", "OSError", text) for text in HELD])
    assert "S3CRET" not in str(table["message"].to_pylist())


@pytest.mark.parametrize(
    "data",
    [
        b"S3CRET=1\n" * 10,
        b"P6 S3CRETS3CRETS3CRET 1 255\n",
        b"P6 2 S3CRET 255\n",
        b"P3 2 2 255\nS3CRET 1 2 3",
        b"P3 2 2 255\n1 2 3 S3CRETS3CRETS3CRET",
        b"Pf 2 2 S3CRET\n",
    ],
)
def test_no_reject_quotes_a_file(data):
    """A list that names `~/.aws/credentials` would have its first bytes told to who wrote it."""
    with pytest.raises(ImageError) as caught:
        decode(data, PixelRecipe(8, 8))
    assert "S3CRET" not in str(caught.value)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_files_that_may_hold_secrets_are_the_users_alone(tmp_path):
    assert cli("init", "--output", tmp_path / "c.yaml") == 0
    assert mode(tmp_path / "c.yaml") == 0o600
    old = tmp_path / "run.log"
    old.write_text("# log of beam-flowers, 2020\n")
    old.chmod(0o644)
    os.close(log._open(old))
    log._file = None
    assert mode(old) == 0o600


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("secrets"))


@pytest.mark.parametrize("there", [False, True])
def test_the_unfinished_table_is_entered_by_nobody_else(store, tmp_path, there):
    """Who can write there would choose the labels of a run that goes on from it."""
    model, partial = train_run(store, "small").bundle, tmp_path / ".o.csv.partial"
    seen = []

    class Watching(Progress):
        def begin(self, *stage):
            super().begin(*stage)
            seen.append(mode(partial))

    if there:
        partial.mkdir(mode=0o755)
    score_images(ScoreOptions((store,), str(tmp_path / "o.csv")), model, progress=Watching())
    assert set(seen) == {0o700}


def test_a_link_in_its_place_is_refused(store, tmp_path):
    """The run would write into, and in the end delete, a folder that somebody else chose."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / ".o.csv.partial").symlink_to(tmp_path / "theirs")
    for attempt in (
        lambda: check_outputs(ScoreOptions((store,), str(tmp_path / "o.csv"))),
        lambda: make_unfinished(str(tmp_path / ".o.csv.partial")),
    ):
        with pytest.raises(OutputError, match="unfinished"):
            attempt()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_in_its_place_is_refused(store, tmp_path):
    folder = tmp_path / ".o.csv.partial"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    for attempt in (
        lambda: check_outputs(ScoreOptions((store,), str(tmp_path / "o.csv"))),
        lambda: make_unfinished(str(folder)),
    ):
        with pytest.raises(OutputError, match="another user"):
            attempt()
