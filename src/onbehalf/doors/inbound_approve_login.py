"""Who is logged in in which browser: logins under way, and sessions of the approval pages.

All in memory and bounded: after a restart one logs in again. A browser holds two random names in cookies, of which only
digests are kept here: one binds a login under way to the browser that began it (so that nobody is logged in as somebody
else by a link), one names its session. The access token is proven once, like any bearer, and dropped. Must not know
pages or approvals.

Trust: whoever has a browser's cookies is that person here until the session is over.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from onbehalf.config import IssuerSettings
from onbehalf.doors.issuer_login import Redirected
from onbehalf.doors.kept import Kept, digest_of, fresh
from onbehalf.errors import LoginFailed
from onbehalf.model import Caller, Presented
from onbehalf.ports import Callers, Clock

__all__ = ["Logins", "PageLogin", "Session"]

_LOGIN_SECONDS = 300.0
_NAME_BYTES = 32
_AGAIN = "open the link you were given and log in anew"


class PageLogin(Protocol):
    """A login at one issuer, with an access token for this gateway at its end."""

    rule: IssuerSettings
    client_id: str

    async def address(self, *, state: str, verifier: str) -> str:
        """Where to send the browser. Raises LoginFailed."""
        ...

    async def redeemed(self, back: Redirected, *, verifier: str) -> Presented:
        """The access token that the code stands for, unproven. Raises LoginFailed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A person in a browser, proven. `forms` is the key for tokens of this session's forms."""

    caller: Caller
    forms: bytes = field(repr=False)

    def form_token(self, of: str) -> str:
        """What a form of this session about `of` must bring back."""
        return hmac.digest(self.forms, of.encode(), "sha256").hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Login:
    """A login under way, at one issuer, in one browser, to go on at one approval."""

    issuer: PageLogin
    browser: bytes
    verifier: str = field(repr=False)
    approval: str


class Logins:
    """Begins, ends and remembers logins. `issuers` are those where people can log in."""

    def __init__(
        self,
        issuers: Sequence[PageLogin],
        callers: Callers,
        *,
        clock: Clock,
        session_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.issuers = tuple(issuers)
        self._callers = callers
        self._clock = clock
        self._under_way: Kept[_Login] = Kept(_LOGIN_SECONDS, monotonic)
        self._sessions: Kept[Session] = Kept(session_seconds, monotonic)

    async def begun(self, issuer: int, approval: str, browser: str) -> tuple[str, str]:
        """Where to send the browser, and the name it is to keep while it is away. Raises LoginFailed."""
        if not 0 <= issuer < len(self.issuers):
            raise LoginFailed("there is no such login", hint=_AGAIN)
        at, state, verifier = self.issuers[issuer], fresh(), fresh()
        name = browser if len(browser) == len(state) else fresh()  # several logins of one browser may be under way
        address = await at.address(state=state, verifier=verifier)
        login = _Login(issuer=at, browser=digest_of(name), verifier=verifier, approval=approval)
        self._under_way.put(state, login)
        return address, name

    async def ended(self, state: str, back: Redirected, browser: str) -> tuple[str, str]:
        """The name of the session, and the approval to go on with. Raises LoginFailed and IdentifyErrors."""
        login = self._under_way.take(state)
        if login is None or not hmac.compare_digest(login.browser, digest_of(browser)):
            raise LoginFailed("this login was not begun in this browser, or is over", hint=_AGAIN)
        presented = await login.issuer.redeemed(back, verifier=login.verifier)
        caller = await self._callers.prove(presented, now=self._clock())
        # A token of another issuer or client was not given for this login, whoever signed it.
        if caller.evidence.issuer != login.issuer.rule.issuer or caller.client != login.issuer.client_id:
            raise LoginFailed("the token is of another login", hint="tell whoever runs the gateway")
        name = fresh()
        self._sessions.put(name, Session(caller=caller, forms=secrets.token_bytes(_NAME_BYTES)))
        return name, login.approval

    def session(self, name: str) -> Session | None:
        """The session of that name, if it is not over."""
        return self._sessions.get(name) if name else None

    def end(self, name: str) -> None:
        """Log out."""
        self._sessions.take(name)

    def end_all(self) -> None:
        """End every session and login: whoever they are of must be proven anew."""
        self._sessions.clear()
        self._under_way.clear()
