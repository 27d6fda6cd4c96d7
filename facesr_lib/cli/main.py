"""`facesr`: its commands, and how each ends: with an exit code, and in words that the terminal can show."""

from __future__ import annotations

import argparse
import codecs
import io
import os
import sys
import warnings
from collections.abc import Sequence

from facesr_lib.cli import assets, book, evaluate, restore, train, values

PLAIN = {"→": "->", "×": "x", "−": "-", "·": "-", "…": "...", "²": "2"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command: 0 if all went well, 1 if something could not be done, 2 if what is asked for cannot be.

    130 after Ctrl-C, 141 if nobody reads on.
    """
    codecs.register_error("plain", _plain)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # beside other work, threads that spin take its time
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")
    warnings.formatwarning = lambda message, *_, **__: f"facesr: {message}\n"  # without our source's line
    parser = argparse.ArgumentParser(prog="facesr", description="Face super-resolution, step by step.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (restore, train, evaluate, assets, book):
        command.add(commands)
    try:
        return _run(parser, argv)
    except BrokenPipeError:  # as in `facesr assets list | head -1`
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # for Python's own flush at the end
        return 141


def _run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    try:
        try:
            arguments = parser.parse_args(argv)
            return arguments.run(arguments) or 0
        finally:
            print(end="", flush=True)
    except BrokenPipeError:
        raise
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        print(f"facesr: {_words(error)}", file=sys.stderr, flush=True)
        return 2 if isinstance(error, values.Mistake) else 1
    except KeyboardInterrupt:
        print("facesr: interrupted", file=sys.stderr, flush=True)
        return 130


def _words(error: Exception) -> str:
    """What an error says; the system's own says first what it could not use."""
    if isinstance(error, OSError) and error.strerror:
        place = "the output" if error.filename is None else error.filename
        return f"{place} cannot be used ({error.strerror}): name another, or make it free and writable."
    return str(error)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Write what an encoding lacks in ASCII, so that no finished run ends in a codec's error."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(PLAIN.get(one, "?") for one in error.object[error.start : error.end]), error.end
