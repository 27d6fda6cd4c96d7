"""LSRGAN (Zhong and Zhou 2020): the rows of its tables, on natural pictures."""

import re

from facesr_lib import assets
from facesr_lib.evaluation import measures
from facesr_lib.evaluation.records import SEED
from facesr_lib.evaluation.tables import PaperTable, Row

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
    return PaperTable(about, (4,), (4,), rows, measures.of_pictures, SETS, ELSEWHERE)


NAMES = {"ESR": "esrgan", "LSR": "lsrgan", "CESR": "cesrgan", "CLSR": "clsrgan"}
MODELS = tuple(row for label, method in NAMES.items() for row in _trainings(label, method))
OTHER_MU = (_row(f"mu = {name[10:]}", "lsrgan", name) for name in assets.names() if name.startswith("lsrgan-mu-"))

TABLES = {
    "lsrgan-1": _table("ESRGAN without and with a companion encoder", Row("bicubic", "bicubic"), *MODELS),
    "lsrgan-2": _table("absolute differences of the luminance", *MODELS),
    "lsrgan-3": _table("what μ does", *_trainings("mu = 0", "esrgan"), *OTHER_MU, *_trainings("mu = 1e-3", "lsrgan")),
}
