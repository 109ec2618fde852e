"""Room 4, explain: what happened, as leaves, a tree, signed heads, and sentences a person can read.

Values in, values out. Must not touch a disk, a clock or randomness: the ledger door does.
"""

from __future__ import annotations
