"""What became of each photo, and where its results may lie: never over a photo, over nothing without leave."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from facesr_lib import files
from facesr_lib.restoration.detection import NoSuchFace


@dataclass
class Outcome:
    """What became of one photo."""

    photo: Path
    output: Path | None = None  # None if nothing was written
    residual: float = float("nan")  # root mean square, in grey levels of 255: the result made small less what was given
    error: str = ""  # what went wrong, if anything did
    mistaken: bool = False  # whether what was asked for, and not the photo, is why

    @property
    def message(self) -> str:
        """One line for a terminal."""
        if self.output is None:
            return f"{self.photo}: {self.error}"
        doubt = "" if self.residual <= 25 else "  (the result does not explain this picture well)"
        return f"{self.photo} → {self.output}  off by {self.residual:.1f} grey levels{doubt}"


class Outputs:
    """Names for results in a folder, which is made if it does not exist; a ``ValueError`` if it is none.

    No result ever takes the place of one of the ``photos``, or of another result; of another file of its name if it may
    ``overwrite``.
    """

    def __init__(self, folder: str | Path, photos: Iterable[Path], overwrite: bool):
        self._folder, self._overwrite = files.expanded(folder), overwrite
        if self._folder.exists() and not self._folder.is_dir():
            raise ValueError(f"{folder} is no folder: name a folder for the results.")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._originals = {_inode(photo) for photo in photos} - {None}
        self._names: set[str] = set()

    def named(self, stem: str, *patterns: str) -> list[Path]:
        """Results of one photo, as "{}.png" and "{}-faces.png"; a ``ValueError`` if one may not be written."""
        names, k = [pattern.format(stem) for pattern in patterns], 2
        while not self._names.isdisjoint(name.casefold() for name in names):  # on many disks A.png and a.png are one
            names, k = [pattern.format(f"{stem}-{k}") for pattern in patterns], k + 1
        self._names.update(name.casefold() for name in names)
        outputs = [self._folder / name for name in names]
        for output in outputs:
            if _inode(output) in self._originals:
                raise ValueError(f"the result would replace the photo {output}: choose another folder.")
            with suppress(FileNotFoundError):
                os.lstat(output)  # tells of a name that nothing can have
                if not self._overwrite:
                    raise ValueError(f"{output} exists: choose another folder, or replace it by --overwrite.")
        return outputs


@contextmanager
def told(outcome: Outcome, output: Path | None = None) -> Iterator[None]:
    """Let the outcome tell why the photo could not be restored or, where it is named, ``output`` not be written."""
    try:
        yield
    except UnicodeError:
        outcome.error = "its name cannot be written on this system: rename the photo."
    except ValueError as error:
        outcome.error, outcome.mistaken = str(error), isinstance(error, NoSuchFace)
    except OSError as error:  # the system's own words name neither the trouble nor a way out
        place, reason = error.filename or output, error.strerror or error  # a full disk, a name that is too long
        if output:
            outcome.error = f"{place} could not be written ({reason}): make room, or choose another folder."
        elif error.strerror:
            outcome.error = f"{place} cannot be used ({reason}): rename the photo, or choose another folder."
        else:
            outcome.error = str(error)


def paths(photos: Iterable[str | Path]) -> list[Path]:
    """Return the photos as paths; a ``ValueError`` if one was given instead of a list, or something else."""
    if isinstance(photos, (str, bytes, os.PathLike)) or not isinstance(photos, Iterable):
        raise ValueError(f"photos is a list of paths; got {photos!r}: put it in brackets.")
    return [files.expanded(photo) for photo in photos]


def _inode(path: Path) -> tuple[int, int] | None:
    """Which file this is, by whatever name or link; ``None`` if it is none, or cannot be one."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # no system takes some names: too long, or not to be encoded
        return None
    return status.st_dev, status.st_ino
