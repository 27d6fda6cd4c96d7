"""Writing files whole or not at all, and what tells one content from another."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@contextmanager
def replacing(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Give a temporary name beside ``path``; what was written there takes its place only if all went well.

    Whatever interrupts the block (full disk, Ctrl-C, an error), the old file stays and no half of a new one does. A
    ``FileExistsError`` says that this is a folder, or that something has its name, at first or at the end, and stays.
    """
    if not overwrite:
        check_free(path)
    with _beside(path) as temporary:
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # as a new file's: what safetensors writes nobody but its owner could read
        if not overwrite:
            check_free(path)
            path.touch(exist_ok=False)  # of two runs at once, one gets the name
        os.replace(temporary, path)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Make an empty file beside ``path``, gone at the end; errors name ``path``."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist: make it first.")
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "it is a folder or a device, and no file", str(path))
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        temporary.touch()
        yield temporary
    except OSError as error:  # the system names no file, or the temporary one
        if error.errno and str(error.filename) in ("None", str(temporary)):
            error.filename = str(path)
        raise
    except SafetensorError as error:  # its own words for a full disk
        raise OSError(f"{path} cannot be written ({error}): make room, or choose another place.") from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Make the folder of a file that is written after long work; raise now what `replacing` would raise then."""
    path = expanded(path)
    if not overwrite:
        check_free(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _beside(path):
        pass


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path, ``~`` expanded; a ``ValueError`` if it is none, an address, or names the home of nobody."""
    try:
        found = Path(path).expanduser()
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"a path is a text or a pathlib.Path, and ~ the home of a user; got {path!r}.") from error
    if re.match(r"\w{2,}:/", str(path)):
        address = re.sub(":/{1,2}", "://", str(path), count=1)  # a Path has one slash of the two
        raise ValueError(f"{address} is an address, not a file: download it, and give its path.")
    return found


def shown(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """List what ends so in a folder and its sub-folders, nothing hidden, 2.jpg before 10.jpg; none if it is no folder.

    A download that was shut down leaves a hidden folder, and it is nobody's data. Links to folders are followed, and a
    folder that several lead to, or that lies here itself, is read once. Folders that cannot be read and links that lead
    nowhere are listed, whatever they are called: who reads what is listed finds out why, and can tell.
    """
    suffixes, found, closed, seen = set(suffixes), [], [], set()
    starts = [Path(folder)] if os.path.isdir(folder) else []
    for start in starts:  # which grows: links are followed when all that lies here is known
        for place, folders, names in os.walk(start, onerror=lambda error: closed.append(Path(error.filename))):
            if (own := os.path.realpath(place)) in seen:
                folders.clear()
                continue
            seen.add(own)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            starts += [link for name in folders if (link := Path(place, name)).is_symlink()]
            found += [Path(place, name) for name in names if not name.startswith(".")]
    found = closed + [path for path in found if path.suffix.lower() in suffixes or not os.path.exists(path)]
    named = {path: os.path.splitext(path.relative_to(folder))[0] for path in found}
    return sorted(found, key=lambda path: ([int(n) for n in re.findall(r"\d+", named[path])], path))


def read_toml(path: Path, **options: Any) -> dict[str, Any]:
    """Read a TOML file; ``options`` are `tomllib`'s."""
    return tomllib.loads(path.read_text(encoding="utf-8"), **options)


def check_free(path: Path) -> None:
    """Raise a ``FileExistsError`` that says what to do if anything has this name."""
    if os.path.lexists(path):
        raise FileExistsError(f"{path} exists: give another name, or say so: --overwrite (in Python overwrite=True).")


def digest(*parts: bytes | str | Path | Tensor) -> str:
    """Return the SHA-256 of texts, bytes, files' contents and tensors' values, in this order: 64 hexadecimal digits.

    Parts are kept apart: ("ab", "c") and ("a", "bc") differ.
    """
    return hashlib.sha256(b"".join(_sha256(part).digest() for part in parts)).hexdigest()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as other programs print it."""
    return _sha256(path).hexdigest()


def _sha256(part: bytes | str | Path | Tensor) -> hashlib._Hash:
    if isinstance(part, Path):
        content = hashlib.sha256()
        with part.open("rb") as file:
            while block := file.read(1 << 20):
                content.update(block)
        return content
    if isinstance(part, Tensor):
        part = part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(part.encode() if isinstance(part, str) else part)
