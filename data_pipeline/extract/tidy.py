"""What trafilatura leaves behind, made text: tables that only lay out a page, and lines of white space.

Old pages stand in one table. Written as `| … |` rows, their text fails every rule that looks at words and line ends;
and lines that hold nothing but indentation count as lines that repeat.
"""

from __future__ import annotations

import re
from itertools import groupby

LAYOUT_CELL = 200
"""Mean characters of a filled cell from which a table is taken for layout; cells of data are far shorter."""
_CELL_BORDER = re.compile(r"(?<!\\)\|")
_SPACE = re.compile(r"\s+")
_EMPTY_LINES = re.compile(r"\n{3,}")


def tidy(text: str) -> str:
    """Text with layout tables as lines, without lines of white space and without space at line ends."""
    lines: list[str] = []
    for is_table, found in groupby(text.strip().split("\n"), _is_row):
        block = list(found)
        lines += _table(block) if is_table else block
    return _EMPTY_LINES.sub("\n\n", "\n".join(_without_gaps(lines)))


def _is_row(line: str) -> bool:
    line = line.strip()
    return line.startswith("|") and line.endswith("|")


def _table(rows: list[str]) -> list[str]:
    """The rows, or the filled cells, one a line, of a table that is no data: one column, or cells of whole paragraphs."""
    filled = [[cell for cell in _cells(row) if cell.strip("-: ")] for row in rows]
    texts = [cell for cells in filled for cell in cells]
    one_column = all(len(cells) <= 1 for cells in filled)
    if one_column or sum(map(len, texts)) > LAYOUT_CELL * len(texts):
        return texts
    return rows


def _cells(row: str) -> list[str]:
    inside = row.strip()[1:-1]
    return [_SPACE.sub(" ", cell).strip().replace("\\|", "|") for cell in _CELL_BORDER.split(inside)]


def _without_gaps(lines: list[str]) -> list[str]:
    """Lines without those of white space, and without the indentation of a line that stands alone between two of them.

    Other indentation stays: it belongs to code.
    """
    gap = [bool(line) and not line.strip() for line in lines]
    edge = [True, *gap, True]
    return [
        line.strip() if edge[i] and edge[i + 2] else line.rstrip()
        for i, line in enumerate(lines)
        if not gap[i]
    ]
