"""Columns and flags of the flat arrays in which a parsed page lies.

Shapes: elements int32 [E, NODE_COLUMNS], blocks int32 [B, BLOCK_COLUMNS], tokens (words of class, id, role …) int64 [T, 2]
of (element, hash), marks int32 [M, 3] of (kind, begin, end) in the page.
"""

from __future__ import annotations

TAG, PARENT, END, DEPTH, SIGNATURE, FLAGS, FIRST_TOKEN, N_CHILDREN, NUMBER, EXTENT = range(10)
NODE_COLUMNS = 10
"""NUMBER is the `start` of an `ol`, the `value` of an `li`, the `colspan` of a cell; NO_NUMBER where it is not stated.
EXTENT is the `rowspan` of a cell; of an `ol` the letter of its `type`, negative where it is reversed; of a table 1 where
its role says that it only lays out; 0 otherwise."""
NO_NUMBER = -(1 << 30)
MAX_NUMBER = 1 << 20
"""Larger numbers in attributes are cut to this."""
NODE, INNER, BEGIN, STOP, LINK, BOLDED, KIND, BREAKS = range(8)
BLOCK_COLUMNS = 8
HIDDEN, HREF, ITEMPROP, ROLE, ARIA, ITEMTYPE, COMMENTS = (1 << i for i in range(7))
"""Flags of an element."""
PRE, AFTER_RULE, CODE = (1 << i for i in range(3))
"""Flags of a block (KIND)."""
M_HTML, M_META, M_TITLE, M_JSON, M_TIME = range(1, 6)
"""Kinds of marks."""
