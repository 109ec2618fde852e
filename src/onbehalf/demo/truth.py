"""What each person should see, counted by brute force from the made-up world.

This is the story's second opinion, so it must not import anything that decides: no Cedar, no
directory, no gateway. It walks managers one step at a time.
"""

from __future__ import annotations

from onbehalf.demo.data import World

__all__ = ["chain", "readable_orders", "readable_reviews", "reports"]


def chain(world: World, tenant: str, person_id: str) -> list[str]:
    """Everyone above a person, nearest first."""
    holders = {person.position: person.id for person in world.people if person.tenant == tenant and person.position}
    above = world.positions[tenant]
    found: list[str] = []
    position = above.get(world.person(tenant, person_id).position, "")
    while position:
        found.append(holders[position])
        position = above[position]
    return found


def reports(world: World, tenant: str, manager_id: str) -> set[str]:
    """The ids of all direct and indirect reports."""
    return {
        person.id
        for person in world.people
        if person.tenant == tenant and person.position and manager_id in chain(world, tenant, person.id)
    }


def readable_reviews(world: World, tenant: str, person_id: str) -> set[str]:
    """Ids of the reviews of this tenant that a person may read: their reports', and their own final ones.

    The rules for the HR group are left out: nobody in the story is in it.
    """
    below = reports(world, tenant, person_id)
    return {
        review.id
        for review in world.reviews
        if review.tenant == tenant
        and (review.subject_id in below or (review.subject_id == person_id and review.status == "final"))
    }


def readable_orders(world: World, tenant: str, person_id: str) -> set[str]:
    """Ids of the orders of this tenant that a person may read: their own, and their reports'."""
    may = {person_id, *reports(world, tenant, person_id)}
    return {order.id for order in world.orders if order.tenant == tenant and order.owner_id in may}
