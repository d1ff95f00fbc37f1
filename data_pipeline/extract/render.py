"""Blocks that were kept → text: paragraphs and list items as lines, rows of tables as lines, code as it stood."""

from __future__ import annotations

import numpy as np

from data_pipeline.compiled import kernel
from data_pipeline.extract import tags
from data_pipeline.extract.layout import BEGIN, EXTENT, KIND, NO_NUMBER, NODE, NUMBER, PARENT, PRE, STOP, TAG
from data_pipeline.extract.parse import Tree
from data_pipeline.extract.tables import Tables

_LI, _OL, _TR, _TABLE, _TD, _TH = (tags.ID[name] for name in ("li", "ol", "tr", "table", "td", "th"))
MAX_INDENT = 8
"""Levels of nested lists that are indented."""
_ROMAN = tuple(zip((100, 90, 50, 40, 10, 9, 5, 4, 1), "c xc l xl x ix v iv i".split(), strict=True))  # noqa: SIM905


def render(tree: Tree, keep: np.ndarray, tables: Tables | None = None) -> str:
    """Text of the blocks that `keep` marks, one line each.

    List items start with `- ` or their number, two spaces deeper for every list around them; the cells of a row are parted
    by ` | `.
    """
    chosen = np.flatnonzero(keep)
    if not len(chosen):
        return ""
    tables = tables or Tables(tree)
    text = tree.text.tobytes()
    places = np.empty((len(tree.nodes), PLACES), np.int32)
    find_places(tree.nodes, places)
    markers = _Markers(tree, places)
    lines: list[str] = []
    marked: set[int] = set()
    open_table = -1
    texts: dict[int, list[str]] = {}
    kept_rows: set[int] = set()

    def close_table() -> None:
        if open_table >= 0:
            for row, line in tables.lines(tables.by_node[open_table], texts):
                if row in kept_rows:
                    lines.append(line)
            texts.clear()
            kept_rows.clear()

    rows = np.hstack([tree.blocks[chosen][:, [BEGIN, STOP, KIND]], places[tree.blocks[chosen, NODE], :LEVEL]])
    for begin, stop, kind, item, cell, table in rows.tolist():
        piece = text[begin:stop].decode("utf-8", "replace")
        in_table = cell >= 0 and not tables.lays_out(table)
        if open_table >= 0 and (not in_table or table != open_table):
            close_table()
            open_table = -1
        if in_table:
            open_table = table
            texts.setdefault(cell, []).append(piece)
            kept_rows.add(int(tree.nodes[cell, PARENT]))
            continue
        if item >= 0 and item not in marked and not kind & PRE:
            marked.add(item)
            piece = markers.of(item) + piece
        lines.append(piece)
    close_table()
    return "\n".join(lines)


ITEM, CELL, IN_TABLE, LEVEL = range(4)
PLACES = 4
"""Columns of `find_places`."""


@kernel("void(int32[:,::1], int32[:,::1])")
def find_places(nodes, places):
    """Nearest list item, cell and table around each element, -1 where there is none, and the items around it.

    Args:
        places: int32 [E, PLACES], written; LEVEL counts the element itself and ends at a cell or a table.
    """
    places[0] = -1
    places[0, LEVEL] = 0
    for node in range(1, len(nodes)):
        tag = nodes[node, TAG]
        places[node] = places[nodes[node, PARENT]]
        if tag == _LI:
            places[node, ITEM] = node
            places[node, LEVEL] += 1
        elif tag == _TABLE:
            places[node, ITEM] = places[node, CELL] = -1
            places[node, IN_TABLE] = node
            places[node, LEVEL] = 0
        elif tag == _TR:
            places[node, ITEM] = places[node, CELL] = -1
        elif tag in (_TD, _TH):
            places[node, ITEM] = -1
            places[node, CELL] = node
            places[node, LEVEL] = 0


class _Markers:
    """What stands before list items: their indentation and `- ` or their number."""

    def __init__(self, tree: Tree, places: np.ndarray) -> None:
        self._nodes, self._places = tree.nodes, places
        self._tag = tree.nodes[:, TAG]
        self._parent = tree.nodes[:, PARENT]
        self._numbers: dict[int, int] | None = None

    def of(self, item: int) -> str:
        list_node = int(self._parent[item])
        indent = "  " * min(int(self._places[list_node, LEVEL]), MAX_INDENT)
        if self._tag[list_node] != _OL:
            return indent + "- "
        if self._numbers is None:
            self._numbers = self._count()
        return f"{indent}{_numeral(self._numbers[item], int(self._nodes[list_node, EXTENT]))}. "

    def _count(self) -> dict[int, int]:
        """Numbers of the items of ordered lists (HTML standard, 4.4.5)."""
        items = np.flatnonzero(self._tag == _LI)
        in_list = [
            (item, parent)
            for item, parent in zip(items.tolist(), self._parent[items].tolist(), strict=True)
            if self._tag[parent] == _OL
        ]
        sizes: dict[int, int] = {}
        for _, parent in in_list:
            sizes[parent] = sizes.get(parent, 0) + 1
        following: dict[int, int] = {}
        numbers = {}
        for item, parent in in_list:
            step = -1 if self._nodes[parent, EXTENT] < 0 else 1
            if parent not in following:
                start = int(self._nodes[parent, NUMBER])
                following[parent] = start if start != NO_NUMBER else (1 if step > 0 else sizes[parent])
            stated = int(self._nodes[item, NUMBER])
            numbers[item] = stated if stated != NO_NUMBER else following[parent]
            following[parent] = numbers[item] + step
        return numbers


def _numeral(number: int, kind: int) -> str:
    """A number as the `type` of its list writes it."""
    letter = chr(abs(kind))
    if letter in "aA" and number > 0:
        name = ""
        while number:
            number, digit = divmod(number - 1, 26)
            name = chr(97 + digit) + name
        return name if letter == "a" else name.upper()
    if letter in "iI" and 0 < number < 400:
        name = ""
        for value, sign in _ROMAN:
            while number >= value:
                name += sign
                number -= value
        return name if letter == "i" else name.upper()
    return str(number)
