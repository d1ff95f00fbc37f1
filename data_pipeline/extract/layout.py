"""Columns and flags of the flat arrays in which a parsed page lies.

Shapes: elements int32 [E, NODE_COLUMNS], blocks int32 [B, BLOCK_COLUMNS], tokens (words of class, id, role …) int64 [T, 2]
of (element, hash), marks int32 [M, 3] of (kind, begin, end) in the page.
"""

from __future__ import annotations

TAG, PARENT, END, DEPTH, SIGNATURE, FLAGS, FIRST_TOKEN, N_CHILDREN = range(8)
NODE_COLUMNS = 8
NODE, INNER, BEGIN, STOP, LINK, BOLDED, KIND, BREAKS = range(8)
BLOCK_COLUMNS = 8
HIDDEN, HREF, ITEMPROP, ROLE, ARIA, ITEMTYPE, COMMENTS = (1 << i for i in range(7))
"""Flags of an element."""
PRE, AFTER_RULE, CODE = (1 << i for i in range(3))
"""Flags of a block (KIND)."""
M_HTML, M_META, M_TITLE, M_JSON, M_TIME = range(1, 6)
"""Kinds of marks."""
