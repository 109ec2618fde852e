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
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from onbehalf.config import Limits
from onbehalf.doors import inbound_approve_page as pages
from onbehalf.doors.inbound_approve_login import Logins, Session
from onbehalf.doors.inbound_body import read
from onbehalf.doors.inbound_mcp import within
from onbehalf.doors.inbound_wire import ClientGone, Receive, Scope, Send
from onbehalf.doors.issuer_login import Redirected
from onbehalf.errors import ApprovalUnknown, LoginFailed, OnbehalfError, RequestRefused

if TYPE_CHECKING:
    from onbehalf.approving import Approving

__all__ = ["PATH", "ApprovePages"]

_log = logging.getLogger(__name__)
PATH = "/approvals/"
_ID = re.compile(r"[A-Za-z0-9_-]{43}")
_MAX_QUERY = 8192
_MAX_COOKIES = 8192
_LIMITS = Limits(body_bytes=4096)
_ABSENT = "There is nothing here for you"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """One request, read. `query` and `form` hold each name once."""

    method: str
    rest: str
    query: Mapping[str, str]
    cookies: Mapping[str, str]
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """A page, or where to go on. `keep` are cookies to set, with their seconds."""

    status: int = 200
    page: str = ""
    to: str = ""
    keep: Mapping[str, tuple[str, int]] | None = None


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
            answer = await within(self._seconds, self._answer(_read(scope, headers), receive, headers))
        except ClientGone:
            return
        except OnbehalfError as error:
            _log.info("an approval page was refused with %s: %r", error.code, error.message)
            title = _ABSENT if isinstance(error, ApprovalUnknown) else "This did not work"
            answer = _Answer(status=error.status, page=pages.message(title, error.message, error.hint))
        except Exception:  # the door's last resort: refuse without details, and log them
            _log.exception("an approval page failed")
            answer = _Answer(status=500, page=pages.message("This did not work", "Something is wrong here.", ""))
        await self._send(send, answer)

    async def _answer(self, request: _Request, receive: Receive, headers: Mapping[bytes, bytes]) -> _Answer:
        where = (request.method, request.rest)
        if where == ("GET", "login"):  # 1
            return await self._begin(request)
        if where == ("GET", "back"):
            return await self._back(request)
        if request.method not in ("GET", "POST") or not _ID.fullmatch(request.rest):
            return _nothing()
        session = self._logins.session(request.cookies.get(self._session_cookie, ""))
        if session is None:
            return _Answer(page=pages.login([each.rule.issuer for each in self._logins.issuers], request.rest))
        if request.method == "POST":
            form = _pairs((await read(receive, dict(headers), _LIMITS)).decode("utf-8", "replace"))
            self._require_own(request, form, session)
            return await self._said(request, form, session)
        return await self._shown(request.rest, session)

    async def _begin(self, request: _Request) -> _Answer:
        number, approval = request.query.get("at", "0"), request.query.get("to", "")
        if not (number.isdigit() and len(number) < 4) or not _ID.fullmatch(approval):
            return _nothing()
        browser = request.cookies.get(self._login_cookie, "")
        address, name = await self._logins.begun(int(number), approval, browser)
        return _Answer(status=303, to=address, keep={self._login_cookie: (name, 300)})

    async def _back(self, request: _Request) -> _Answer:
        query = request.query
        back = Redirected(code=query.get("code", ""), iss=query.get("iss", ""), error=query.get("error", ""))
        browser = request.cookies.get(self._login_cookie, "")
        name, approval = await self._logins.ended(query.get("state", ""), back, browser)
        self._logins.end(request.cookies.get(self._session_cookie, ""))
        keep = {self._session_cookie: (name, self._session_seconds)}
        return _Answer(status=303, to=f"{PATH}{approval}", keep=keep)

    async def _shown(self, approval: str, session: Session) -> _Answer:
        look = await self._approving.look(session.caller, approval)
        now = self._approving.clock()
        return _Answer(page=pages.approval(look, token=session.form_token(approval), now=now))

    async def _said(self, request: _Request, form: Mapping[str, str], session: Session) -> _Answer:
        said = form.get("say")
        if said not in ("yes", "no"):
            raise RequestRefused("the form says neither yes nor no", hint="go back and use one of the buttons")
        await self._approving.vote(session.caller, request.rest, approves=said == "yes")
        return _Answer(status=303, to=f"{PATH}{request.rest}")  # a reload then says nothing twice

    def _require_own(self, request: _Request, form: Mapping[str, str], session: Session) -> None:  # 3
        expected = session.form_token(request.rest)
        if request.origin != self._origin or not hmac.compare_digest(
            expected.encode(), form.get("token", "").encode("utf-8", "replace")
        ):
            raise RequestRefused("the form is not of this page", hint="open the page again and use its buttons")

    async def _send(self, send: Send, answer: _Answer) -> None:
        body = answer.page.encode("utf-8", "replace")
        headers = [*pages.HEADERS, (b"content-length", str(len(body)).encode())]
        if answer.to:
            headers.append((b"location", answer.to.encode("ascii", "replace")))
        secure = "; Secure" if self._secure else ""
        for name, (value, seconds) in (answer.keep or {}).items():
            cookie = f"{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"
            headers.append((b"set-cookie", cookie.encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _nothing() -> _Answer:
    return _Answer(status=404, page=pages.message("There is nothing here", "", "Open the link that you were given."))


def _read(scope: Scope, headers: Mapping[bytes, bytes]) -> _Request:  # 2
    if len(scope["query_string"]) > _MAX_QUERY or len(headers.get(b"cookie", b"")) > _MAX_COOKIES:
        raise RequestRefused("the request is too large", hint="open the link that you were given")
    return _Request(
        method=scope["method"],
        rest=str(scope["path"]).removeprefix(PATH),
        query=_pairs(scope["query_string"].decode("latin-1")),
        cookies=_cookies(headers.get(b"cookie", b"").decode("latin-1")),
        origin=headers.get(b"origin", b"").decode("latin-1").lower(),
    )


def _pairs(encoded: str) -> Mapping[str, str]:
    """Parameters, each at most once (RFC 6749 section 3.1)."""
    try:
        pairs = parse_qsl(encoded, keep_blank_values=True, max_num_fields=20)
    except ValueError as error:
        raise RequestRefused("the parameters cannot be read", hint="open the link that you were given") from error
    found = dict(pairs)
    if len(found) != len(pairs):
        raise LoginFailed("a parameter stands twice", hint="open the link that you were given")
    return found


def _cookies(header: str) -> Mapping[str, str]:
    """Cookies by name; of one that stands twice, none: another site's subdomain may have set the other."""
    found: dict[str, str] = {}
    twice: set[str] = set()
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name in found:
            twice.add(name)
        found[name] = value
    return {name: value for name, value in found.items() if name not in twice}
