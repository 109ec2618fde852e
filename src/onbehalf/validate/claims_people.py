"""Who a person is by the claims of their own access token.

An issuer says so at each call anew, and of the caller alone: there is no manager in it, and nobody who has not called.
Groups that the issuer left out of a token because they are too many are not taken for none. Must not know how people
are kept (directory_claims.py), or believe a claim: those here are proven.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import orjson

from onbehalf.config_directory import ClaimsSettings
from onbehalf.errors import ClaimsUnusable, DirectoryInvalid
from onbehalf.model import Caller, Json
from onbehalf.validate.people import Member, record

__all__ = ["kept_claims", "member_of"]

_ELSEWHERE = ("_claim_names", "hasgroups")
"""By what an issuer says that a claim is to be had elsewhere (OpenID Connect Core section 5.6.2; Entra ID)."""
_HINT = "tell whoever runs the gateway; docs/directory.md says what a token must hold"


def kept_claims(claims: Iterable[ClaimsSettings]) -> dict[str, frozenset[str]]:
    """Issuer to the claims of its tokens that `member_of` looks at."""
    found: dict[str, frozenset[str]] = {}
    for each in claims:
        own = {each.person, each.name, *each.attributes, *([each.groups, *_ELSEWHERE] if each.groups else [])}
        found[each.issuer] = found.get(each.issuer, frozenset()) | own
    return found


def member_of(caller: Caller, told: ClaimsSettings) -> Member:
    """The caller as a person of the directory, with the token's login and no position.

    Without its claim for groups, a token says that its person is in none. Raises ClaimsUnusable.
    """
    claims: dict[str, Json] = orjson.loads(caller.claims or b"{}")
    id_ = claims.get(told.person)
    groups: list[Json] = [*_groups(claims, told)]
    attributes: dict[str, Json] = {name: claims[name] for name in told.attributes if name in claims}
    login: dict[str, Json] = {"issuer": caller.evidence.issuer, "subject": caller.subject}
    said: dict[str, Json] = {
        "id": id_, "name": claims.get(told.name, id_), "groups": groups, "attributes": attributes, "logins": [login],
    }  # fmt: skip
    try:
        member = record(said, "the token's person").member
    except DirectoryInvalid as error:
        raise ClaimsUnusable(f"the token does not say who you are here: {error.message}", hint=_HINT) from error
    assert member is not None  # INVARIANT: what has an `id` is a person
    return member


def _groups(claims: Mapping[str, Json], told: ClaimsSettings) -> Iterable[str]:
    if not told.groups:
        return ()
    elsewhere = claims.get("_claim_names")
    if (isinstance(elsewhere, dict) and told.groups in elsewhere) or claims.get("hasgroups") not in (None, False):
        raise ClaimsUnusable(
            "the token does not hold all groups of its person",
            hint="have the issuer put fewer groups into it, such as those assigned to the application",
        )
    value = claims.get(told.groups, [])
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise ClaimsUnusable(f"the claim `{told.groups}` is no list of names", hint=_HINT)
    names = [str(each) for each in listed]
    return [told.group_names[each] for each in names if each in told.group_names] if told.group_names else names
