"""Checks exported evidence offline, for people who trust neither the gateway nor whoever runs it.

Needs Python's own library and `cryptography`, and imports nothing else of onbehalf: what writes the record and what
checks it are two programs, each from the specification. It opens the files it is given and no other, and no network.
"""

from __future__ import annotations
