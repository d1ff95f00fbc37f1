"""Blocks that were kept → text: paragraphs and list items as lines, rows of tables as lines, code as it stood."""

from __future__ import annotations

import numpy as np

from data_pipeline.extract import tags
from data_pipeline.extract.layout import BEGIN, EXTENT, KIND, NO_NUMBER, NODE, NUMBER, PARENT, PRE, STOP, TAG
from data_pipeline.extract.parse import Tree
from data_pipeline.extract.tables import Tables

_LI, _OL, _UL, _TR, _TABLE, _PRE = (tags.ID[name] for name in ("li", "ol", "ul", "tr", "table", "pre"))
_CELLS = (tags.ID["td"], tags.ID["th"])
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
    places = _Places(tree)
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

    for node, begin, stop, kind in tree.blocks[chosen][:, [NODE, BEGIN, STOP, KIND]].tolist():
        piece = text[begin:stop].decode("utf-8", "replace")
        item, cell, table = places.of(node)
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
            piece = places.marker(item) + piece
        lines.append(piece)
    close_table()
    return "\n".join(lines)


class _Places:
    """Nearest list item, cell and table around an element, -1 where there is none."""

    def __init__(self, tree: Tree) -> None:
        self._nodes = tree.nodes
        self._tag = tree.nodes[:, TAG]
        self._parent = tree.nodes[:, PARENT]
        self._known: dict[int, tuple[int, int, int]] = {-1: (-1, -1, -1)}
        self._numbers: dict[int, int] | None = None

    def of(self, node: int) -> tuple[int, int, int]:
        known = self._known
        path = []
        while node not in known:
            path.append(node)
            node = int(self._parent[node])
        place = known[node]
        for node in reversed(path):
            item, cell, table = place
            tag = int(self._tag[node])
            if tag == _LI:
                item = node
            elif tag == _TABLE:
                item, cell, table = -1, -1, node
            elif tag == _TR:
                cell, item = -1, -1
            elif tag in _CELLS:
                cell, item = node, -1
            place = known[node] = (item, cell, table)
        return place

    def marker(self, item: int) -> str:
        """What stands before a list item: its indentation and `- ` or its number."""
        level, list_node = 0, -1
        node = int(self._parent[item])
        if node >= 0 and self._tag[node] in (_OL, _UL):
            list_node = node
        while node >= 0 and self._tag[node] not in (_TABLE, *_CELLS):
            level += self._tag[node] == _LI
            node = int(self._parent[node])
        indent = "  " * min(level, MAX_INDENT)
        if list_node < 0 or self._tag[list_node] != _OL:
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
