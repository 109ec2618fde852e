"""The broker's endpoints: what browsers are shown on the way to a login, and what clients ask for tokens.

In a browser, in order: 1 a client's request is read and its client known; 2 a page names client, scopes and where it
will be answered; 3 a yes comes from that page, in that browser, once; 4 the company's login is asked; 5 it comes back
to the browser that went, once; 6 the code goes to the client's own address. Nothing is asked of the login before 3. An
answer that the person did not say yes or no to is shown, not sent: a link must not lead through here to anywhere (RFC
9700 section 4.11.2). Must not hold a rule (broker/), a grant (brokering.py) or a layout (inbound_oauth_page.py).

Trust: cookies are the browser's word for which browser it is; everything a client says of itself is escaped.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from onbehalf.broker import redirect
from onbehalf.broker.refused import OauthRefused
from onbehalf.brokering import Asked, Broker, Held, RefusedAt, refusal_of
from onbehalf.config import Limits
from onbehalf.doors import inbound_oauth_page as pages
from onbehalf.doors.broker_authenticate import Authenticator
from onbehalf.doors.broker_login import OidcLogin
from onbehalf.doors.inbound_body import parse, read
from onbehalf.doors.inbound_browser import BrowserRequest, Page, pairs, read_browser, send_page
from onbehalf.doors.inbound_gone import within
from onbehalf.doors.inbound_wire import ClientGone, Receive, Scope, Send, send_json
from onbehalf.doors.issuer_login import Redirected
from onbehalf.doors.issuer_proof import DpopProofs
from onbehalf.doors.kept import Kept, digest_of, fresh
from onbehalf.errors import NonceNeeded, OnbehalfError, RequestRefused
from onbehalf.identify import Target, same_target
from onbehalf.model import Json

__all__ = ["PATH", "OauthApp"]

_log = logging.getLogger(__name__)
PATH = "/oauth/"
_LIMITS = Limits(body_bytes=64 * 1024)
_FORM_SECONDS = 600.0
_MOST = 10_000
_AGAIN = "start again from the program you came from"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    """A request whose person has not said yes yet, in one browser."""

    asked: Asked
    browser: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Away:
    """A request whose person said yes and is at the company's login."""

    asked: Asked
    browser: bytes
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)


