"""The demo issuer's two pages as text: pick a person, and what went wrong.

Everything that came from outside is escaped here. No script at all; the one style sheet is allowed by
its hash, so the policy header needs no `unsafe-inline`. Must not decide anything.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import urlsplit

from onbehalf.demo.data import DemoPerson

__all__ = ["error_page", "headers", "login_page"]

_STYLE = """
:root { color-scheme: light dark; --line: #c9ced6; --ink: #1b2330; --soft: #56606e; --paper: #fff; --back: #f3f5f8;
  --accent: #1d4ed8; --warn: #7a1d00; --warnback: #ffe9dc; }
@media (prefers-color-scheme: dark) { :root { --line: #3a4352; --ink: #e8ecf2; --soft: #a9b3c1; --paper: #171c25;
  --back: #0f131a; --accent: #8fb0ff; --warn: #ffd9c7; --warnback: #4a1d0b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
.banner { background: var(--warnback); color: var(--warn); padding: .75rem 1rem; text-align: center; font-weight: 700; }
main { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
p { margin: .25rem 0 1rem; color: var(--soft); overflow-wrap: anywhere; }
fieldset { border: 1px solid var(--line); border-radius: .75rem; background: var(--paper); padding: .5rem 1rem 1rem;
  margin: 0 0 1.25rem; }
legend { font-weight: 700; padding: 0 .5rem; }
.people { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .25rem .75rem; }
label { display: flex; gap: .6rem; padding: .45rem .5rem; border-radius: .5rem; cursor: pointer; }
label:hover { background: var(--back); }
label small { display: block; color: var(--soft); }
input { accent-color: var(--accent); margin-top: .3rem; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
button { background: var(--accent); color: var(--paper); border: 0; border-radius: .5rem; font: inherit;
  font-weight: 700; padding: .7rem 1.4rem; cursor: pointer; position: sticky; bottom: 1rem; }
code { font-size: .95em; }
"""

_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_BANNER = '<div class="banner" role="note">DEMO ISSUER: no passwords, never use for real</div>'


def headers(redirect_uri: str = "") -> dict[str, str]:
    """Headers for a page. `redirect_uri`: browsers apply `form-action` to the redirect after it too."""
    parts = urlsplit(redirect_uri)
    target = "" if not parts.scheme else f" {parts.scheme}://{parts.netloc}" if parts.netloc else f" {parts.scheme}:"
    return {
        "content-security-policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; "
        f"frame-ancestors 'none'; form-action 'self'{target}",
        "cache-control": "no-store",
        "referrer-policy": "same-origin",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }


def login_page(
    people: Sequence[DemoPerson], *, client: str, resource: str, scopes: str, form: Mapping[str, str]
) -> str:
    """The page where one picks a person. `form` holds the hidden fields."""
    hidden = "".join(f'<input type="hidden" name="{escape(k)}" value="{escape(v)}">' for k, v in form.items())
    groups = "".join(
        _group(tenant, [p for p in people if p.tenant == tenant]) for tenant in sorted({p.tenant for p in people})
    )
    return _page(
        "Who are you today?",
        f"<p><strong>{escape(client)}</strong> asks to act for you at <code>{escape(resource)}</code>"
        f" with <code>{escape(scopes)}</code>.</p>"
        f'<form method="post" action="authorize">{hidden}{groups}'
        '<button type="submit">Log in as this person</button></form>',
    )


def error_page(message: str) -> str:
    """A refusal that must not be sent to the client, because we do not know whose address it is."""
    return _page(
        "This login cannot go on", f'<p role="alert">{escape(message)}</p><p>Start again from your client.</p>'
    )


def _group(tenant: str, people: Sequence[DemoPerson]) -> str:
    options = "".join(
        f'<label><input type="radio" name="subject" value="{escape(person.subject)}" required>'
        f"<span>{escape(person.name)}<small>{escape(_what(person))}</small></span></label>"
        for person in people
    )
    return f'<fieldset><legend>{escape(tenant)}</legend><div class="people">{options}</div></fieldset>'


def _what(person: DemoPerson) -> str:
    return "left the company" if not person.active else person.position or f"{person.department}, no position"


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} · demo issuer</title>"
        f"<style>{_STYLE}</style></head><body>{_BANNER}<main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )
