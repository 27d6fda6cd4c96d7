"""What the library reads but does not hold: where it lies, how to fetch it, whether it is what it should be.

``data/registry.toml`` names every entry with its addresses, checksum, size, licence and purpose. An entry is looked for
beside the registry (shipped files), in the folder that the environment variable ``FACESR_DATA`` names, in a cache, and
where torch keeps its own downloads.
"""

from __future__ import annotations

import errno
import functools
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm.auto import tqdm

from facesr_lib import files, images
from facesr_lib.messages import choose
from facesr_lib.tables import Table

Status = Literal["ok", "unchecked", "missing", "incomplete", "wrong checksum", "other pictures"]

_PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED = _PACKAGE / "_data" if (_PACKAGE / "_data").is_dir() else _PACKAGE.parent / "data"


class AssetMissing(FileNotFoundError):
    """A registry entry, or a package, is not on this machine; the message says how to get it, or what does without."""


class FetchFailed(OSError):
    """A download failed: no network, cut short, wrong checksum, no space. Nothing half-written was kept."""


@dataclass(frozen=True)
class File:
    """One file to download: mirrors in the order they are tried; pictures are shrunk to ``side`` if it is given.

    ``look`` is a picture's `images.fingerprint`, in hexadecimal digits; "": nothing is compared.
    """

    path: str
    urls: tuple[str, ...]
    side: int | None = None
    look: str = ""


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


def load(registry: Path) -> dict[str, Entry]:
    """Read a registry; the head of ``data/registry.toml`` explains its fields."""
    found = {}
    for name, fields in files.read_toml(registry).items():
        fields["path"] = os.path.expanduser(fields["path"])
        parts = [file for part in fields.pop("files", ()) for file in _files(**{"path": fields["path"], **part})]
        found[name] = Entry(name, **fields, files=tuple(parts))
    return found


def _files(
    path: str, urls: list[str], ids: str | list[int] = "0-0", looks: Sequence[str] = (), **of_each: Any
) -> list[File]:
    if isinstance(ids, str):
        first, last = map(int, ids.split("-"))
        ids = list(range(first, last + 1))
    return [
        File(path.format(id=i), tuple(url.format(id=i) for url in urls), look=look, **of_each)
        for i, look in zip(ids, looks or [""] * len(ids), strict=True)
    ]


@functools.cache
def entries() -> dict[str, Entry]:
    """Return the registry that is shipped, by name."""
    return load(SHIPPED / "registry.toml")


def names() -> list[str]:
    """List the registry's entries."""
    return list(entries())


def entry(name: str) -> Entry:
    """Look up an entry; ValueError with near matches where there is none."""
    return entries()[choose(name, entries(), "registry entry")]


def cache() -> Path:
    """Return the folder for what is fetched or computed, where ``FACESR_DATA`` names no other."""
    import pooch

    return Path(pooch.os_cache("facesr"))


def home() -> Path:
    """Return the folder that `fetch` fills: ``FACESR_DATA``, else the cache."""
    return _absolute(os.environ["FACESR_DATA"]) if os.environ.get("FACESR_DATA") else cache()


@functools.cache
def _absolute(folder: str) -> Path:
    """Where a folder lay when it was first asked for, though the process may go elsewhere since."""
    return files.expanded(folder).absolute()


def path(name: str) -> Path:
    """Find an entry's file, or its folder if it has many files; contents are not checked (see `verify`).

    An ``AssetMissing`` says that it is not on this machine, or that its folder is incomplete.
    """
    item = entry(name)
    place, found = _find(item)
    if found == (item.count or 1):
        return place
    state = f"is incomplete ({found} of {item.count} pictures in {place})" if found else "is not on this machine"
    remedy = f"run `facesr assets fetch {name}` ({_size(item)}), or " if item.files else ""
    thing = "file" if item.count is None else f"{item.count} pictures"
    raise AssetMissing(
        f"registry entry {name!r} {state}; {remedy}put the {thing} at {home() / item.path} "
        f"(source: {item.source}); without it, {item.without}."
    )


