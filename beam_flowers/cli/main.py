"""Parses a command line, calls the command, and turns errors into a line and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import logging
import os
import re
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn

from beam_flowers.cli import config as configs
from beam_flowers.cli import log, screen
from beam_flowers.cli.beam_flags import split_flags, without_secret
from beam_flowers.cli.config import command_parser, command_parsers
from beam_flowers.cli.expected import require_expected
from beam_flowers.cli.help import did_you_mean, overview, with_flags
from beam_flowers.cli.parser import COMMANDS, make_parser
from beam_flowers.errors import BeamFlowersError, FieldError, HeaderError, OutputError
from beam_flowers.files.text import without_secrets

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_OBJECTS_A_COLLECTION = 50_000
"""Python's 700 had imports and the making of graphs, which leave no garbage, searched 900 times:
0.8 s of a start with TensorFlow and 0.35 with OpenVINO, 0.2 and 0.1 now, in no more memory."""

_FILE_ERROR = re.compile(r"\[Errno (\d+)\] .*?(?= \[while running |$)")
_PYTHON_ERROR = re.compile(r"(?!java\.|org\.)[\w.]*(?:Error|Exception): ")


def entry(arguments: Sequence[str] | None = None) -> int:
    """Runs `main`, and keeps what native libraries print off the screen."""
    gc.set_threshold(_OBJECTS_A_COLLECTION)
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    wanted = _log_flags(arguments)
    if not wanted.verbose:
        try:
            log.keep_off_the_screen(wanted.log_file)
        except BeamFlowersError as error:
            return _refuse(error)
    return main(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0; 1 for an error in the input, 2 for one in the command line, for a list whose columns are
        not known or an output that would replace what has to stay, 3 for more bad images than
        `--max-bad-fraction` allows, 4 for more missing ones than `--max-removed-fraction` does, 130
        after Ctrl-C.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    screen.SCREEN.release()
    _quieten(_log_flags(arguments).verbose)
    try:
        with contextlib.redirect_stdout(screen.Escaped(sys.stdout)):
            return _run(arguments)
    except BeamFlowersError as error:
        return _refuse(error, command_parser(make_parser(), arguments[0]))
    except KeyboardInterrupt as interrupt:
        return _interrupted(arguments, str(interrupt))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except OSError as error:
        logging.info("file error", exc_info=True)
        return _complain(_with_advice(error.errno, str(error)))
    except Exception as error:
        # Beam wraps a Ctrl-C that reaches a step.
        if "KeyboardInterrupt" in str(error):
            return _interrupted(arguments)
        # What a runner wraps has the cause in its last line; a traceback helps no user.
        logging.info("unexpected error", exc_info=True)
        return _complain(_cause(error))


def _with_advice(number: int | None, message: str) -> str:
    """Adds the next step to the message of an error of a file system."""
    if number in (errno.ENOSPC, errno.EDQUOT):
        from beam_flowers.store.names import RESERVED

        found = re.search(rf"'(/[^']*?)/(?:{'|'.join(RESERVED)})/", message)
        store = shlex.quote(found[1]) if found else "STORE"
        advice = (
            "the disk is full: make room and run this again, which goes on from what is finished; "
            f"`beam-flowers vacuum {store} --older-than 0` deletes older versions of a store"
        )
    elif number == errno.EROFS:
        advice = "that disk is mounted read-only: mount it for writing, or give another place"
    elif number in (errno.EACCES, errno.EPERM):
        advice = "it may not be written or read by you: change its rights or give another place"
    elif number == errno.EIO:
        advice = "the disk or the network gave an error: look at its health, then run this again"
    else:
        advice = "check that the path is there and may be read and written"
    return f"{message}; {advice}"


def _log_flags(arguments: Sequence[str]) -> log.Wanted:
    """Returns the flags of the log, from the command line or else from the configuration file."""
    wanted, path = log.wanted(arguments), configs.config_named_in(arguments)
    if path and arguments:
        # The command reads the whole file later and reports its errors.
        with contextlib.suppress(BeamFlowersError):
            section = configs.read_config(path).sections.get(arguments[0], {})
            settings = {key.replace("_", "-"): value for key, (value, _) in section.items()}
            wanted.verbose = wanted.verbose or settings.get("verbose") is True
            if isinstance(file := settings.get("log-file"), str):
                wanted.log_file = wanted.log_file or file
    return wanted


def _run(arguments: list[str]) -> int:
    parser = make_parser()
    if asked := _asked_help(arguments, parser):
        print(asked)
        return 0
    command = command_parser(parser, arguments[0])
    if command is None:
        _refuse_command(arguments[0], parser)
    try:
        ours, beams = split_flags(arguments[1:], command)
    except BeamFlowersError as error:
        command.error(without_secrets(str(error)))
    if path := configs.config_named_in(ours):
        beams = _configure(path, parser, arguments[0], ours, beams)
    # For the commands that write about all commands.
    known = argparse.Namespace(make_parser=make_parser, command=arguments[0])
    parsed = command.parse_args(ours, known)
    if beams:
        print("handed to Beam:", *map(without_secret, beams), flush=True)
        from beam_flowers.transforms.runner import reach_files

        reach_files(beams)
    require_expected(arguments[0], parsed)
    code: int = COMMANDS[arguments[0]][1].run(parsed, beams)
    return code


def _asked_help(arguments: Sequence[str], parser: argparse.ArgumentParser) -> str:
    """Returns the help or version that a command line without a command asks for."""
    first, *rest = arguments or ["help"]
    if first == "--version":
        import beam_flowers

        return f"beam-flowers {beam_flowers.__version__}"
    if first not in ("help", "-h", "--help"):
        return ""
    if not rest:
        return overview(parser, {name: summary for name, (summary, _) in COMMANDS.items()})
    command = command_parser(parser, rest[0])
    return command.format_help() if command else _refuse_command(rest[0], parser)


def _refuse_command(name: str, parser: argparse.ArgumentParser) -> NoReturn:
    if name.startswith("-"):
        parser.error(f"the command comes before {name}, as in beam-flowers embed {name}")
    parser.error(f"there is no command {name}{did_you_mean(name, COMMANDS)}")


def _configure(
    path: str, parser: argparse.ArgumentParser, name: str, ours: list[str], beams: list[str]
) -> list[str]:
    """Makes a file's settings the parser's defaults; Beam's flags with those of the file."""
    config, commands = configs.read_config(path), command_parsers(parser)
    configs.check_sections(config, commands)
    configs.set_defaults(config, name, commands[name], configs.given_flags(ours))
    return configs.beam_flags(config, name, commands[name], beams)


