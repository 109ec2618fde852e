"""The pages where people connect their own account at an upstream: plain forms, no script.

In order: 1 the link of a waiting call is opened; 2 whoever is in the browser logs in as with approvals, and must be the
person whose call it is; 3 they say yes on a page of ours; 4 the upstream's authorization server is asked; 5 the answer
comes back to the same session, once; 6 what it gave is kept for that person. The link alone does nothing, and the
tokens pass no client. Must not keep a token, or know whose link it is (connecting.py).

Trust: as inbound_approve.py.
"""

from __future__ import annotations

import hmac
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from onbehalf.config import Limits
from onbehalf.connecting import Connecting
from onbehalf.doors import inbound_connect_page as pages
from onbehalf.doors.inbound_approve_login import Logins, Session
from onbehalf.doors.inbound_approve_page import HEADERS
from onbehalf.doors.inbound_body import read
from onbehalf.doors.inbound_browser import BrowserRequest, Page, pairs, read_browser, send_page
from onbehalf.doors.inbound_gone import within
from onbehalf.doors.inbound_wire import ClientGone, Receive, Scope, Send
from onbehalf.doors.issuer_login import Redirected
from onbehalf.doors.kept import Kept, digest_of, fresh
from onbehalf.doors.vault_accounts import OauthAccounts
from onbehalf.errors import ConnectionUnknown, LoginFailed, OnbehalfError, RequestRefused

__all__ = ["PATH", "ConnectPages"]

_log = logging.getLogger(__name__)
PATH = "/connect/"
_ID = re.compile(r"[A-Za-z0-9_-]{43}")
_LIMITS = Limits(body_bytes=4096)
_AWAY_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Away:
    """A person who is at an upstream's authorization server, from one session."""

    id: str
    upstream: str
    session: bytes
    verifier: str = field(repr=False)


class ConnectPages:
    """The ASGI app below `/connect/`. `origin` is the gateway's own; `accounts` are by upstream."""

    def __init__(
        self, connecting: Connecting, logins: Logins, accounts: Mapping[str, OauthAccounts], *, origin: str,
        seconds: float, monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._connecting = connecting
        self._logins = logins
        self._accounts = dict(accounts)
        self._origin = origin.lower()
        self._seconds = seconds
        self._secure = origin.startswith("https:")
        self._session_cookie = f"{'__Host-' if self._secure else ''}onbehalf-session"
        self._away: Kept[_Away] = Kept(_AWAY_SECONDS, monotonic)

    async def __call__(self, scope: Scope, receive: Receive, send: Send, headers: Mapping[bytes, bytes]) -> None:
        """Answer one request below PATH whose Host is ours; `headers` by lower-case name."""
        try:
            request = read_browser(scope, headers, below=PATH)
            answer = await within(self._seconds, self._answer(request, receive, headers))
        except ClientGone:
            return
        except OnbehalfError as error:
            _log.info("a connection page was refused with %s: %r", error.code, error.message)
            title = "There is nothing here for you" if isinstance(error, ConnectionUnknown) else "This did not work"
            answer = Page(status=error.status, body=pages.message(title, error.message, error.hint))
        except Exception:  # the door's last resort: refuse without details, and log them
            _log.exception("a connection page failed")
            answer = Page(status=500, body=pages.message("This did not work", "Something is wrong here", ""))
        await send_page(send, answer, secure=self._secure, headers=HEADERS)

    async def _answer(self, request: BrowserRequest, receive: Receive, headers: Mapping[bytes, bytes]) -> Page:
        name = request.cookies.get(self._session_cookie, "")
        session = self._logins.session(name)
        if (request.method, request.rest) == ("GET", "back"):
            return await self._back(request, session, name)
        if request.method not in ("GET", "POST") or not _ID.fullmatch(request.rest):
            raise ConnectionUnknown("there is nothing here", hint="open the link that you were given")
        if session is None:
            return Page(body=pages.login([each.rule.issuer for each in self._logins.issuers], request.rest))
        found = await self._connecting.look(session.caller, request.rest)  # 2
        account = self._accounts[found.owner.upstream]
        if request.method == "GET":
            token = session.form_token(request.rest)
            return Page(body=pages.connect(account.title, request.rest, token=token))
        form = pairs((await read(receive, dict(headers), _LIMITS)).decode("utf-8", "replace"))
        self._require_own(request, form, session)  # 3
        away = _Away(id=request.rest, upstream=found.owner.upstream, session=digest_of(name), verifier=fresh())
        state = fresh()
        address = await account.address(state=state, verifier=away.verifier)
        self._away.put(state, away)
        return Page(body=pages.onwards(address, account.title))

    async def _back(self, request: BrowserRequest, session: Session | None, name: str) -> Page:
        query = request.query
        away = self._away.take(query.get("state", ""))
        if away is None or session is None or not hmac.compare_digest(away.session, digest_of(name)):  # 5
            raise LoginFailed("this was not begun in this browser, or is over", hint="open the link of the call again")
        found = await self._connecting.look(session.caller, away.id)
        back = Redirected(code=query.get("code", ""), iss=query.get("iss", ""), error=query.get("error", ""))
        account = self._accounts[away.upstream]
        kept = await account.redeemed(back, verifier=away.verifier, now=self._connecting.clock())
        await self._connecting.connected(session.caller, away.id, kept)  # 6
        title = self._accounts[found.owner.upstream].title
        return Page(body=pages.message(f"Connected: {title}", "Send the call again in your AI client", ""))

    def _require_own(self, request: BrowserRequest, form: Mapping[str, str], session: Session) -> None:
        expected = session.form_token(request.rest).encode()
        given = form.get("token", "").encode("utf-8", "replace")
        if request.origin != self._origin or not hmac.compare_digest(expected, given):
            raise RequestRefused("the form is not of this page", hint="open the page again and use its button")
