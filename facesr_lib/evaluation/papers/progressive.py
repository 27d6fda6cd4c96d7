"""Progressive face super-resolution (Kim et al. 2019): the rows of its tables, on faces of 128² halved three times."""

from collections.abc import Callable

from facesr_lib.degrade import halved
from facesr_lib.evaluation import measures
from facesr_lib.evaluation.tables import BASELINES, PaperTable, Row

SUPERVISED = Row("URDGN", "urdgn"), Row("FSRNet", "fsrnet"), Row("VDSR", "vdsr"), Row("progressive", "progressive")


def _table(about: str, rows: tuple[Row, ...], measure: Callable, *networks: str) -> PaperTable:
    return PaperTable(
        about, (8,), (8,), rows, measure, (), ("unaligned",), resolution=128, networks=networks, operator=halved
    )


TABLES = {
    "progressive-1": _table(
        "the landmark network",
        (Row("FAN", options={"network": "fan"}), Row("distilled FAN", "progressive")),
        measures.attention,
        "landmarks",
    ),
    "progressive-3": _table("progressive against the others", (*BASELINES, *SUPERVISED), measures.reported),
}