def _interrupted(arguments: Sequence[str], about: str = "") -> int:
    """Prints that a command was interrupted; `about` names a job that goes on elsewhere."""
    module = COMMANDS[arguments[0]][1] if arguments and arguments[0] in COMMANDS else None
    left = getattr(module, "INTERRUPTED", "the same command begins anew")
    _complain(f"stopped; {left}" + (f"; {about}" if about else ""))
    return EXIT_INTERRUPTED


def _refuse(error: BeamFlowersError, command: argparse.ArgumentParser | None = None) -> int:
    # The fields of a file have names of their own.
    if command and not isinstance(error, FieldError):
        _complain(with_flags(str(error), command))
    else:
        _complain(str(error))
    return EXIT_USAGE if isinstance(error, OutputError | HeaderError) else EXIT_ERROR


def _complain(message: str) -> int:
    screen.say("error", message)
    return EXIT_ERROR


def _cause(error: BaseException) -> str:
    # gRPC's errors may be their own cause's cause.
    seen = {id(error)}
    while error.__cause__ is not None and id(error.__cause__) not in seen:
        error = error.__cause__
        seen.add(id(error))
    lines = [line for line in str(error).splitlines() if line.strip()]
    own = [line for line in lines if "beam_flowers.errors." in line]
    if own:
        return own[0].partition(": ")[2]
    telling = _telling(lines)
    # A runner hands on the text of a worker's error alone.
    if found := _FILE_ERROR.search(telling):
        return _with_advice(int(found[1]), found[0])
    if type(error).__name__ == "OperationalError" and "disk is full" in telling:
        return (
            f"{telling}, which holds temporary files: make room there, or set TMPDIR to a folder "
            "that has room, and run this again"
        )
    where = f"{log.name()} says where" if log.name() else "--verbose shows where"
    return f"{type(error).__name__}: {telling} ({where})"


def _telling(lines: Sequence[str]) -> str:
    """Returns the line of a runner's message that has the cause: Python's, Java's, or the first."""
    lines = [line.strip() for line in lines]
    python = [line for line in lines if _PYTHON_ERROR.match(line)]
    java = [line for line in lines if line.startswith("Caused by: ")]
    if not java or any(line.endswith("Traceback (most recent call last):") for line in lines):
        return (python or lines[:1] or [""])[-1]
    return java[-1]


def _quieten(verbose: bool) -> None:
    """Keeps the libraries' own notes off the screen; in the log, if there is one, they are."""
    if verbose:
        logging.basicConfig(level=logging.DEBUG, handlers=[log.handler(sys.stderr)])
        return
    logs = log.name() is not None
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if logs else "3")
    handlers = [screen.Handler(), *([log.handler()] if logs else [])]
    logging.basicConfig(level=logging.INFO if logs else logging.ERROR, handlers=handlers)
    logging.getLogger("apache_beam").setLevel(logging.INFO if logs else logging.CRITICAL)
    logging.getLogger("beam_flowers").setLevel(logging.INFO if logs else logging.WARNING)


if __name__ == "__main__":
    sys.exit(entry())