class OauthApp:
    """The ASGI app below `/oauth/`, and the server's metadata. `seconds` bounds one request."""

    def __init__(
        self, broker: Broker, login: OidcLogin, authenticator: Authenticator, *,
        family_of: Callable[[str], tuple[str, str] | None], jwks: Callable[[], Mapping[str, Json]], secrets_taken: bool,
        dpop: DpopProofs, seconds: float, monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._broker = broker
        self._login = login
        self._authenticator = authenticator
        self._family_of = family_of
        self._jwks = jwks
        self._secrets_taken = secrets_taken
        self._dpop = dpop
        self._token_endpoint = Target(method="POST", address=same_target(f"{broker.issuer}{PATH}token"))
        self._seconds = seconds
        self._origin = broker.issuer.lower()
        self._secure = broker.issuer.startswith("https:")
        prefix = "__Host-" if self._secure else ""  # the prefix demands https, which a loopback origin need not have
        self._cookie = f"{prefix}onbehalf-browser"
        self._forms = secrets.token_bytes(32)
        self._waiting: Kept[_Waiting] = Kept(_FORM_SECONDS, monotonic, most=_MOST)
        self._away: Kept[_Away] = Kept(_FORM_SECONDS, monotonic, most=_MOST)

    def metadata(self) -> dict[str, Json]:
        """What is published of this server (RFC 8414)."""
        return self._broker.metadata(assertions=self._broker.asserts is not None, secrets=self._secrets_taken)

    async def __call__(self, scope: Scope, receive: Receive, send: Send, headers: Mapping[bytes, bytes]) -> None:
        """Answer one request below PATH whose Host is ours; `headers` by lower-case name."""
        where = str(scope["path"]).removeprefix(PATH)
        try:
            if where in ("authorize", "consent", "callback"):
                await self._browser(where, scope, receive, send, headers)
            else:
                await self._client(where, scope, receive, send, headers)
        except ClientGone:
            return

    # --- what clients ask ----------------------------------------------------------------------

    async def _client(
        self, where: str, scope: Scope, receive: Receive, send: Send, headers: Mapping[bytes, bytes]
    ) -> None:
        method = "GET" if where == "jwks.json" else "POST"
        if where not in ("token", "register", "revoke", "jwks.json"):
            await send_json(send, 404, {"error": "not_found"})
            return
        if scope["method"] != method:
            await send_json(send, 405, {"error": "method_not_allowed"}, ((b"allow", method.encode()),))
            return
        extra: tuple[tuple[bytes, bytes], ...] = ((b"pragma", b"no-cache"),)
        try:
            status, body, offer = await within(self._seconds, self._answered(where, scope, receive, headers))
            extra = (*extra, (b"dpop-nonce", offer.encode("ascii"))) if offer else extra
        except OnbehalfError as error:
            _log.info("the %s endpoint refused with %s: %r", where, error.code, error.message)
            status, body = refusal_of(error)
            if status == 401 and b"authorization" in headers:
                extra = (*extra, (b"www-authenticate", b"Basic"))
            if isinstance(error, NonceNeeded):
                extra = (*extra, (b"dpop-nonce", error.nonce.encode("ascii")))
        except ClientGone:
            raise
        except Exception:  # the door's last resort: refuse without details, and log them
            _log.exception("the %s endpoint failed", where)
            status, body = 500, {"error": "server_error"}
        await send_json(send, status, body, extra)

    async def _answered(
        self, where: str, scope: Scope, receive: Receive, headers: Mapping[bytes, bytes]
    ) -> tuple[int, Mapping[str, Json], str]:
        """Status, body, and a nonce to offer with it ("" for none)."""
        if where == "jwks.json":
            return 200, self._jwks(), ""
        if scope["query_string"]:
            raise OauthRefused("invalid_request", "parameters belong into the body")
        body = await read(receive, dict(headers), _LIMITS)
        media = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if where == "register":
            document = parse(body, depth=8)
            if media != b"application/json" or not isinstance(document, dict):
                raise OauthRefused("invalid_client_metadata", "the body is not a JSON object")
            return 201, await self._broker.register(document), ""
        if media != b"application/x-www-form-urlencoded":
            raise OauthRefused("invalid_request", "the body is a form (application/x-www-form-urlencoded)")
        form = pairs(body.decode("utf-8", "replace"))
        authorization = headers.get(b"authorization", b"").decode("latin-1")
        client, proven = await self._authenticator.client(form, authorization)
        if where == "token":
            held, offer = self._held(headers)
            return 200, await self._broker.token(client, form, proven=proven, held=held), offer
        await self._broker.revoke(client, form.get("token", ""), self._family_of)
        return 200, {}, ""

    def _held(self, headers: Mapping[bytes, bytes]) -> tuple[Held | None, str]:
        """The key that the one `DPoP` header proves, None without one. Raises DpopRefused, NonceNeeded."""
        text = headers.get(b"dpop")
        if text is None:
            return None, ""
        now = self._broker.clock()
        proof, offer = self._dpop.held(text.decode("latin-1"), target=self._token_endpoint, token=None, now=now)
        return Held(thumbprint=proof.thumbprint, take=lambda: self._dpop.take(proof, now)), offer

    # --- what browsers are shown ---------------------------------------------------------------

    async def _browser(
        self, where: str, scope: Scope, receive: Receive, send: Send, headers: Mapping[bytes, bytes]
    ) -> None:
        try:
            request = read_browser(scope, headers, below=PATH)
            answer = await within(self._seconds, self._page(where, request, receive, headers))
        except RefusedAt as refused:
            back = redirect.answer(
                refused.redirect_uri, {"error": refused.error, "error_description": refused.message},
                state=refused.state, issuer=self._broker.issuer,
            )  # fmt: skip
            answer = Page(status=400, body=pages.refused(refused.message, refused.hint, back))
        except ClientGone:
            raise
        except OnbehalfError as error:
            _log.info("a login was refused with %s: %r", error.code, error.message)
            status = error.http if isinstance(error, OauthRefused) else error.status
            answer = Page(status=status, body=pages.refused(error.message, error.hint or _AGAIN, ""))
        except Exception:  # the door's last resort: refuse without details, and log them
            _log.exception("a login failed")
            answer = Page(status=500, body=pages.refused("Something is wrong here", _AGAIN, ""))
        await send_page(send, answer, secure=self._secure)

    async def _page(
        self, where: str, request: BrowserRequest, receive: Receive, headers: Mapping[bytes, bytes]
    ) -> Page:
        if (where, request.method) == ("authorize", "GET"):
            return await self._asked(request)
        if (where, request.method) == ("consent", "POST"):
            form = pairs((await read(receive, dict(headers), _LIMITS)).decode("utf-8", "replace"))
            return await self._said(request, form)
        if (where, request.method) == ("callback", "GET"):
            return await self._back(request)
        raise RequestRefused("there is nothing here", hint=_AGAIN)

    async def _asked(self, request: BrowserRequest) -> Page:  # 1, 2
        asked = await self._broker.asked(request.query)
        browser = request.cookies.get(self._cookie, "")
        if len(browser) != 43:
            browser = fresh()
        name = fresh()
        self._waiting.put(name, _Waiting(asked=asked, browser=digest_of(browser)))
        body = pages.consent(asked, login=self._login.settings.issuer, name=name, token=self._token(browser, name))
        return Page(body=body, keep={self._cookie: (browser, int(_FORM_SECONDS))})

    async def _said(self, request: BrowserRequest, form: Mapping[str, str]) -> Page:  # 3, 4
        name, browser = form.get("request", ""), request.cookies.get(self._cookie, "")
        token = form.get("token", "").encode("utf-8", "replace")
        if request.origin != self._origin or not hmac.compare_digest(token, self._token(browser, name).encode()):
            raise RequestRefused("the form is not of this page, or of another browser", hint=_AGAIN)
        waiting = self._waiting.take(name)
        if waiting is None or not hmac.compare_digest(waiting.browser, digest_of(browser)):
            raise RequestRefused("this request is over, or was answered already", hint=_AGAIN)
        if form.get("say") != "yes":
            told = {"error": "access_denied", "error_description": "the person said no"}
            return Page(body=pages.onwards(self._to(waiting.asked, told), "Back to where you came from"))
        asked, state = waiting.asked, fresh()
        away = _Away(asked=asked, browser=waiting.browser, nonce=fresh(), verifier=fresh())
        with _told(asked):
            address = await self._login.address(
                state=state, nonce=away.nonce, verifier=away.verifier, more=asked.request.login
            )
        self._away.put(state, away)  # only after the yes
        return Page(body=pages.onwards(address, "On to your login"))

    async def _back(self, request: BrowserRequest) -> Page:  # 5, 6
        query = request.query
        away = self._away.take(query.get("state", ""))
        browser = digest_of(request.cookies.get(self._cookie, ""))
        if away is None or not hmac.compare_digest(away.browser, browser):
            raise RequestRefused("this login was not begun in this browser, or is over", hint=_AGAIN)
        back = Redirected(code=query.get("code", ""), iss=query.get("iss", ""), error=query.get("error", ""))
        max_age = away.asked.request.login.get("max_age")
        with _told(away.asked):
            person = await self._login.logged_in(
                back, nonce=away.nonce, verifier=away.verifier, max_age=None if max_age is None else int(max_age),
                now=self._broker.clock(),
            )  # fmt: skip
            code = await self._broker.granted(away.asked, person)
        return Page(status=303, to=self._to(away.asked, {"code": code}))

    def _to(self, asked: Asked, told: Mapping[str, str]) -> str:
        request = asked.request
        return redirect.answer(request.redirect_uri, told, state=request.state, issuer=self._broker.issuer)

    def _token(self, browser: str, name: str) -> str:
        """What the form of a page must bring back: made for one browser and one request."""
        said = f"{browser}\0{name}".encode("utf-8", "replace")
        return hmac.digest(self._forms, said, "sha256").hex()


@contextmanager
def _told(asked: Asked) -> Iterator[None]:
    """What goes wrong from here on, the client may be told."""
    try:
        yield
    except OnbehalfError as error:
        _log.info("a login came to nothing with %s: %r", error.code, error.message)
        name = "access_denied" if error.status < 500 else "temporarily_unavailable"
        refused = OauthRefused(name, error.message, hint=error.hint)
        raise RefusedAt(refused, redirect_uri=asked.request.redirect_uri, state=asked.request.state) from error
