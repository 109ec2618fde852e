"""The pages where people approve calls: plain forms, no script, for a browser that may be lured here.

What every request passes, in order (the public door has looked at Host):
1 path and method are served; 2 cookies and query are read with one meaning; 3 a POST comes from a page of ours: its
Origin is our own, its form token the session's own; 4 who is logged in is asked of the session, and what they may see
and say of the house. Absent, over, used, foreign and forbidden are one page. Must not hold a rule, a layout
(inbound_approve_page.py) or a login (inbound_approve_login.py).

Trust: cookies are the browser's word for who logged in; everything shown here was sent by a model and is escaped.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from onbehalf.config import Limits
from onbehalf.doors import inbound_approve_page as pages
from onbehalf.doors.inbound_approve_login import Logins, Session
from onbehalf.doors.inbound_body import read
from onbehalf.doors.inbound_browser import BrowserRequest, Page, pairs, read_browser, send_page
from onbehalf.doors.inbound_gone import within
from onbehalf.doors.inbound_wire import ClientGone, Receive, Scope, Send
from onbehalf.doors.issuer_login import Redirected
from onbehalf.errors import ApprovalUnknown, OnbehalfError, RequestRefused

if TYPE_CHECKING:
    from onbehalf.approving import Approving

__all__ = ["PATH", "ApprovePages"]

_log = logging.getLogger(__name__)
PATH = "/approvals/"
_ID = re.compile(r"[A-Za-z0-9_-]{43}")
_LIMITS = Limits(body_bytes=4096)
_ELSEWHERE = "connect."
"""A login that goes on at the pages of inbound_connect.py, which share these logins."""
_ABSENT = "There is nothing here for you"


class ApprovePages:
    """The ASGI app below `/approvals/`. `origin` is the gateway's own, as in its resource identifier."""

    def __init__(
        self, approving: Approving, logins: Logins, *, origin: str, seconds: float, session_seconds: int
    ) -> None:
        self._approving = approving
        self._logins = logins
        self._origin = origin.lower()
        self._seconds = seconds
        self._session_seconds = session_seconds
        self._secure = origin.startswith("https:")
        prefix = "__Host-" if self._secure else ""  # the prefix demands https, which a loopback origin need not have
        self._login_cookie, self._session_cookie = f"{prefix}onbehalf-login", f"{prefix}onbehalf-session"

    async def __call__(self, scope: Scope, receive: Receive, send: Send, headers: Mapping[bytes, bytes]) -> None:
        """Answer one request below PATH whose Host is ours; `headers` by lower-case name."""
        try:
            answer = await within(
                self._seconds, self._answer(read_browser(scope, headers, below=PATH), receive, headers)
            )
        except ClientGone:
            return
        except OnbehalfError as error:
            _log.info("an approval page was refused with %s: %r", error.code, error.message)
            title = _ABSENT if isinstance(error, ApprovalUnknown) else "This did not work"
            answer = Page(status=error.status, body=pages.message(title, error.message, error.hint))
        except Exception:  # the door's last resort: refuse without details, and log them
            _log.exception("an approval page failed")
            answer = Page(status=500, body=pages.message("This did not work", "Something is wrong here.", ""))
        await send_page(send, answer, secure=self._secure, headers=pages.HEADERS)

    async def _answer(self, request: BrowserRequest, receive: Receive, headers: Mapping[bytes, bytes]) -> Page:
        where = (request.method, request.rest)
        if where == ("GET", "login"):  # 1
            return await self._begin(request)
        if where == ("GET", "back"):
            return await self._back(request)
        if request.method not in ("GET", "POST") or not _ID.fullmatch(request.rest):
            return _nothing()
        session = self._logins.session(request.cookies.get(self._session_cookie, ""))
        if session is None:
            return Page(body=pages.login([each.rule.issuer for each in self._logins.issuers], request.rest))
        if request.method == "POST":
            form = pairs((await read(receive, dict(headers), _LIMITS)).decode("utf-8", "replace"))
            self._require_own(request, form, session)
            return await self._said(request, form, session)
        return await self._shown(request.rest, session)

    async def _begin(self, request: BrowserRequest) -> Page:
        number, approval = request.query.get("at", "0"), request.query.get("to", "")
        if not (number.isdigit() and len(number) < 4) or not _ID.fullmatch(approval.removeprefix(_ELSEWHERE)):
            return _nothing()
        browser = request.cookies.get(self._login_cookie, "")
        address, name = await self._logins.begun(int(number), approval, browser)
        return Page(status=303, to=address, keep={self._login_cookie: (name, 300)})

    async def _back(self, request: BrowserRequest) -> Page:
        query = request.query
        back = Redirected(code=query.get("code", ""), iss=query.get("iss", ""), error=query.get("error", ""))
        browser = request.cookies.get(self._login_cookie, "")
        name, approval = await self._logins.ended(query.get("state", ""), back, browser)
        self._logins.end(request.cookies.get(self._session_cookie, ""))
        keep = {self._session_cookie: (name, self._session_seconds)}
        elsewhere = approval.startswith(_ELSEWHERE)
        to = f"/connect/{approval.removeprefix(_ELSEWHERE)}" if elsewhere else f"{PATH}{approval}"
        return Page(status=303, to=to, keep=keep)

    async def _shown(self, approval: str, session: Session) -> Page:
        look = await self._approving.look(session.caller, approval)
        now = self._approving.clock()
        return Page(body=pages.approval(look, token=session.form_token(approval), now=now))

    async def _said(self, request: BrowserRequest, form: Mapping[str, str], session: Session) -> Page:
        said = form.get("say")
        if said not in ("yes", "no"):
            raise RequestRefused("the form says neither yes nor no", hint="go back and use one of the buttons")
        await self._approving.vote(session.caller, request.rest, approves=said == "yes")
        return Page(status=303, to=f"{PATH}{request.rest}")  # a reload then says nothing twice

    def _require_own(self, request: BrowserRequest, form: Mapping[str, str], session: Session) -> None:  # 3
        expected = session.form_token(request.rest)
        if request.origin != self._origin or not hmac.compare_digest(
            expected.encode(), form.get("token", "").encode("utf-8", "replace")
        ):
            raise RequestRefused("the form is not of this page", hint="open the page again and use its buttons")


def _nothing() -> Page:
    return Page(status=404, body=pages.message("There is nothing here", "", "Open the link that you were given."))
