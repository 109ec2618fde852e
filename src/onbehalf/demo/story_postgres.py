"""What the story shows on PostgreSQL only: a change that is shown before it is made, and the wall in the database.

As in story.py: what is right is read from the database by its owner.
"""

from __future__ import annotations

import re

from onbehalf.demo.person_client import PersonClient
from onbehalf.demo.telling import Stage, Teller, summary
from onbehalf.demo.truth import reports

__all__ = ["finishing", "walled"]


async def finishing(stage: Stage, client: PersonClient, teller: Teller) -> None:
    """Alice makes a draft of hers final: shown first, then done as shown."""
    below = reports(stage.world, "acme", "alice")
    drafts = [r for r in stage.world.reviews if r.tenant == "acme" and r.status == "draft"]
    mine = next(r for r in drafts if r.author_id == "alice" and r.subject_id in below)
    other = next(r for r in drafts if r.author_id != "alice")
    before = stage.reviews()
    shown = await client.call("reviews_finish", {"review_id": mine.id})
    change = next(iter(re.findall(r"sha256:[0-9a-f]{64}", shown.text)), "")
    ok = shown.done and [row["status"] for row in shown.rows] == ["final"] and stage.reviews() == before
    teller.check(f"{mine.id} is shown as it would be, nothing is changed", ok and bool(change), summary(shown))
    told = await client.call("reviews_finish", {"review_id": mine.id, "change": change})
    wanted = {**before, ("acme", mine.id): {**before["acme", mine.id], "status": "final"}}
    ok = told.done and stage.reviews() == wanted
    teller.check("asked for as it was shown, exactly that is done", ok, summary(told))
    told = await client.call("reviews_finish", {"review_id": other.id, "change": change})
    ok = not told.rows and stage.reviews() == wanted
    teller.check(f"{other.id}, which somebody else wrote, stays a draft", ok, summary(told))


def walled(stage: Stage, teller: Teller) -> None:
    """Below all of it, the database itself."""
    assert stage.seen_by_reader is not None
    seen = stage.seen_by_reader()
    teller.check("the gateway's own password, without a claim that it signed", seen == 0, f"{seen} reviews")
