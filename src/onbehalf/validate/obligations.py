"""What permits demand of what they let through, met.

A permit that determines a decision may ask for columns, masks, a number of rows, a purpose or an approval. What cannot
be met denies. Must not hold how demands are spelled and merged (demands.py), a decision (decide.py), or how rows are
read (rows.py); the key of the hash mask is given.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from onbehalf.model import (
    Allow,
    Applied,
    Approver,
    Json,
    Mask,
    Obligations,
    Owed,
    StepUp,
    UnixTime,
    canonical,
)
from onbehalf.model_value import Value
from onbehalf.validate.demands import merge
from onbehalf.validate.rows import Row, showing

__all__ = [
    "NOTHING_KEPT",
    "By",
    "Kept",
    "Login",
    "Of",
    "Unmet",
    "approvers",
    "demanded_scopes",
    "keep",
    "of_call",
    "unmet",
]

_TOLERANCE_S = 30
_PURPOSE_SCOPE = "purpose:"
_HIDDEN_AT_LEAST = 8
_DOMAIN = b"onbehalf/mask/v1"


# --- what cannot be met --------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmet:
    """Why what is permitted is denied all the same: a demand of a permit that cannot be met here."""

    code: str
    text: str
    remedy: str
    policy: str
    step_up: StepUp | None = None


class Login(Protocol):
    """How a caller logged in; `Evidence` says so, and so does a record."""

    @property
    def acr(self) -> str: ...
    @property
    def auth_time(self) -> UnixTime | None: ...


class By(Protocol):
    """What of a caller demands are held against; `Caller` is one."""

    @property
    def scopes(self) -> frozenset[str]: ...
    @property
    def evidence(self) -> Login: ...


class Of(Protocol):
    """What of a tool demands are held against; `Tool` is one."""

    @property
    def name(self) -> str: ...
    @property
    def scopes(self) -> frozenset[str]: ...
    @property
    def rows(self) -> object | None: ...


def unmet(owed: Sequence[Owed], *, tool: Of, caller: By, now: UnixTime) -> Unmet | None:
    """The first of these demands that cannot be met for this tool and caller, if there is one.

    1 fields or rows of an answer that is not mapped; 2 a purpose that the access token was not given for; 3 scopes that
    it does not have, or a login that is not of the kind or as recent as demanded: a new login may change that. Whether
    a row has the fields that are demanded is seen when it is there (`keep`). An approval can be asked for
    (`approvers`).
    """
    if not owed:
        return None
    demands = merge(each.obligations for each in owed)
    for each in owed:
        one = each.obligations
        if tool.rows is None and (one.columns != "every" or one.masks or one.max_rows != "every"):  # 1
            return _not_mapped(each, tool)
    if demands.purposes != "every" and not _shown(demands, caller):  # 2
        return _no_purpose(next(each for each in owed if each.obligations.purposes != "every"), demands.purposes)
    return _step_up(owed, demands, tool, caller, now)  # 3


def _step_up(owed: Sequence[Owed], demands: Obligations, tool: Of, caller: By, now: UnixTime) -> Unmet | None:
    """What of the token or login is lacking, told whole: whatever a new login brings must do for all of it."""
    lacking = [f"the scope `{each}`" for each in sorted(demands.scopes - caller.scopes)]
    if demands.acr != "every" and caller.evidence.acr not in demands.acr:
        kinds = " or ".join(f"`{each}`" for each in sorted(demands.acr))
        lacking.append(f"a login by {kinds}" if kinds else "a login of several kinds, of which none is all")
    if demands.max_age != "every" and not _recent(caller, demands.max_age, now):
        lacking.append(f"a login at most {demands.max_age} seconds ago")
    if not lacking:
        return None
    wanted = ", and ".join(lacking)
    by = next(each.policy for each in owed if _asks_of_login(each.obligations))
    hopeless = demands.acr == frozenset()
    return Unmet(
        code="step_up_needed",
        text=f"`{by}` permits this, but demands {wanted}.",
        remedy="Nobody can log in so; tell who runs this gateway."
        if hopeless
        else f"Log in again: this needs {wanted}.",
        policy=by,
        step_up=None
        if hopeless
        else StepUp(
            scopes=frozenset(tool.scopes) | demands.scopes,
            acr=() if demands.acr == "every" else tuple(sorted(demands.acr)),
            max_age=None if demands.max_age == "every" else demands.max_age,
        ),
    )


def _asks_of_login(demands: Obligations) -> bool:
    return bool(demands.scopes) or demands.acr != "every" or demands.max_age != "every"


def _recent(caller: By, max_age: int, now: UnixTime) -> bool:
    at = caller.evidence.auth_time
    return at is not None and at <= now + _TOLERANCE_S and now <= at + max_age + _TOLERANCE_S


def approvers(owed: Sequence[Owed]) -> frozenset[Approver]:
    """Whose approvals are demanded: all of them are needed."""
    return frozenset(approver for each in owed for approver in each.obligations.approve)


def _not_mapped(by: Owed, tool: Of) -> Unmet:
    return Unmet(
        code="obligation_unmet",
        text=f"`{by.policy}` permits a part of the answer, and the answer of `{tool.name}` cannot be told into parts.",
        remedy="Tell who runs this gateway: the rows of this tool must be mapped before it can be used.",
        policy=by.policy,
    )


def demanded_scopes(demands: Obligations) -> frozenset[str]:
    """The scopes that a token must have, or by which it may be given for one of the purposes."""
    purposes = frozenset() if demands.purposes == "every" else demands.purposes
    return demands.scopes | {f"{_PURPOSE_SCOPE}{each}" for each in purposes}


def _no_purpose(by: Owed, wanted: frozenset[str]) -> Unmet:
    stated = ", ".join(f"`{_PURPOSE_SCOPE}{each}`" for each in sorted(wanted))
    return Unmet(
        code="purpose_not_shown",
        text=f"`{by.policy}` permits this for stated purposes, and the access token was given for none of them.",
        remedy=f"Log in again with one of these scopes: {stated}." if stated else "No purpose serves for all of this.",
        policy=by.policy,
    )


def _shown(demands: Obligations, caller: By) -> frozenset[str]:
    """The purposes demanded that the caller's token was given for: scopes such as `purpose:audit`, so that a person
    and the issuer state a purpose and never a model."""
    if demands.purposes == "every":
        return frozenset()
    return frozenset(each for each in demands.purposes if f"{_PURPOSE_SCOPE}{each}" in caller.scopes)


# --- meeting them --------------------------------------------------------------------------


class Kept(Value, frozen=True, kw_only=True):
    """Rows that are permitted. `allowed` are all of them as they came back, `rows` those that go on as they may.

    `permitted` is how many the policies let through, of which some may demand what was not given. `approvers` are those
    whose approval the rows demand and the call does not have.
    """

    allowed: tuple[Row, ...]
    rows: tuple[Row, ...]
    applied: Applied
    permitted: int = 0
    approvers: frozenset[Approver] = frozenset()


NOTHING_KEPT: Final = Kept(allowed=(), rows=(), applied=Applied())


def of_call(allow: Allow) -> Kept:
    """What a call's own demands come to where no rows are mapped: the purposes of the answer."""
    if not allow.owed:
        return NOTHING_KEPT
    demands = merge(each.obligations for each in allow.owed)
    return Kept(allowed=(), rows=(), applied=Applied(purposes=tuple(sorted(_shown(demands, allow.call.caller)))))


