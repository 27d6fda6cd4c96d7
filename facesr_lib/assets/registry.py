"""What the library reads but does not hold: where it lies, how to fetch it, whether it is what it should be.

``data/registry.toml`` names every entry with its addresses, checksum, size, licence and purpose. An entry is looked for
beside the registry (shipped files), in the folder that the environment variable ``FACESR_DATA`` names, and in a cache.
"""

from __future__ import annotations

import difflib
import errno
import functools
import hashlib
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from facesr_lib import images

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Status = Literal["ok", "unchecked", "missing", "incomplete", "wrong checksum"]

_PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED = _PACKAGE / "_data" if (_PACKAGE / "_data").is_dir() else _PACKAGE.parent / "data"


class AssetMissing(FileNotFoundError):
    """A registry entry is not on this machine; the message says how to get it and what works without it."""


class FetchFailed(OSError):
    """A download failed: no network, cut short, wrong checksum, no space. Nothing half-written was kept."""


@dataclass(frozen=True)
class File:
    """One file to download: mirrors in the order they are tried; pictures are shrunk to ``side`` if it is given."""

    path: str
    urls: tuple[str, ...]
    side: int | None = None


@dataclass(frozen=True)
class Entry:
    """One entry of the registry; the head of ``data/registry.toml`` explains the fields."""

    name: str
    path: str
    purpose: str
    licence: str
    size: int
    source: str
    without: str
    sha256: str = ""
    count: int | None = None
    files: tuple[File, ...] = ()


@functools.lru_cache(maxsize=1)
def _registry() -> dict[str, Entry]:
    with (SHIPPED / "registry.toml").open("rb") as file:
        tables = tomllib.load(file)
    return {
        name: Entry(
            name, **{**table, "files": tuple(f for part in table.get("files", ()) for f in _files(table, part))}
        )
        for name, table in tables.items()
    }


def _files(table: dict[str, Any], part: dict[str, Any]) -> list[File]:
    ids = part.get("ids", [0])
    if isinstance(ids, str):
        first, last = ids.split("-")
        ids = range(int(first), int(last) + 1)
    path = part.get("path", table["path"])
    return [File(path.format(id=i), tuple(url.format(id=i) for url in part["urls"]), part.get("side")) for i in ids]


def names() -> list[str]:
    """List the registry's entries."""
    return list(_registry())


def entry(name: str) -> Entry:
    """Look up an entry; ValueError with near matches where there is none."""
    if name not in _registry():
        near = difflib.get_close_matches(name, names(), n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(names())}"
        raise ValueError(f"unknown registry entry {name!r}: {hint}")
    return _registry()[name]


def cache() -> Path:
    """Return the folder for what is fetched or computed, where ``FACESR_DATA`` names no other."""
    import pooch

    return Path(pooch.os_cache("facesr"))


def home() -> Path:
    """Return the folder that `fetch` fills: ``FACESR_DATA``, else the cache."""
    return Path(os.environ["FACESR_DATA"]) if os.environ.get("FACESR_DATA") else cache()


def path(name: str) -> Path:
    """Find an entry's file, or its folder if it has many files; contents are not checked (see `verify`).

    Raises
    ------
    AssetMissing
        It is not on this machine, or its folder is incomplete.
    ValueError
        The registry has no such entry.
    """
    item = entry(name)
    place, found = _find(item)
    if found == (item.count or 1):
        return place
    state = f"is incomplete ({found} of {item.count} pictures in {place})" if found else "is not on this machine"
    remedy = f"run `facesr assets fetch {name}` ({_megabytes(item)}), or " if item.files else ""
    thing = "file" if item.count is None else f"{item.count} pictures"
    raise AssetMissing(
        f"registry entry {name!r} {state}; {remedy}put the {thing} at {home() / item.path} "
        f"(source: {item.source}); without it, {item.without}"
    )


