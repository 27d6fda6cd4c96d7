"""The rows of the papers' tables: one module a paper, named as its file in ``data/papers``."""

from importlib import import_module
from pkgutil import iter_modules

from facesr_lib.evaluation.tables import PaperTable

TABLES: dict[str, PaperTable] = {
    name: table
    for module in iter_modules(__path__)
    for name, table in import_module(f"{__name__}.{module.name}").TABLES.items()
}
"""Name → table, of all papers."""