def keep(allow: Allow, permitted: Sequence[tuple[Row, tuple[Owed, ...]]], *, key: bytes, asking: bool = False) -> Kept:
    """Do to the permitted rows, in their order, what is owed for them: by the call and by each row's own permits.

    `key` is the gateway's secret for the hash mask; without one (`b""`) what is to be hashed is null. Rows are left
    out, and are not in `allowed`, whose demands cannot be met, that lack a masked field and may hold it by another
    name, that may not be used for a purpose of all rows before them, or that demand an approval which was not given:
    unless that can be asked for now (`asking`). Values inside of a field are not looked at: a field goes on whole or
    not at all.
    """
    if not allow.owed and not any(owed for _, owed in permitted):
        rows = tuple(row for row, _ in permitted)
        return Kept(allowed=rows, rows=rows, applied=Applied(), permitted=len(permitted))
    chosen, common = _chosen(allow, permitted, asking=asking)
    going = chosen if common.max_rows == "every" else chosen[: common.max_rows]
    shaped = tuple(showing(row, _shaped(row, terms.demands, (key, allow.call.caller.tenant))) for row, terms in going)
    counts = Counter(terms for _, terms in going)
    masks = merge(terms.demands for terms in counts).masks
    given = {name for row in shaped if isinstance(row.raw, dict) for name in row.raw}
    by_policy: Counter[Owed] = Counter()
    for terms, count in counts.items():
        by_policy.update(dict.fromkeys(terms.owed, count))
    return Kept(
        allowed=tuple(row for row, _ in chosen),
        rows=shaped,
        applied=Applied(
            rows=tuple(sorted(by_policy.items(), key=lambda item: item[0].policy)),
            cut=len(chosen) - len(going),
            purposes=tuple(sorted(_shown(common, allow.call.caller))),
            masks=tuple(sorted((field, _done(mask, key)) for field, mask in masks if field in given)),
        ),
        permitted=len(permitted),
        approvers=frozenset(approver for _, terms in chosen for approver in terms.lacking),
    )


