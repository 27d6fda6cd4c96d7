"""What was measured, and with what: a table's values in a file that knows its weights, its faces and its code."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

import torch

from facesr_lib import files

OF_ALL_FACES = -1


@dataclass(frozen=True)
class Record:
    """One measured value.

    Attributes
    ----------
    table, row : str
    setting, paper : str
        The scale that was measured, and the paper's that it stands for: "16x" for "64x" under a small prior.
    face : int
        Index of the face, or `OF_ALL_FACES`: one value for the set, whose pseudo-values stand under its faces.
    metric : str
        In `measures.METRICS`, perhaps with what was changed: "niqe-256", "fid-efficientnet-lite0".
    value : float
    """

    table: str
    setting: str
    paper: str
    row: str
    face: int
    metric: str
    value: float


@dataclass(frozen=True)
class Origin:
    """What results were measured with; the digests are beginnings of SHA-256.

    Attributes
    ----------
    prior, weights : str
        Name, and digest of the networks' tensors.
    faces, faces_from, faces_digest
        How many, such as "held-out faces", and digest of their pixels.
    code : str
        Digest of the sources that can change a number (`run.code`).
    device, metrics : str
        Kind and precision; the metrics that could run.
    effort, seed, batch
        As in `run.units`.
    """

    prior: str
    weights: str
    faces: int
    faces_from: str
    faces_digest: str
    code: str
    device: str
    metrics: str
    effort: float
    seed: int
    batch: int

    def __str__(self) -> str:
        """The budget, in words."""
        return f"prior {self.prior}, {self.faces} {self.faces_from}, effort {self.effort:g}, seed {self.seed}"


@dataclass(frozen=True)
class Results:
    """A table's values and what they were measured with."""

    origin: Origin
    records: tuple[Record, ...]


def write(path: Path, results: Results, *, overwrite: bool = False) -> None:
    """Write results as CSV under a head of ``# key: value`` lines, in full or not at all.

    Raises
    ------
    FileExistsError
        If there is such a file and ``overwrite`` is not set.
    """
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists and is not replaced: name another file, or ask for it to be overwritten.")
    body = io.StringIO()
    writer = csv.writer(body, lineterminator="\n")
    writer.writerow(field.name for field in fields(Record))
    writer.writerows((*astuple(record)[:-1], f"{record.value:.6g}") for record in results.records)
    head = (f"# {key}: {json.dumps(value)}\n" for key, value in asdict(results.origin).items())
    text = "".join(head) + body.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary:
        temporary.write_text(_seal(text) + text, encoding="utf-8", newline="\n")


def read(path: Path) -> Results:
    """Read what `write` wrote.

    Raises
    ------
    ValueError
        If the file is none of these, was cut short, or was changed.
    """
    try:
        first, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        if first != _seal("".join(lines)):
            raise ValueError("cut short or changed")
        head = dict(line[2:].split(": ", 1) for line in lines if line.startswith("#"))
        _, *rows = csv.reader(line for line in lines if not line.startswith("#"))
        records = tuple(Record(*words, int(face), metric, float(value)) for *words, face, metric, value in rows)
        return Results(Origin(**{key: json.loads(value) for key, value in head.items()}), records)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} holds no results in full ({error}): measure them anew with `facesr table`."
        ) from error


def _seal(text: str) -> str:
    return f"# content: {files.digest(text)[:16]}\n"


def by_face(records: Iterable[Record], metric: str) -> dict[int, float]:
    """Collect one row's values of a metric: face → value.

    Raises
    ------
    ValueError
        If a face has two.
    """
    values: dict[int, float] = {}
    for r in records:
        if r.metric == metric:
            if r.face in values:
                place = f"{r.table}, {r.setting}, {r.row}"
                raise ValueError(f"{place}: face {r.face} has two values of {metric}; give one run's records.")
            values[r.face] = r.value
    return values


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of a mean: the faces drawn anew 2,000 times."""
    sample = torch.tensor(values, dtype=torch.float64)
    drawn = torch.randint(len(sample), (2000, len(sample)), generator=torch.Generator().manual_seed(seed))
    low, high = sample[drawn].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
