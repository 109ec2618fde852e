"""The pages on the way to a login, as text: may this client act for you, where you go next, and what was refused.

Everything a client said of itself is escaped, and characters that do not show are spelled out. No script. Where the
browser goes next stands in a page of its own: a redirect of the answered form would have to be allowed by the page's
policy header before anybody knows where it leads. No opener policy is sent: a web client may have opened the window,
and waits for it. Must not decide anything.

Trust: nothing shown is believed; what is known of a client is said apart from what it says.
"""

from __future__ import annotations

from html import escape
from urllib.parse import urlsplit

from onbehalf.broker import redirect
from onbehalf.brokering import Asked
from onbehalf.doors.inbound_approve_style import STYLE

__all__ = ["consent", "onwards", "refused"]


def consent(asked: Asked, *, login: str, name: str, token: str) -> str:
    """Whether a client may act for whoever logs in next. `name` and `token` are what the form brings back."""
    client, request = asked.client, asked.request
    called = client.name or "A program without a name"
    scopes = "".join(f"<tr><td><code>{_shown(scope)}</code></td></tr>" for scope in request.scope)
    listed = f'<div class="wide"><table>{scopes}</table></div>' if scopes else "<p>Nothing by name.</p>"
    kept = {"request": name, "token": token}
    hidden = "".join(f'<input type="hidden" name="{key}" value="{escape(value)}">' for key, value in kept.items())
    return _page(
        f"Let {called} work for you here?",
        f"<p><strong>{_shown(called)}</strong> wants to use your company's tools and data in your name. It gets "
        "what you may see and do yourself, never more, and every call is on record.</p>"
        f'<p class="said">{_known(asked)}</p>'
        f"<h2>It asks for</h2>{listed}"
        f"<h2>Where you go from here</h2><p>You log in at <strong>{_shown(urlsplit(login).netloc)}</strong>. Then your "
        f"browser goes to <strong>{_shown(redirect.place(request.redirect_uri))}</strong>. {_local(asked)}</p>"
        f'<form method="post" action="/oauth/consent" class="acts">{hidden}'
        '<button class="yes" name="say" value="yes">Yes, log in</button>'
        '<button class="no" name="say" value="no">No</button></form>',
    )


def onwards(address: str, title: str) -> str:
    """A page that leads on at once, and by a link where the browser does not follow."""
    at = escape(address)
    return _page(
        title,
        f'<p>One moment.</p><div class="acts"><a class="button" href="{at}" rel="noreferrer">Go on</a></div>',
        head=f'<meta http-equiv="refresh" content="0;url={at}">',
    )


def refused(text: str, hint: str, back: str) -> str:
    """Why this went no further; with a link by which the client is told, where it may be."""
    said = "".join(f"<p>{_shown(_sentence(each))}</p>" for each in (text, hint) if each)
    place = _shown(redirect.place(back)) if back else ""
    link = f'<div class="acts"><a class="button" href="{escape(back)}" rel="noreferrer">Back to {place}</a></div>'
    return _page("This login cannot go on", said + (link if back else ""))


def _known(asked: Asked) -> str:
    client = asked.client
    if client.origin == "configured":
        return "Your company's administrators know this client."
    if client.origin == "published":
        return (
            f"It is published at <strong>{_shown(urlsplit(client.id).netloc)}</strong>, which was checked. Go on only "
            "if you came from there."
        )
    return (
        "Its name is only what it says of itself: nobody checked it. Go on only if you were just connecting it "
        "yourself."
    )


def _local(asked: Asked) -> str:
    if asked.request.redirect_uri.startswith("https:"):
        return ""
    return "Any program on this computer could wait there: go on only if you started one."


def _page(title: str, body: str, *, head: str = "") -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{head}'
        f"<title>{_shown(title)} · onbehalf</title><style>{STYLE}</style></head>"
        f"<body><header>onbehalf <span>login</span></header>"
        f"<main><h1>{_shown(title)}</h1>{body}</main></body></html>"
    )


def _shown(text: str) -> str:
    return escape("".join(each if each.isprintable() else _spelled(each) for each in text))


def _spelled(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
