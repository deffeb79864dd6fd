"""Sends requests to an S3 server, repeats them, and explains the errors of its answers."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from beam_flowers.errors import InputError, StoreError
from beam_flowers.files.options import beam_options
from beam_flowers.files.retries import Retries

try:
    import boto3
    from botocore import exceptions
    from botocore.config import Config
    from botocore.exceptions import IncompleteReadError as IncompleteReadError
    from urllib3.exceptions import HTTPError
except ImportError:
    raise InputError(
        "s3:// needs a library that is missing: pip install 'beam-flowers[aws]'"
    ) from None

Answer = TypeVar("Answer")

_BUSY_STATUS = {408, 429, 500, 502, 503, 504}
_BUSY_CODE = {"RequestTimeout", "SlowDown", "ConditionalRequestConflict", "OperationAborted"}
_WRONG_CREDENTIALS = {
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
}
_WRONG_BUCKET = {"InvalidBucketName", "NoSuchBucket", "PermanentRedirect"}
_BROKEN = (
    exceptions.HTTPClientError,
    exceptions.ConnectionError,
    exceptions.IncompleteReadError,
    HTTPError,  # botocore lets it through where the body of an error breaks off.
)


class EmptyError(OSError):
    """Reports a range of an object without bytes."""


class _Server(NamedTuple):
    client: Any
    retries: Retries


def ask(uri: str, request: Callable[[Any], Answer]) -> Answer:
    """Sends a request and returns its answer; raises as `files` describes."""
    server = _server()
    try:
        return server.retries.ask(uri, lambda: request(server.client))
    except exceptions.ClientError as error:
        raise _of_answer(uri, error) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise _of_credentials(uri, _reason(error)) from error
    except exceptions.ParamValidationError as error:
        raise InputError(f"{uri!r}: {error.kwargs['report']}") from error
    except (exceptions.BotoCoreError, HTTPError) as error:
        raise OSError(errno.EIO, _reason(error), uri) from error


def _of_answer(uri: str, error: Any) -> Exception:
    status, code, reason = _status(error), error.response["Error"].get("Code", ""), _reason(error)
    if code in _WRONG_CREDENTIALS:
        return _of_credentials(uri, reason)
    if code in _WRONG_BUCKET:
        address = _server().retries.server
        return InputError(f"{uri!r}: {reason.rstrip('.')}, at {address}; check the bucket's name")
    if code == "NotImplemented":
        return StoreError(f"{uri!r}: the server does not offer what is needed: {reason}")
    known: dict[int, tuple[type[OSError], int]] = {
        403: (PermissionError, errno.EACCES),
        404: (FileNotFoundError, errno.ENOENT),
        412: (FileExistsError, errno.EEXIST),
        416: (EmptyError, errno.EIO),
    }
    error_type, number = known.get(status, (OSError, errno.EIO))
    return error_type(number, reason, uri)


def _of_credentials(uri: str, reason: str) -> InputError:
    return InputError(
        f"{uri!r}: {reason.rstrip('.')}; check --s3_access_key_id, --s3_secret_access_key and "
        "--s3_region_name, or AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_DEFAULT_REGION"
    )


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _reason(error: Any) -> str:
    if not isinstance(error, exceptions.ClientError):
        return " ".join(str(error).split())
    answer = error.response["Error"]
    texts = (str(_status(error)), answer.get("Code", ""), answer.get("Message", ""))
    return ": ".join(dict.fromkeys(text for text in texts if text))


def _is_passing(error: Exception) -> bool:
    if isinstance(error, exceptions.ClientError):
        return _status(error) in _BUSY_STATUS or error.response["Error"].get("Code") in _BUSY_CODE
    return isinstance(error, _BROKEN) and not isinstance(error, exceptions.SSLError)


def _server() -> _Server:
    global _latest
    options = beam_options()
    # A run has one options object, and reading it takes longer than some requests.
    if _latest is None or _latest[0] is not options:
        _latest = options, _connect(tuple(sorted(_settings(options).items())))
    return _latest[1]


_latest: tuple[Any, _Server] | None = None


def _settings(options: Any) -> dict[str, Any]:
    """Returns boto3's arguments from Beam's options, by the same mapping as Beam."""
    from apache_beam.options.pipeline_options import S3Options

    given = options.view_as(S3Options)
    return {
        "aws_access_key_id": given.s3_access_key_id,
        "aws_secret_access_key": given.s3_secret_access_key,
        "aws_session_token": given.s3_session_token,
        "endpoint_url": given.s3_endpoint_url,
        "region_name": given.s3_region_name,
        "api_version": given.s3_api_version,
        "verify": given.s3_verify,
        "use_ssl": not given.s3_disable_ssl,
    }


@lru_cache(maxsize=8)
def _connect(settings: tuple[tuple[str, Any], ...]) -> _Server:
    config = Config(
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=64,
        tcp_keepalive=True,
        # `Retries` repeats requests, also those whose bodies break off, and logs each.
        retries={"total_max_attempts": 1},
    )
    try:
        client = boto3.session.Session().client("s3", config=config, **dict(settings))
    except (exceptions.BotoCoreError, ValueError) as error:
        raise InputError(f"no connection to S3 with these settings: {error}") from error

    def is_there() -> bool:
        try:
            client.list_buckets()
        except exceptions.ClientError as error:
            return not _is_passing(error)
        except exceptions.BotoCoreError:
            return False
        return True

    return _Server(client, Retries(client.meta.endpoint_url, _is_passing, _reason, is_there))
