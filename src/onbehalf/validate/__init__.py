"""Room 2, validate: whether they may. Who is asked for, what is asked, which answer counts, which rows go on.

Values in, values out. Must not touch a disk, a clock or a policy engine: the engine door does.
"""

from __future__ import annotations
