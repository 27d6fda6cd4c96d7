"""LSRGAN (Zhong and Zhou 2020): the rows of its tables, on natural pictures."""

from facesr_lib.evaluation import measures
from facesr_lib.evaluation.tables import PaperTable, Row

ESR, LSR, CLSR = Row("ESR", "esrgan"), Row("LSR", "lsrgan"), Row("CLSR", "clsrgan")
SETS, ELSEWHERE = ("set5", "set14", "bsd100"), ("pirm", "urban100")


def _table(about: str, rows: tuple[Row, ...], sets: tuple[str, ...] = SETS) -> PaperTable:
    return PaperTable(about, (4,), (4,), rows, measures.of_pictures, sets, ELSEWHERE)


TABLES = {
    "lsrgan-1": _table("ESRGAN without and with a companion encoder", (Row("bicubic", "bicubic"), ESR, LSR, CLSR)),
    "lsrgan-2": _table("absolute differences of the luminance", (ESR, LSR, CLSR)),
    "lsrgan-3": _table("what μ does", (Row("mu = 0", "esrgan"), Row("mu = 1e-3", "lsrgan")), SETS[1:]),
}
