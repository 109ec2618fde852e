"""The connection pages as text. Everything that came from elsewhere is escaped; inbound_approve_page.py has the layout.

Must not decide anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from urllib.parse import quote, urlsplit

from onbehalf.doors.inbound_approve_page import message, page, shown

__all__ = ["connect", "login", "message", "onwards"]


def login(issuers: Sequence[str], id: str) -> str:
    """The page for somebody who is not logged in. `id` is where to go on, known or not."""
    links = "".join(
        f'<a class="button" href="/approvals/login?at={at}&amp;to=connect.{quote(id)}">'
        f"Log in at {escape(urlsplit(issuer).netloc)}</a>"
        for at, issuer in enumerate(issuers)
    )
    return page(
        "Log in to connect an account",
        "<p>A call of yours in an AI client needs an account of yours at another system. Log in here first, as "
        f'yourself.</p><div class="acts">{links}</div>',
        about="accounts",
    )


def connect(title: str, id: str, *, token: str) -> str:
    """Whether to connect one's account. `token` is what the form brings back."""
    hidden = f'<input type="hidden" name="token" value="{escape(token)}">'
    return page(
        f"Connect your account at {title}?",
        f"<p>Calls that you make through an AI client will then be made at <strong>{shown(title)}</strong> with your "
        "own account there. You go there now to say what it may be used for. What it gives is kept here, sealed, for "
        "you alone; no AI client and no model ever sees it.</p>"
        '<p class="said">Go on only if you were just asked for this in your AI client.</p>'
        f'<form method="post" action="/connect/{quote(id)}" class="acts">{hidden}'
        '<button class="yes" name="say" value="yes">Go on</button></form>',
        about="accounts",
    )


def onwards(address: str, title: str) -> str:
    """A page that leads on at once, and by a link where the browser does not follow."""
    at = escape(address)
    return page(
        f"On to {title}",
        f'<p>One moment.</p><div class="acts"><a class="button" href="{at}" rel="noreferrer">Go on</a></div>',
        about="accounts",
        head=f'<meta http-equiv="refresh" content="0;url={at}">',
    )
