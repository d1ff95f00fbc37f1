"""Tables of a parsed page: which hold data and which only lay out, and rows of cells that keep their columns."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data_pipeline.extract import tags
from data_pipeline.extract.layout import (
    BEGIN,
    END,
    EXTENT,
    KIND,
    NO_NUMBER,
    NODE,
    NUMBER,
    PARENT,
    PRE,
    STOP,
    TAG,
)
from data_pipeline.extract.parse import Tree

CELL = 120
"""Mean characters of a filled cell from which a table only lays out the page, and its cells become lines."""
MAX_SPAN = 1000
"""Columns or rows that a cell may span (HTML standard, 4.9.11)."""
MAX_COLUMNS = 1000
"""Columns of a row that are kept in place."""
REPEATED = 80
"""Bytes of a cell up to which its text is repeated in every row it spans; longer cells leave the other rows empty."""
REGULAR = 0.5
"""Share of rows with the most common number of columns from which a table holds data."""
_ID = tags.ID
_TABLE, _TR, _CAPTION = _ID["table"], _ID["tr"], _ID["caption"]
_CELLS = (_ID["td"], _ID["th"])
_NOT_IN_DATA = tuple(
    _ID[name] for name in ("h1", "h2", "p", "ul", "ol", "blockquote", "form", "section", "article")
)
"""Elements of which a table of data has at most one in four cells."""


@dataclass(frozen=True)
class Table:
    """A table that holds no other."""

    node: int
    rows: list[list[int]]
    """Cells of each row, by element; rows without cells are left out."""
    blocks: np.ndarray
    """Numbers of its blocks, in the order of the page, captions included."""
    lays_out: bool
    """It only lays out the page: its cells become lines."""
    holds_data: bool
    """It is a grid of short cells, to be kept or left out as a whole."""
    has_header: bool


class Tables:
    """The tables of a page by element, in the order of the page."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._tag = tree.nodes[:, TAG]
        self._tables = np.flatnonzero(self._tag == _TABLE)
        self.all: list[Table] = []
        if not len(self._tables):
            return
        self._rows = np.flatnonzero(self._tag == _TR)
        self._cells = np.flatnonzero((self._tag == _CELLS[0]) | (self._tag == _CELLS[1]))
        self._other = np.flatnonzero(np.isin(self._tag, _NOT_IN_DATA))
        self._order = np.argsort(tree.blocks[:, NODE], kind="stable")
        self._sorted = tree.blocks[self._order, NODE]
        following = np.append(self._tables[1:], len(self._tag))
        for node, nested in zip(self._tables.tolist(), following.tolist(), strict=True):
            if nested >= tree.nodes[node, END]:
                self.all.append(self._table(node))

    @cached_property
    def by_node(self) -> dict[int, Table]:
        """Tables that hold no other, by element."""
        return {t.node: t for t in self.all}

    def lays_out(self, node: int) -> bool:
        """Whether the cells of a table become lines."""
        table = self.by_node.get(node)
        return table is None or table.lays_out

    def _table(self, node: int) -> Table:
        nodes, end = self._tree.nodes, int(self._tree.nodes[node, END])
        first, last = np.searchsorted(self._sorted, (node, end))
        if first == last:  # crawler traps hold thousands
            return Table(node, [], self._order[first:last], True, False, False)
        rows: dict[int, list[int]] = {}
        for cell in _between(self._cells, node, end).tolist():
            rows.setdefault(int(nodes[cell, PARENT]), []).append(cell)
        blocks = np.sort(self._order[first:last])
        of = self._tree.blocks[blocks]
        chars = int((of[:, STOP] - of[:, BEGIN]).sum())
        filled = max(1, len(np.unique(of[:, NODE])))
        presentation = nodes[node, EXTENT] == 1
        lays_out = bool(presentation or (of[:, KIND] & PRE).any() or chars > CELL * filled)
        widths = Counter(self._width(cells) for cells in rows.values())
        width, times = widths.most_common(1)[0] if widths else (0, 0)
        other = len(_between(self._other, node, end))
        n_cells = sum(map(len, rows.values()))
        holds_data = (
            not lays_out
            and len(rows) >= 2
            and width >= 2
            and times >= REGULAR * len(rows)
            and 4 * other <= n_cells
            and len(blocks) <= 2 * n_cells
        )
        has_header = any(self._tag[cell] == _CELLS[1] for cells in rows.values() for cell in cells)
        return Table(node, list(rows.values()), blocks, lays_out, holds_data, has_header)

    def _width(self, cells: list[int]) -> int:
        return sum(_span(int(n)) for n in self._tree.nodes[cells, NUMBER])

    def lines(self, table: Table, texts: dict[int, list[str]]) -> list[tuple[int, str]]:
        """(row element, text) of the rows of a table; `texts` holds the pieces of text of its cells.

        Cells stand in their columns, parted by ` | `: an empty one is empty, one that spans columns is followed by empty
        ones, one that spans rows stands in each of them. Rows without text of their own are left out.
        """
        lines = []
        spanning: dict[int, tuple[int, str]] = {}  # column → rows that are left, text
        for cells in table.rows:
            row: list[str] = []
            own = False

            def continued(row: list[str] = row) -> None:
                while len(row) in spanning and len(row) < MAX_COLUMNS:
                    left, text = spanning.pop(len(row))
                    if left > 1:
                        spanning[len(row)] = left - 1, text
                    row.append(text)

            for cell in cells:
                continued()
                text = " ".join(texts.get(cell, ())).replace("\n", " ")
                own = own or bool(text)
                columns = min(_span(int(self._tree.nodes[cell, NUMBER])), max(0, MAX_COLUMNS - len(row)))
                down = min(int(self._tree.nodes[cell, EXTENT]), MAX_SPAN)
                for k in range(columns):
                    shown = text if k == 0 else ""
                    if down > 1:
                        spanning[len(row)] = down - 1, shown if len(shown.encode()) <= REPEATED else ""
                    row.append(shown)
            continued()
            if own:
                filled = sum(map(bool, row))
                line = next(filter(None, row)) if filled == 1 and len(cells) == 1 else " | ".join(row).strip()
                lines.append((int(self._tree.nodes[cells[0], PARENT]), line))
        return lines


def _span(stated: int) -> int:
    return 1 if stated == NO_NUMBER or stated < 1 else min(stated, MAX_SPAN)


def _between(ascending: np.ndarray, begin: int, end: int) -> np.ndarray:
    first, last = np.searchsorted(ascending, (begin, end))
    return ascending[first:last]
