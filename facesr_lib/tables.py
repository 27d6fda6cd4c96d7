"""A table: the same rows in a terminal, in a notebook and on a page."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence


class Table:
    """Rows of words and numbers under named columns; a ``ValueError`` if a row is not as long as they are."""

    def __init__(self, columns: Sequence[str], rows: Iterable[Sequence[object]] = ()):
        self.columns, self.rows = list(columns), [list(row) for row in rows]
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{len(row)} cells in a row of a table with {len(self.columns)} columns: {row}.")

    @classmethod
    def of(cls, records: Sequence[Mapping[str, object]]) -> Table:
        """Lay out records that all have the first one's keys."""
        return cls(list(records[0]), (list(record.values()) for record in records))

    def without(self, *columns: str) -> Table:
        """Leave these columns out."""
        kept = [i for i, name in enumerate(self.columns) if name not in columns]
        return Table([self.columns[i] for i in kept], ([row[i] for i in kept] for row in self.rows))

    def __str__(self) -> str:
        """Markdown."""
        lines: list[Sequence[object]] = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)

    def _repr_html_(self) -> str:
        def line(tag: str, cells: Sequence[object]) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

        body = "".join(line("td", row) for row in self.rows)
        return f'<table class="table"><thead>{line("th", self.columns)}</thead><tbody>{body}</tbody></table>'