def locate(name: str | Path) -> Path:
    """Where something lies that is named by its path, or as a registry entry; errors as `path`'s."""
    place = files.expanded(name)
    plain = place.name == str(name) and not place.suffix and not place.is_file()
    return path(str(name)) if plain and (str(name) in entries() or not place.exists()) else place


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
    compared = [file for file in item.files if file.look]
    there = {p.stem: p for p in files.shown(place, images.SUFFIXES)} if compared else {}
    if not all(_alike(there.get(Path(file.path).stem, place), file) for file in compared):
        return "other pictures"
    return "ok" if item.sha256 or compared else "unchecked"


def fetch(name: str, force: bool = False, progress: bool = True) -> Path:
    """Download an entry unless it is here and right (or ``force``); each file is checked before it takes its place.

    A folder that was interrupted is continued; two fetches at once do each other no harm. A `FetchFailed` says why, and
    what still works.
    """
    item = entry(name)
    if not force and verify(name) in ("ok", "unchecked"):
        return path(name)
    by_hand = f"put it at {home() / item.path} yourself (source: {item.source})"
    if not item.files:
        raise FetchFailed(f"registry entry {name!r} has no address to fetch it from: {by_hand}.")
    many = len(item.files) > 1
    for file in tqdm(item.files, desc=name, unit="file", disable=not (many and progress)):
        target = home() / file.path
        if many and not force and target.is_file() and _alike(target, file):
            continue
        if failures := _download(item, file, target, progress and not many):
            raise FetchFailed(
                f"could not fetch {name!r}: {'; '.join(failures)}. Nothing half-written was kept; without it, "
                f"{item.without}. Try again later, or {by_hand}."
            )
    return path(name)


def table() -> Table:
    """Lay out the registry: name, whether it is here, size, licence, purpose."""
    rows = []
    for item in entries().values():
        _, found = _find(item)
        here = "yes" if found == (item.count or 1) else f"{found} of {item.count}" if found else "no"
        rows.append((item.name, here, _size(item), item.licence, item.purpose))
    return Table(("name", "here", "size", "licence", "purpose"), rows)


def _find(item: Entry) -> tuple[Path, int]:
    """Where an entry lies, and how many of its files are there (at most as many as it should have)."""
    places = [folder / item.path for folder in (SHIPPED, home(), cache())]
    places.append(Path(torch.hub.get_dir(), "checkpoints", Path(item.path).name))
    if item.count is None:
        found = [int(place.is_file()) for place in places]
    else:
        found = [min(item.count, len(files.shown(place, images.SUFFIXES))) for place in places]
    return places[found.index(max(found))], max(found)


def _download(item: Entry, file: File, target: Path, progress: bool) -> list[str]:
    """Try the mirrors; return why each failed, or nothing once the checked file lies at ``target``."""
    import pooch

    failures: list[str] = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
            part = Path(folder) / target.name
            for url in file.urls:
                try:
                    pooch.HTTPDownloader(progressbar=progress)(url, str(part), None)
                    if item.count is None and (wrong := _mismatch(part, item)):
                        raise ValueError(wrong)
                    if file.side:
                        picture = images.read(part)
                        if not _alike(part, file):
                            raise ValueError("another picture came")
                        images.write(images.resize(picture[None], (file.side, file.side), "box"), part)
                    os.replace(part, target)
                    return []
                except (OSError, ValueError) as error:
                    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                        return [*failures, f"no space left at {target.parent} ({_size(item)} are needed)"]
                    failures.append(f"{url}: {error}")
    except OSError as error:
        return [f"the folder {target.parent} cannot be written ({error.strerror}): set FACESR_DATA to one that can"]
    return failures


def _mismatch(file: Path, item: Entry) -> str:
    """Say how a file differs from its entry, or nothing; of some that people put here themselves little is known."""
    if not (item.sha256 or item.files):
        return ""
    if (size := file.stat().st_size) != item.size:
        return f"{size} bytes came instead of {item.size}"
    found = files.sha256(file)
    return "" if found.startswith(item.sha256) else f"wrong checksum {found[:16]}..."


def _alike(picture: Path, file: File) -> bool:
    """Whether a picture looks like the registry's, where that knows what it looks like."""
    with suppress(OSError, ValueError):  # no picture
        return not file.look or (images.fingerprint(images.read(picture)) ^ int(file.look, 16)).bit_count() <= 32
    return False


def _size(item: Entry) -> str:
    return f"{item.size / 1e6:.3g} MB" if item.size < 1e9 else f"{item.size / 1e9:.3g} GB"
