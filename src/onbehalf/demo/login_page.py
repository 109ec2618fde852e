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
  --accent: #1d4ed8; --onaccent: #fff; --picked: #e4ecff; }
@media (prefers-color-scheme: dark) { :root { --line: #3a4352; --ink: #e8ecf2; --soft: #a9b3c1; --paper: #171c25;
  --back: #0f131a; --accent: #8fb0ff; --onaccent: #0f131a; --picked: #22304f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.45 system-ui, sans-serif; }
.banner { position: sticky; top: 0; z-index: 2; background: #a4161a; color: #fff; padding: .7rem 1rem .9rem;
  text-align: center; font-size: .95rem; border-bottom: .6rem solid;
  border-image: repeating-linear-gradient(135deg, #000 0 .8rem, #ffd000 .8rem 1.6rem) 12; }
.banner strong { display: block; font-size: 1.3rem; line-height: 1.2; }
main { max-width: 62rem; margin: 1.5rem auto 0; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
p { margin: .25rem 0 1rem; color: var(--soft); overflow-wrap: anywhere; }
p strong, p code { color: var(--ink); }
fieldset { border: 0; margin: 0 0 1rem; padding: 0; }
legend { font-weight: 700; padding: .5rem 0; }
.people { display: grid; grid-template-columns: repeat(auto-fill, minmax(13.5rem, 1fr)); gap: .1rem .5rem;
  border: 1px solid var(--line); border-radius: .75rem; background: var(--paper); padding: .5rem; }
label { display: flex; gap: .6rem; padding: .4rem .5rem; border-radius: .5rem; cursor: pointer; min-width: 0;
  overflow-wrap: anywhere; scroll-margin: 8rem 0 6rem; }
label:hover { background: var(--back); }
label:has(:checked) { background: var(--picked); outline: 2px solid var(--accent); }
label small { display: block; color: var(--soft); }
input { accent-color: var(--accent); margin: .3rem 0 0; flex: none; align-self: flex-start;
  scroll-margin: 8rem 0 6rem; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.act { position: sticky; bottom: 0; z-index: 1; background: var(--back); border-top: 1px solid var(--line);
  margin: 0 -1rem; padding: .75rem 1rem; }
button { background: var(--accent); color: var(--onaccent); border: 0; border-radius: .5rem; font: inherit;
  font-weight: 700; padding: .7rem 1.4rem; cursor: pointer; }
code { font-size: .95em; }
@media (max-width: 40rem) {
  .people { grid-template-columns: 1fr 1fr; gap: 0; padding: .25rem; }
  .banner strong { font-size: 1.1rem; }
  button { width: 100%; }
}
"""

_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_BANNER = (
    '<div class="banner" role="note"><strong>DEMO ISSUER: no passwords, never use for real</strong>'
    "Whoever opens this page may become anyone on it. The people are made up.</div>"
)


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
        '<div class="act"><button type="submit">Log in as this person</button></div></form>',
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
