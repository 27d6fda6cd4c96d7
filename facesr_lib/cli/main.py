"""`facesr`: its commands, and how each ends: with an exit code, and in words that the terminal can show."""

from __future__ import annotations

import argparse
import codecs
import io
import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from facesr_lib.cli import assets, book, evaluate, restore, train, values

PLAIN = {"→": "->", "×": "x", "−": "-", "·": "-", "…": "...", "²": "2"}
TOO_MUCH = re.compile(r"(?i)tried to allocate [\d.]+ \w+|out of memory|alloc_failed|storage size.*|overflow.*")
"""What torch says, in errors of many kinds, of memory that is not there and of numbers that are too large."""
LOST: dict[int, OSError] = {}
"""Descriptor of a standard stream → why not all that was written there has arrived."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command: 0 if all went well, 1 if something could not be done, 2 if what is asked for cannot be.

    130 after Ctrl-C. What nobody reads ends no work; if nothing but that came of it, 141 for a closed pipe, else 1.
    """
    codecs.register_error("plain", _plain)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # beside other work, threads that spin take its time
    LOST.clear()
    sys.stdout, sys.stderr = map(_lasting, (sys.stdout, sys.stderr))
    warnings.formatwarning = lambda message, *_, **__: f"facesr: {message}\n"  # without our source's line
    parser = argparse.ArgumentParser(prog="facesr", description="Face super-resolution, step by step.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (restore, train, evaluate, assets, book):
        command.add(commands)
    try:
        try:
            arguments = parser.parse_args(argv)
            code = arguments.run(arguments) or 0
        finally:
            print(end="", flush=True)
        if not code and not getattr(arguments, "out", None) and (lost := LOST.get(1)):  # it has written nothing else
            if isinstance(lost, BrokenPipeError):  # as in `facesr assets list | head -1`
                return 141
            raise lost
        return code
    except Exception as error:
        told = ValueError, OSError, FloatingPointError, ImportError, MemoryError, OverflowError
        if not isinstance(error, told) and not TOO_MUCH.search(str(error)):
            raise  # a fault of our own
        print(f"facesr: {_words(error)}", file=sys.stderr, flush=True)
        return 2 if isinstance(error, values.Mistake) else 1
    except KeyboardInterrupt:
        print("facesr: interrupted", file=sys.stderr, flush=True)
        return 130


class _Descriptor(io.FileIO):
    """What a standard stream writes to: what is not taken is lost, and nothing is raised."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:  # nobody reads on, the disk is full, the terminal is gone
            LOST[self.fileno()] = error
            return len(data)


def _lasting(stream: Any) -> Any:
    """A standard stream that can always be written to, in letters that its encoding lacks, too."""
    if stream is None:  # it was closed before we began
        return open(os.devnull, "w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    raw = getattr(stream.buffer, "raw", stream.buffer)
    if stream in (sys.__stdout__, sys.__stderr__) and type(raw) is io.FileIO:  # no console of Windows
        stream.flush()
        buffer = io.BufferedWriter(_Descriptor(raw.fileno(), "w", closefd=False))
        by_lines = stream.line_buffering or stream.write_through
        stream = io.TextIOWrapper(buffer, stream.encoding, line_buffering=by_lines)
    stream.reconfigure(errors="plain")
    return stream


def _words(error: Exception) -> str:
    """What an error says; the system's own says first what it could not use, or hold."""
    found = TOO_MUCH.search(str(error))
    if found or isinstance(error, (MemoryError, OverflowError)):
        return (
            f"this machine cannot hold what is asked for ({found[0] if found else error or 'out of memory'}): choose "
            "smaller numbers, such as fewer restarts or faces, a smaller network or batch."
        )
    if isinstance(error, OSError) and error.strerror:
        place = "the output" if error.filename is None else error.filename
        return f"{place} cannot be used ({error.strerror}): name another, or make it free and writable."
    return str(error)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Write what an encoding lacks in ASCII, so that no finished run ends in a codec's error."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(PLAIN.get(one, "?") for one in error.object[error.start : error.end]), error.end