def checked(name: str) -> Path:
    """As `path`, and the contents are those that the registry knows; ``AssetMissing`` if not."""
    place = path(name)
    if (status := verify(name)) != "ok":
        raise AssetMissing(f"{place} is not the published {name!r} ({status}): delete it.")
    return place


def verify(name: str) -> Status:
    """Compare what is on this machine with the registry; "unchecked" where that knows no checksum."""
    item = entry(name)
    place, found = _find(item)
    if found != (item.count or 1):
        return "incomplete" if found else "missing"
    if item.count is None and _mismatch(place, item):
        return "wrong checksum"
    return "ok" if item.sha256 else "unchecked"


def fetch(name: str, force: bool = False, progress: bool = True) -> Path:
    """Download an entry unless it is here and right; each file is checked before it takes its place.

    A folder that was interrupted is continued.

    Parameters
    ----------
    force
        Download again what is here.

    Raises
    ------
    FetchFailed
        No address, no network, cut short, wrong checksum, no space; the message says what still works.
    """
    item = entry(name)
    if not force and verify(name) in ("ok", "unchecked"):
        return path(name)
    by_hand = f"put it at {home() / item.path} yourself (source: {item.source})"
    if not item.files:
        raise FetchFailed(f"registry entry {name!r} has no address to fetch it from: {by_hand}")
    many = len(item.files) > 1
    for file in tqdm(item.files, desc=name, unit="file", disable=not (many and progress)):
        target = home() / file.path
        if many and not force and target.is_file():
            continue
        if failures := _download(item, file, target, progress and not many):
            raise FetchFailed(
                f"could not fetch {name!r}: {'; '.join(failures)}. Nothing half-written was kept; without it, "
                f"{item.without}. Try again later, or {by_hand}"
            )
    return path(name)


def table() -> str:
    """Lay out the registry for a terminal: name, whether it is here, size, licence, purpose."""
    rows = [("name", "here", "size", "licence", "purpose")]
    for item in _registry().values():
        _, found = _find(item)
        here = "yes" if found == (item.count or 1) else f"{found} of {item.count}" if found else "no"
        rows.append((item.name, here, _megabytes(item), item.licence, item.purpose))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _find(item: Entry) -> tuple[Path, int]:
    """Where an entry lies, and how many of its files are there (at most as many as it should have)."""
    partial = (home() / item.path, 0)
    for place in (lambda: SHIPPED, home, cache):
        where = place() / item.path
        if item.count is None:
            found = int(where.is_file())
        else:
            found = min(item.count, sum(p.suffix.lower() in images.SUFFIXES for p in where.rglob("*")))
        if found == (item.count or 1):
            return where, found
        partial = max(partial, (where, found), key=lambda candidate: candidate[1])
    return partial


def _download(item: Entry, file: File, target: Path, progress: bool) -> list[str]:
    """Try the mirrors; return why each failed, or nothing once the checked file lies at ``target``."""
    import pooch

    failures: list[str] = []
    for url in file.urls:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
                part = Path(folder) / target.name
                pooch.HTTPDownloader(progressbar=progress)(url, str(part), None)
                if item.count is None and (wrong := _mismatch(part, item)):
                    raise ValueError(wrong)
                if file.side:
                    images.write(images.resize(images.read(part)[None], (file.side, file.side), "box"), part)
                os.replace(part, target)
            return []
        except OSError as error:
            if error.errno == errno.ENOSPC:
                return [*failures, f"no space left at {target.parent} ({_megabytes(item)} are needed)"]
            failures.append(f"{url}: {error}")
        except ValueError as error:
            failures.append(f"{url}: {error}")
    return failures


def _mismatch(file: Path, item: Entry) -> str:
    """Say how a file differs from its entry, or nothing."""
    if (size := file.stat().st_size) != item.size:
        return f"{size} bytes came instead of {item.size}"
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return "" if digest.hexdigest().startswith(item.sha256) else f"wrong checksum {digest.hexdigest()[:16]}..."


def _megabytes(item: Entry) -> str:
    return f"{item.size / 1e6:.3g} MB"
