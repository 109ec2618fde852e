"""Fixtures of the whole tree: one server of each kind for a run, however many files ask for it."""

from __future__ import annotations

from postgres import database, postgres

__all__ = ["database", "postgres"]
