"""Two scenes of the demo's story before an HTTP API: orders that are one's own, and one that needs a manager's yes.

As in story.py: what is right comes from truth.py and from the file on disk.
"""

from __future__ import annotations

import re

from onbehalf.demo.person_client import PersonClient
from onbehalf.demo.telling import Stage, Teller, summary, table
from onbehalf.demo.truth import readable_orders

__all__ = ["cancelling", "managing", "selling"]


async def selling(stage: Stage, client: PersonClient, teller: Teller) -> None:
    """Nils sees and ships what is his."""
    path = stage.directory / "orders.db"
    may = readable_orders(stage.world, "acme", "nils")
    told = await client.call("orders_list", {})
    ok = told.done and {row["id"] for row in told.rows} == may and all(row["tenant"] == "acme" for row in told.rows)
    teller.check("exactly the orders that he looks after", ok, f"{len(told.rows)} orders; right are {len(may)}")
    others = next(o.id for o in stage.world.orders if o.tenant == "acme" and o.owner_id == "olga")
    for title, arguments in (
        ("Olga's order", {"order_id": others}),
        ("globex's order by path", {"order_id": "../../globex/orders/O-1"}),
        ("an injected tenant", {"order_id": "O-1", "tenant": "globex"}),
    ):
        told = await client.call("order_get", arguments)
        teller.check(f"{title}: nothing", not told.rows, summary(told))
    before = table(path, "orders")
    told = await client.call("order_ship", {"order_id": "O-1"})
    wanted = {**before, ("acme", "O-1"): {**before["acme", "O-1"], "status": "shipped"}}
    teller.check(
        "his O-1 is shipped, and nothing else is", told.done and table(path, "orders") == wanted, summary(told)
    )
    again = await client.call("order_ship", {"order_id": "O-1"})
    teller.check("sent again, it is not done again", again.denial == "done_before", summary(again))
    refused = await client.call("order_ship", {"order_id": others})
    ok = refused.denial == "not_permitted" and table(path, "orders") == wanted
    teller.check("Olga's is refused, with a way out", ok and bool(refused.remedy), summary(refused))


async def managing(stage: Stage, client: PersonClient, teller: Teller) -> None:
    """Ben sees what his team looks after, without the customers' addresses."""
    may = readable_orders(stage.world, "acme", "ben")
    told = await client.call("orders_list", {})
    ok = told.done and {row["id"] for row in told.rows} == may
    teller.check("exactly his team's orders and his own", ok, f"{len(told.rows)} orders; right are {len(may)}")
    masked = [row for row in told.rows if row["owner_id"] != "ben"]
    ok = bool(masked) and all(row["email"] is None and row["customer"] for row in masked)
    teller.check("of his team's, no address of a customer", ok, f"{len(masked)} without `email`")


async def cancelling(stage: Stage, client: PersonClient, teller: Teller) -> None:
    """Nils's model wants to cancel an order, which his manager must approve."""
    path, people = stage.directory / "orders.db", stage.world
    before = table(path, "orders")
    waiting = await client.call("order_cancel", {"order_id": "O-2"})
    url = next(iter(re.findall(r"https?://\S+/approvals/[A-Za-z0-9_-]+", waiting.text)), "")
    ok = waiting.denial == "approval_required" and bool(url) and table(path, "orders") == before
    teller.check("it waits, nothing is done", ok, f"to be approved at {url}")
    title = await stage.say(url, people.person("acme", "nils"), "yes")
    teller.check("he cannot approve it himself", title == "There is nothing here for you", title)
    title = await stage.say(url, people.person("acme", "ben"), "yes")
    teller.check("Ben, his manager, approves it in a browser", title == "This is approved", title)
    told = await client.call("order_cancel", {"order_id": "O-2"})
    wanted = {**before, ("acme", "O-2"): {**before["acme", "O-2"], "status": "cancelled"}}
    ok = told.done and table(path, "orders") == wanted
    teller.check("the same call again, and it is cancelled", ok, summary(told))
    teller.calls["approved"] = told.call