class _Terms(Value, frozen=True, kw_only=True):
    """All that is owed for rows that the same permits let through, what it comes to, whether it can be met, and whose
    approval is lacking."""

    owed: tuple[Owed, ...]
    demands: Obligations
    met: bool
    lacking: frozenset[Approver]


def _terms(allow: Allow, own: Sequence[Owed]) -> _Terms:
    owed = tuple(dict.fromkeys((*allow.owed, *own)))
    met = unmet(owed, tool=allow.call.tool, caller=allow.call.caller, now=allow.call.at) is None
    given = allow.approval.approvers if allow.approval else frozenset()
    demands = merge(each.obligations for each in owed)
    return _Terms(owed=owed, demands=demands, met=met, lacking=demands.approve - given)


def _chosen(
    allow: Allow, permitted: Sequence[tuple[Row, tuple[Owed, ...]]], *, asking: bool
) -> tuple[Sequence[tuple[Row, _Terms]], Obligations]:
    """The rows whose demands can be met together, and what they and the call demand in common."""
    common = merge(each.obligations for each in allow.owed)
    known = {own: _terms(allow, own) for own in {own for _, own in permitted}}
    agreed: set[tuple[Owed, ...]] = set()
    chosen: list[tuple[Row, _Terms]] = []
    for row, own in permitted:
        terms = known[own]
        if not terms.met or (terms.lacking and not asking) or not _has_masked(row.raw, terms.demands):
            continue
        if own not in agreed:
            together = merge((common, terms.demands))
            if together.purposes != "every" and not _shown(together, allow.call.caller):
                continue
            common = together
            agreed.add(own)
        chosen.append((row, terms))
    return chosen, common


def _has_masked(raw: Json, demands: Obligations) -> bool:
    """A mask without `columns` beside it names what may not go on, and all else does: a field that was renamed too."""
    return demands.columns != "every" or (isinstance(raw, dict) and all(name in raw for name, _ in demands.masks))


def _shaped(row: Row, demands: Obligations, secret: tuple[bytes, str]) -> Json:
    """A row's fields as they may go on. `secret` is the key of the hash mask and the tenant it is for."""
    raw, masks, (key, tenant) = row.raw, dict(demands.masks), secret
    if not isinstance(raw, dict):
        return None
    shaped: dict[str, Json] = {}
    for name, value in raw.items():
        if demands.columns != "every" and name not in demands.columns:
            continue
        mask = masks.get(name)
        if mask is None:
            shaped[name] = value
        elif mask == "last4":
            shaped[name] = _last4(value)
        elif mask == "hash" and key:
            purposes: list[Json] = [] if demands.purposes == "every" else [*sorted(demands.purposes)]
            shaped[name] = _hashed(value, [tenant, row.ref.type, name, purposes], key)
        else:
            shaped[name] = None
    return shaped


def _done(mask: Mask, key: bytes) -> Mask:
    return "null" if mask == "hash" and not key else mask


def _last4(value: Json) -> Json:
    """The last four characters after `…`, of texts and whole numbers of which at least as much again stays hidden."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    try:
        text = str(value)
    except ValueError:  # a number of more digits than Python spells
        return None
    return f"…{text[-4:]}" if len(text) >= _HIDDEN_AT_LEAST else "…"


def _hashed(value: Json, about: Json, key: bytes) -> Json:
    """A name for a value that is the same for equal values of one field, type, tenant and purpose, and tells nothing
    else without the key: 128 bits of HMAC-SHA-256 (RFC 2104). Null stays null."""
    if value is None:
        return None
    try:
        own = hmac.digest(key, _DOMAIN + canonical(about), "sha256")
        return f"#{hmac.digest(own, canonical(value), 'sha256')[:16].hex()}"
    except ValueError:  # no canonical form, so equal values could have two names
        return None
