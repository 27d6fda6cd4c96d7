"""LSRGAN (Zhong and Zhou 2020): the rows of its tables, on natural pictures."""

import re

from facesr_lib import assets
from facesr_lib.evaluation import measures
from facesr_lib.evaluation.records import SEED
from facesr_lib.evaluation.tables import PaperTable, Row

SETS, ELSEWHERE = ("set5", "set14", "bsd100"), ("pirm", "urban100")


def _trainings(label: str, method: str) -> tuple[Row, ...]:
    """A model's row, and one for each of its trainings that the registry has besides: lsrgan-1 is LSR's with seed 1."""
    others = [name for name in assets.names() if re.fullmatch(rf"{method}-\d+", name)]
    return Row(label, method), *(
        Row(label + SEED + name[len(method) + 1 :], method, {"weights": name}) for name in others
    )


def _table(about: str, rows: tuple[Row, ...], sets: tuple[str, ...] = SETS) -> PaperTable:
    return PaperTable(about, (4,), (4,), rows, measures.of_pictures, sets, ELSEWHERE)


MODELS = (*_trainings("ESR", "esrgan"), *_trainings("LSR", "lsrgan"), *_trainings("CLSR", "clsrgan"))
MU = (*_trainings("mu = 0", "esrgan"), *_trainings("mu = 1e-3", "lsrgan"))

TABLES = {
    "lsrgan-1": _table("ESRGAN without and with a companion encoder", (Row("bicubic", "bicubic"), *MODELS)),
    "lsrgan-2": _table("absolute differences of the luminance", MODELS),
    "lsrgan-3": _table("what μ does", MU, SETS[1:]),
}
