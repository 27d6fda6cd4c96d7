"""LSRGAN (Zhong and Zhou 2020): the rows of its tables, on natural pictures."""

import re

from torch import Tensor

from facesr_lib import assets, data
from facesr_lib.evaluation import measures
from facesr_lib.evaluation.records import SEED
from facesr_lib.evaluation.tables import PaperTable, Row

PATCHES = {"zebra's legs": (13, 200, 120), "hat": (8, 30, 200), "eyes": (8, 200, 230), "letters": (12, 40, 60)}
"""Patches of set14 like those of figure 3, letters for its digits: picture, top, left; 128² each."""
SETS, ELSEWHERE = ("set5", "set14", "bsd100"), ("pirm", "urban100")


def _trainings(label: str, method: str) -> tuple[Row, ...]:
    """A model's row, and one for each of its trainings that the registry has besides: lsrgan-1 is LSR's with seed 1.

    These stand in the repository alone; elsewhere their rows are left out, and it is said how to come by them.
    """
    others = [name for name in assets.names() if re.fullmatch(rf"{method}-\d+", name)]
    return Row(label, method), *(_row(label + SEED + name[len(method) + 1 :], method, name) for name in others)


def _row(label: str, method: str, weights: str) -> Row:
    return Row(label, method, {"weights": weights}, needs=weights)


def _table(about: str, *rows: Row) -> PaperTable:
    return PaperTable(about, {4: 4}, rows, measures.of_pictures, SETS, ELSEWHERE)


def _patch(name: str) -> list[Tensor]:
    picture, top, left = PATCHES[name]
    return [data.picture_set("set14")[picture][:, top : top + 128, left : left + 128]]


NAMES = {"ESR": "esrgan", "LSR": "lsrgan", "CESR": "cesrgan", "CLSR": "clsrgan"}
MODELS = tuple(row for label, method in NAMES.items() for row in _trainings(label, method))
START = _row("stage 1", "esrgan", "esrgan-start")
FULL_SIZE = Row("Real-ESRGAN", "realesrgan", needs="realesrgan")
OTHER_MU = (_row(f"mu = {name[10:]}", "lsrgan", name) for name in assets.names() if name.startswith("lsrgan-mu-"))

TABLES = {
    "lsrgan-1": _table(
        "ESRGAN without and with a companion encoder", Row("bicubic", "bicubic"), START, *MODELS, FULL_SIZE
    ),
    "lsrgan-2": _table("absolute differences of the luminance", *MODELS),
    "lsrgan-3": _table("what μ does", *_trainings("mu = 0", "esrgan"), *OTHER_MU, *_trainings("mu = 1e-3", "lsrgan")),
    "lsrgan-fig3": PaperTable(
        "patches like those of figure 3",
        {4: 4},
        (Row("bicubic", "bicubic"), *(Row(label, method) for label, method in NAMES.items()), FULL_SIZE),
        measures.of_patches,
        tuple(PATCHES),
        read=_patch,
    ),
}
