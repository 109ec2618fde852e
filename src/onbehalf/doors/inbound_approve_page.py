"""The approval pages as text: log in, what is asked, and short messages.

Everything that came from a model, client or issuer is escaped here, and characters that do not show (direction marks,
zero width, controls) are spelled out, so that what is read is what is approved. Nothing is cut. No script; the one
style sheet is allowed by its hash. Must not decide anything.

Trust: nothing shown is believed; a page is only ever for whoever is logged in, and stored nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from onbehalf.doors.inbound_approve_style import STYLE
from onbehalf.model import Json

if TYPE_CHECKING:
    from onbehalf.approving import Look

__all__ = ["HEADERS", "approval", "login", "message", "page", "shown"]

HEADERS: Sequence[tuple[bytes, bytes]] = ((b"cross-origin-opener-policy", b"same-origin"),)
"""Sent with every page and redirect, beside those of all pages."""

_ASKED = {
    "self": "the person whose call this is",
    "manager": "somebody above that person",
    "two-person": "two people, one of them above that person",
}


def login(issuers: Sequence[str], approval: str) -> str:
    """The page for somebody who is not logged in. `approval` is where to go on, known or not."""
    links = "".join(
        f'<a class="button" href="/approvals/login?at={at}&amp;to={quote(approval)}">'
        f"Log in at {escape(urlsplit(issuer).netloc)}</a>"
        for at, issuer in enumerate(issuers)
    )
    return page(
        "Log in to see what you are asked",
        "<p>An AI client wants something done that a person must approve. Log in as yourself to see what it is.</p>"
        f'<div class="acts">{links}</div>',
    )


def message(title: str, text: str, hint: str) -> str:
    """A page that says one thing, and what to do."""
    parts = "".join(f"<p>{shown(_sentence(each))}</p>" for each in (text, hint) if each)
    return page(title, parts)


def approval(look: Look, *, token: str, now: int) -> str:
    """What is asked, with a form to say yes or no. `token` is what the form brings back, `now` in Unix seconds."""
    about = _map(look.about)
    tool, person = _map(about.get("tool")), _map(about.get("person"))
    name = _text(tool, "title") or _text(tool, "name")
    verb = "change something" if tool.get("writes") is True else "read something"
    who = f"<strong>{shown(_text(person, 'name'))}</strong> ({shown(_text(person, 'id'))})"
    said = (
        f"<p>The AI client <code>{shown(_text(about, 'client'))}</code> wants to {verb} in "
        f"{'your name' if look.mine else f'the name of {who}'}, with the tool <strong>{shown(name)}</strong> "
        f"(<code>{shown(_text(tool, 'name'))}</code>).</p>"
    )
    described = _text(tool, "description")
    return page(
        _TITLES[look.state],
        said
        + (f'<p class="soft">{shown(described)}</p>' if described else "")
        + _state(look)
        + _arguments(_map(about.get("arguments")), _list(about.get("bound")))
        + _changes(about.get("changes"))
        + _terms(look, about, now)
        + _form(look, token),
        who=look.name,
    )


_TITLES = {"open": "Is this to be done?", "approved": "This is approved", "refused": "This was refused"}


def _state(look: Look) -> str:
    if look.state == "refused":
        return '<p class="said no">Somebody refused this. It will not be done.</p>'
    if look.state == "approved":
        return '<p class="said yes">It is done, once, when the client sends the same call again.</p>'
    if look.voted:
        return '<p class="said yes">You approved this. Somebody else must as well.</p>'
    if look.mine:
        return '<p class="said">Approve this only if you asked for exactly this.</p>'
    return ""


def _arguments(arguments: Mapping[str, Json], bound: Sequence[Json]) -> str:
    if not arguments:
        return "<h2>What was sent</h2><p>Nothing but the tool's name.</p>"
    rows = "".join(
        f"<tr><th scope=row>{shown(name)}{' <small>set by the gateway</small>' if name in bound else ''}</th>"
        f"<td>{_value(value)}</td></tr>"
        for name, value in arguments.items()
    )
    return f'<h2>What was sent</h2><div class="wide"><table>{rows}</table></div>'


def _changes(changes: Json) -> str:
    """What would change, as a table where it is rows and as it is where not."""
    if changes is None:
        return ""
    found = _map(changes).get("rows")
    rows = found if isinstance(found, list) else None
    if rows is None or not all(isinstance(row, dict) for row in rows):
        return f'<h2>What would change</h2><div class="wide">{_value(changes)}</div>'
    maps = [_map(row) for row in rows]
    names = [*dict.fromkeys(name for row in maps for name in row)]
    head = "".join(f"<th scope=col>{shown(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(row, name)}</td>' for name in names)}</tr>" for row in maps)
    count = "1 row, as it would be" if len(maps) == 1 else f"{len(maps)} rows, as they would be"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<h2>What would change: {count}</h2><div class="wide" tabindex=0>{table}</div>'


def _cell(row: Mapping[str, Json], name: str) -> str:
    return _value(row[name]) if name in row else ""


def _terms(look: Look, about: Mapping[str, Json], now: int) -> str:
    asked = " and ".join(_ASKED[each] for each in sorted(look.approval.approvers))
    minutes = max(1, (look.approval.until - now + 59) // 60)
    until = datetime.fromtimestamp(look.approval.until, UTC).strftime("%H:%M UTC")
    left = "1 minute" if minutes == 1 else f"{minutes} minutes"
    policies = ", ".join(f"<code>{shown(str(each))}</code>" for each in _list(about.get("policies")))
    by = f" Demanded by {policies}." if policies else ""
    return (
        f'<p class="soft">To be approved by {asked}, within {left} (until {until}).{by} On record as '
        f"<code>{shown(look.approval.call)}</code>, and so is what you say here.</p>"
    )


def _form(look: Look, token: str) -> str:
    if look.state == "refused":
        return ""
    hidden = f'<input type="hidden" name="token" value="{escape(token)}">'
    yes = "" if look.voted else '<button class="yes" name="say" value="yes">Approve</button>'
    no = '<button class="no" name="say" value="no">Refuse</button>'
    return f'<form method="post" action="/approvals/{quote(look.approval.id)}" class="acts">{hidden}{yes}{no}</form>'


def page(title: str, body: str, *, who: str = "", about: str = "approvals", head: str = "") -> str:
    """One page of the gateway's. `body` and `head` are markup already, the rest is escaped."""
    named = f"<b>{shown(who)}</b>" if who else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{head}<title>{escape(title)} · onbehalf</title><style>{STYLE}</style></head>"
        f"<body><header>onbehalf <span>{escape(about)}</span>{named}</header>"
        f"<main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )


def _value(value: Json) -> str:
    """A value as JSON spells it; texts without their quotes, for a person."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
    empty = ' class="soft"' if value in ("", None) else ""
    return f"<pre{empty}>{shown(text) if text else 'empty'}</pre>"


def shown(text: str) -> str:
    """A text with nothing hidden in it, escaped."""
    return escape("".join(each if each.isprintable() or each == "\n" else _spelled(each) for each in text))


def _spelled(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _map(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _list(value: Json) -> Sequence[Json]:
    return value if isinstance(value, list) else []


def _text(of: Mapping[str, Json], name: str) -> str:
    value = of.get(name)
    return value if isinstance(value, str) else ""
