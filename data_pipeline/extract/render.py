"""Blocks that were kept → text: paragraphs and list items as lines, rows of tables as lines, code as it stood."""

from __future__ import annotations

import numpy as np

from data_pipeline.extract import tags
from data_pipeline.extract.layout import BEGIN, KIND, NODE, PARENT, PRE, STOP, TAG
from data_pipeline.extract.parse import Tree

_LI, _TR, _TABLE, _PRE = (tags.ID[name] for name in ("li", "tr", "table", "pre"))
_CELLS = (tags.ID["td"], tags.ID["th"])
CELL = 120
"""Mean characters of a cell from which a table only lays out the page, and its cells become lines."""


def render(tree: Tree, keep: np.ndarray) -> str:
    """Text of the blocks that `keep` marks, one line each; `- ` before list items, ` | ` between cells of a row."""
    chosen = np.flatnonzero(keep)
    if not len(chosen):
        return ""
    text = tree.text.tobytes()
    blocks = tree.blocks[chosen]
    places = _Places(tree.nodes)
    lines: list[str] = []
    row_before = item_before = pre_before = -1
    cell_before = -1
    wide = places.wide_tables(blocks)
    for node, begin, stop, kind in blocks[:, [NODE, BEGIN, STOP, KIND]].tolist():
        piece = text[begin:stop].decode("utf-8", "replace")
        item, row, cell, table, pre = places.of(node)
        if kind & PRE:
            if pre == pre_before and lines:
                lines.append(piece)
            else:
                lines.append(piece)
            pre_before, row_before, item_before = pre, -1, -1
            continue
        pre_before = -1
        if row >= 0 and table not in wide:
            piece = piece.replace("\n", " ")
            if row == row_before and lines:
                lines[-1] += (" " if cell == cell_before else " | ") + piece
            else:
                lines.append(piece)
            row_before, cell_before, item_before = row, cell, -1
            continue
        row_before = -1
        if item >= 0 and item != item_before:
            piece = "- " + piece
        item_before = item
        lines.append(piece)
    return "\n".join(lines)


class _Places:
    """Nearest list item, row, cell, table and `pre` around an element, -1 where there is none."""

    def __init__(self, nodes: np.ndarray) -> None:
        self._tag = nodes[:, TAG]
        self._parent = nodes[:, PARENT]
        self._known: dict[int, tuple[int, int, int, int, int]] = {-1: (-1, -1, -1, -1, -1)}

    def of(self, node: int) -> tuple[int, int, int, int, int]:
        known = self._known
        path = []
        while node not in known:
            path.append(node)
            node = int(self._parent[node])
        place = known[node]
        for node in reversed(path):
            item, row, cell, table, pre = place
            tag = int(self._tag[node])
            if tag == _LI:
                item = node
            elif tag == _TABLE:
                item, row, cell, table = -1, -1, -1, node
            elif tag == _TR:
                row, cell, item = node, -1, -1
            elif tag in _CELLS:
                cell, item = node, -1
            elif tag == _PRE:
                pre = node
            place = known[node] = (item, row, cell, table, pre)
        return place

    def wide_tables(self, blocks: np.ndarray) -> set[int]:
        """Tables that only lay out a page: the mean text of a cell is that of a paragraph, or it holds code."""
        chars: dict[int, int] = {}
        cells: dict[int, set[int]] = {}
        wide: set[int] = set()
        for node, begin, stop, kind in blocks[:, [NODE, BEGIN, STOP, KIND]].tolist():
            _, row, cell, table, _ = self.of(node)
            if row < 0:
                continue
            chars[table] = chars.get(table, 0) + stop - begin
            cells.setdefault(table, set()).add(cell)
            if kind & PRE:
                wide.add(table)
        return wide | {table for table, total in chars.items() if total > CELL * len(cells[table])}
