"""What was measured, and with what: a table's values in a file that knows its weights, its faces and its code."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from math import hypot, sqrt
from pathlib import Path
from statistics import fmean

import torch

from facesr_lib import files

OF_ALL_FACES = -1


@dataclass(frozen=True)
class Record:
    """One measured value."""

    table: str
    setting: str  # the scale that was measured, such as "16x"
    paper: str  # the paper's that it stands for: "64x" under a small prior
    row: str  # its label; "LSR, seed 1" is another training of "LSR"
    face: int  # or OF_ALL_FACES: the set's value, whose pseudo-values stand under its faces
    metric: str  # in `measures.METRICS`, perhaps with what was changed: "niqe-256", "fid-efficientnet-lite0"
    value: float


@dataclass(frozen=True)
class Origin:
    """What results were measured with; digests are the first 16 digits of SHA-256."""

    prior: str  # "none" where networks with weights of their own were measured
    weights: dict[str, str]  # of each network that was asked: the prior's "G", "D", "F", others by registry name
    faces: int
    faces_from: str  # such as "held-out faces"
    faces_digest: str
    code: str  # digest of the sources that can change a number
    device: str  # and precision
    metrics: str  # that could run
    effort: float
    seed: int
    batch: int
    networks: str = ""  # where there is no prior: how wide each network is, and how much it has seen

    def budget(self, measured: str = "") -> str:
        """Say it in words; ``measured`` stands for the faces where there are none."""
        faces = measured or f"{self.faces} {self.faces_from}"
        if self.prior == "none":
            return f"{self.networks or 'shipped networks'}, {faces}"
        return f"prior {self.prior}, {faces}, effort {self.effort:g}, seed {self.seed}"


@dataclass(frozen=True)
class Results:
    """A table's values and what they were measured with."""

    origin: Origin
    records: tuple[Record, ...]

    def mean(self, row: str, metric: str, paper: str) -> float:
        """Mean of a row's values at the paper's setting, over pictures and trainings."""
        at = row, metric, paper
        return fmean(r.value for r in self.records if (model(r.row), r.metric, r.paper) == at)


def write(path: Path, results: Results, *, overwrite: bool = False) -> None:
    """Write results as CSV under a head of ``# key: value`` lines, in full or not at all.

    A ``FileExistsError`` says that there is such a file and ``overwrite`` is not set.
    """
    body = io.StringIO()
    writer = csv.writer(body, lineterminator="\n")
    writer.writerow(field.name for field in fields(Record))
    writer.writerows((*astuple(record)[:-1], written(record.value)) for record in results.records)
    head = (f"# {key}: {json.dumps(value)}\n" for key, value in asdict(results.origin).items())
    text = "".join(head) + body.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path, overwrite=overwrite) as temporary:
        temporary.write_text(_seal(text) + text, encoding="utf-8", newline="\n")


def written(value: float) -> str:
    """Six digits; a whole number has all of its own."""
    return f"{value:.0f}" if value % 1 == 0 else f"{value:.6g}"


def read(path: Path) -> Results:
    """Read what `write` wrote; a ``ValueError`` if the file is none of these, was cut short, or was changed."""
    try:
        first, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        if first != _seal("".join(lines)):
            raise ValueError("cut short or changed")
        head = dict(line[2:].split(": ", 1) for line in lines if line.startswith("#"))
        _, *rows = csv.reader(line for line in lines if not line.startswith("#"))
        records = tuple(
            Record(table, setting, paper, row, int(face), metric, float(value))
            for table, setting, paper, row, face, metric, value in rows
        )
        return Results(Origin(**{key: json.loads(value) for key, value in head.items()}), records)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} holds no results in full ({error}): measure them anew with `facesr table`."
        ) from error


def _seal(text: str) -> str:
    return f"# content: {files.digest(text)[:16]}\n"


SEED = ", seed "


def model(row: str) -> str:
    """Return the label of a row without its training's seed."""
    return row.partition(SEED)[0]


def by_training(records: Iterable[Record], metric: str) -> dict[str, dict[int, float]]:
    """Collect one model's values of a metric: its training's seed ("" for the method's own weights) → face → value.

    A ``ValueError`` if a face has two.
    """
    values: dict[str, dict[int, float]] = {}
    for r in records:
        if r.metric == metric:
            faces = values.setdefault(r.row.partition(SEED)[2], {})
            if r.face in faces:
                place = f"{r.table}, {r.setting}, {r.row}"
                raise ValueError(f"{place}: face {r.face} has two values of {metric}; give one run's records.")
            faces[r.face] = r.value
    return values


def interval(values: Sequence[Sequence[float]], seed: int = 0) -> tuple[float, float]:
    """95 % interval of a mean over trainings and faces, (T, N): bootstrap over faces, Student's t over trainings.

    The faces are drawn anew 2,000 times. One training tells nothing of how far others would lie from it.
    """
    from scipy import stats

    sample = torch.tensor(values, dtype=torch.float64)
    faces, t = sample.mean(0), len(sample)
    drawn = torch.randint(len(faces), (2000, len(faces)), generator=torch.Generator().manual_seed(seed))
    low, high = faces[drawn].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    if t == 1:
        return low, high
    mean, chance = faces.mean().item(), stats.t.ppf(0.975, t - 1) * sample.mean(1).std().item() / sqrt(t)
    return mean - hypot(mean - low, chance), mean + hypot(high - mean, chance)
