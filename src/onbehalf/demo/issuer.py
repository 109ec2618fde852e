"""A demo OAuth 2.1 issuer: discovery, registration, a login page without passwords, codes with PKCE, tokens.

For demos and tests only: anybody may log in as anybody. What it does check, it checks as a real issuer
must (RFC 6749, 7591, 7636, 8414, 8707, 9068, 9207), so that clients are tried against the real thing.
State is in memory and bounded. Must not know the gateway beyond its resource identifier.
"""

from __future__ import annotations

import argparse
import hmac
import json
import secrets
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import parse_qsl, urlencode, urlsplit

import uvicorn
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from onbehalf.base64url import s256
from onbehalf.demo.data import DemoPerson, world
from onbehalf.demo.login_page import error_page, headers, login_page
from onbehalf.demo.oauth_state import Box, Client, Code, Login, Refresh, redirect_allowed, redirect_matches

__all__ = ["SCOPES", "build", "main"]

SCOPES = ("reviews.read", "reviews.write", "tickets.read", "tickets.write", "orders.read", "orders.write")
_TOKEN_SECONDS = 600
_BODY_BYTES = 16 * 1024
_NO_STORE = {"cache-control": "no-store", "pragma": "no-cache"}


class _Refused(Exception):
    """A refusal in OAuth's own words: `error` and `error_description`."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.error, self.description, self.status = error, description, status


class _Issuer:
    """The endpoints. Order of checks in `authorize`: client, redirect address, then everything that may be
    told to the client at that address."""

    def __init__(
        self,
        url: str,
        people: Sequence[DemoPerson],
        resources: Sequence[str],
        known: Sequence[Client],
        *,
        clock: Callable[[], float],
    ) -> None:
        self.url, self.clock = url.rstrip("/"), clock
        self.known = {client.id: client for client in known}
        self.people = {person.subject: person for person in people}
        self.resources = frozenset(resources)
        self.key = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256", "kid": secrets.token_hex(8)})
        self.clients: Box[Client] = Box(size=500, lifetime_s=86_400, clock=clock)
        self.logins: Box[Login] = Box(size=500, lifetime_s=600, clock=clock)
        self.codes: Box[Code] = Box(size=500, lifetime_s=60, clock=clock)
        self.spent: Box[str] = Box(size=2000, lifetime_s=86_400, clock=clock)
        """Codes and refresh tokens already used, with their family."""
        self.ended: Box[bool] = Box(size=2000, lifetime_s=86_400, clock=clock)
        """Families that are over because something of theirs was used twice."""
        self.refreshes: Box[Refresh] = Box(size=1000, lifetime_s=8 * 3600, clock=clock)

    # --- discovery ---------------------------------------------------------------------

    async def metadata(self, request: Request) -> Response:
        """RFC 8414, and the same for clients that look where OpenID Connect puts it."""
        return JSONResponse(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "registration_endpoint": f"{self.url}/register",
                "jwks_uri": f"{self.url}/jwks.json",
                "scopes_supported": list(SCOPES),
                "response_types_supported": ["code"],
                "response_modes_supported": ["query"],
                "grant_types_supported": ["authorization_code", "refresh_token"],
                "token_endpoint_auth_methods_supported": ["none"],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            }
        )

    async def jwks(self, request: Request) -> Response:
        """The public key that access tokens are signed with."""
        return JSONResponse(KeySet([self.key]).as_dict(private=False), headers={"cache-control": "max-age=60"})

    # --- registration ------------------------------------------------------------------

    async def register(self, request: Request) -> Response:
        """RFC 7591 for public clients."""
        try:
            asked = json.loads(await _body(request))
        except ValueError as error:
            raise _Refused("invalid_client_metadata", "the body is not JSON") from error
        if not isinstance(asked, dict):
            raise _Refused("invalid_client_metadata", "the body is not an object")
        uris = asked.get("redirect_uris")
        if not isinstance(uris, list) or not 1 <= len(uris) <= 10:
            raise _Refused("invalid_redirect_uri", "between one and ten redirect_uris are needed")
        if not all(isinstance(uri, str) and redirect_allowed(uri) for uri in uris):
            raise _Refused(
                "invalid_redirect_uri", "only https, loopback http and private-use schemes, without fragment"
            )
        if asked.get("token_endpoint_auth_method", "none") != "none":
            raise _Refused("invalid_client_metadata", "only public clients: token_endpoint_auth_method `none`")
        name = str(asked.get("client_name") or "a client without a name")[:100]
        client = Client(id=f"demo-{secrets.token_hex(8)}", name=name, redirect_uris=tuple(uris))
        self.clients.put(client.id, client)
        answer = {
            "client_id": client.id,
            "client_id_issued_at": int(self.clock()),
            "client_name": client.name,
            "redirect_uris": list(client.redirect_uris),
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        }
        return JSONResponse(answer, status_code=201, headers=_NO_STORE)

    # --- login -------------------------------------------------------------------------

    async def authorize(self, request: Request) -> Response:
        """The login page."""
        asked = _single(request.url.query)
        client = self.known.get(asked.get("client_id", "")) or self.clients.get(asked.get("client_id", ""))
        if client is None:
            return _error("the client is not registered here")
        redirect_uri = asked.get("redirect_uri", "")
        if not any(redirect_matches(known, redirect_uri) for known in client.redirect_uris):
            return _error("the redirect address is not one that the client registered")
        state = asked.get("state", "")
        try:
            scope = self._check(asked)
        except _Refused as refused:
            told = {"error": refused.error, "error_description": refused.description}
            return self._back(redirect_uri, state, told)
        browser = request.cookies.get("demo_login") or secrets.token_urlsafe(24)
        login = Login(
            client=client,
            redirect_uri=redirect_uri,
            state=state,
            challenge=asked["code_challenge"],
            resource=asked["resource"],
            scope=scope,
            browser=browser,
        )
        name = secrets.token_urlsafe(24)
        self.logins.put(name, login)
        page = login_page(
            list(self.people.values()), client=client.name, resource=login.resource, scopes=scope, form={"login": name}
        )
        answer = HTMLResponse(page, headers=headers(redirect_uri))
        answer.set_cookie("demo_login", browser, max_age=600, httponly=True, samesite="strict", path="/authorize")
        return answer

    def _check(self, asked: Mapping[str, str]) -> str:
        """The scope to grant. What is asked must be whole: PKCE and resource are not optional."""
        if asked.get("response_type") != "code":
            raise _Refused("unsupported_response_type", "response_type must be `code`")
        if asked.get("code_challenge_method") != "S256" or len(asked.get("code_challenge", "")) != 43:
            raise _Refused("invalid_request", "PKCE with S256 is required")
        if asked.get("resource", "") not in self.resources:
            raise _Refused("invalid_target", "resource must name a resource this issuer knows (RFC 8707)")
        wanted = asked.get("scope", "").split() or list(SCOPES)
        if not set(wanted) <= set(SCOPES):
            raise _Refused("invalid_scope", f"known scopes are {' '.join(SCOPES)}")
        return " ".join(scope for scope in SCOPES if scope in wanted)

    async def login(self, request: Request) -> Response:
        """The form of the login page: only from the browser, and the page, that this login began in."""
        if request.headers.get("origin", self.url) != self.url:
            return _error("the form came from another site")
        form = _single((await _body(request)).decode("utf-8", "replace"))
        waiting = self.logins.get(form.get("login", ""))
        if waiting is None:
            return _error("this login is over or was never begun")
        if not hmac.compare_digest(waiting.browser.encode(), request.cookies.get("demo_login", "").encode()):
            return _error("this login was begun in another browser")
        person = self.people.get(form.get("subject", ""))
        if person is None:
            return _error("there is no such person")
        self.logins.take(form["login"])
        code = secrets.token_urlsafe(32)
        self.codes.put(code, Code(login=waiting, subject=person.subject, family=secrets.token_hex(8)))
        return self._back(waiting.redirect_uri, waiting.state, {"code": code})

    def _back(self, redirect_uri: str, state: str, told: Mapping[str, str]) -> Response:
        """Back to the client, with `state` as it came and `iss` (RFC 9207)."""
        query = urlencode({**told, **({"state": state} if state else {}), "iss": self.url})
        glue = "&" if "?" in redirect_uri else "?"
        return RedirectResponse(f"{redirect_uri}{glue}{query}", status_code=303, headers=headers())

    # --- tokens ------------------------------------------------------------------------

    async def token(self, request: Request) -> Response:
        """The token endpoint: a code, or a refresh token, for a new pair."""
        asked = _single((await _body(request)).decode("utf-8", "replace"))
        grant = asked.get("grant_type")
        if grant == "authorization_code":
            found = self._from_code(asked)
        elif grant == "refresh_token":
            found = self._from_refresh(asked)
        else:
            raise _Refused("unsupported_grant_type", "authorization_code or refresh_token")
        return JSONResponse(self._pair(found), headers=_NO_STORE)

    def _from_code(self, asked: Mapping[str, str]) -> Refresh:
        presented = asked.get("code", "")
        code = self.codes.take(presented)
        if code is None:
            self._end_if_reused(presented)
            raise _Refused("invalid_grant", "the code is unknown, over or already used")
        # INVARIANT: from here on the code is spent, whatever else is wrong with the request.
        self.spent.put(presented, code.family)
        login = code.login
        if asked.get("client_id") != login.client.id:
            raise _Refused("invalid_grant", "the code was given to another client")
        if asked.get("redirect_uri") != login.redirect_uri:
            raise _Refused("invalid_grant", "redirect_uri differs from the authorization request")
        verifier = asked.get("code_verifier", "")
        hashed = s256(verifier.encode())
        if not 43 <= len(verifier) <= 128 or not hmac.compare_digest(hashed, login.challenge):
            raise _Refused("invalid_grant", "the code_verifier does not fit the code_challenge")
        if asked.get("resource") != login.resource:
            raise _Refused("invalid_target", "resource must be the one that was authorized (RFC 8707)")
        return Refresh(
            client_id=login.client.id,
            subject=code.subject,
            resource=login.resource,
            scope=login.scope,
            family=code.family,
        )

    def _from_refresh(self, asked: Mapping[str, str]) -> Refresh:
        presented = asked.get("refresh_token", "")
        found = self.refreshes.get(presented)
        if found is None:
            self._end_if_reused(presented)
            raise _Refused("invalid_grant", "the refresh token is unknown, over or already used")
        if asked.get("client_id") != found.client_id:
            raise _Refused("invalid_grant", "the refresh token was given to another client")
        if self.ended.get(found.family):
            raise _Refused("invalid_grant", "something of this login was used twice, so all of it is over")
        if asked.get("resource", found.resource) != found.resource:
            raise _Refused("invalid_target", "resource must be the one that was authorized (RFC 8707)")
        self.refreshes.take(presented)
        self.spent.put(presented, found.family)
        return found

    def _end_if_reused(self, presented: str) -> None:
        family = self.spent.get(presented)
        if family is not None:
            self.ended.put(family, True)

    def _pair(self, found: Refresh) -> dict[str, str | int]:
        now = int(self.clock())
        claims = {
            "iss": self.url,
            "sub": found.subject,
            "aud": found.resource,
            "iat": now,
            "exp": now + _TOKEN_SECONDS,
            "jti": secrets.token_hex(16),
            "client_id": found.client_id,
            "scope": found.scope,
            "tenant": self.people[found.subject].tenant,
        }
        header = {"alg": "ES256", "typ": "at+jwt", "kid": self.key.kid}
        refresh = secrets.token_urlsafe(32)
        self.refreshes.put(refresh, found)
        return {
            "access_token": jwt.encode(header, claims, self.key, algorithms=["ES256"]),
            "token_type": "Bearer",
            "expires_in": _TOKEN_SECONDS,
            "refresh_token": refresh,
            "scope": found.scope,
        }


def build(
    issuer_url: str,
    people: Sequence[DemoPerson],
    allowed_resources: Sequence[str],
    *,
    clients: Sequence[Client] = (),
    clock: Callable[[], float] = time.time,
) -> ASGIApp:
    """The issuer as an ASGI application. `issuer_url` is its address without a path; `clock` is in Unix seconds.

    `clients` are known without registering themselves, and for good.
    """
    issuer = _Issuer(issuer_url, people, allowed_resources, clients, clock=clock)
    return Starlette(
        routes=[
            Route("/.well-known/oauth-authorization-server", issuer.metadata),
            Route("/.well-known/openid-configuration", issuer.metadata),
            Route("/jwks.json", issuer.jwks),
            Route("/register", issuer.register, methods=["POST"]),
            Route("/authorize", issuer.authorize, methods=["GET"]),
            Route("/authorize", issuer.login, methods=["POST"]),
            Route("/token", issuer.token, methods=["POST"]),
        ],
        middleware=[
            # A page on the internet whose name resolves to loopback must not reach a login without passwords.
            Middleware(TrustedHostMiddleware, allowed_hosts=[urlsplit(issuer_url).hostname or "127.0.0.1"]),
        ],
        exception_handlers={_Refused: _refused},
    )


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, _Refused):
        raise error
    if request.url.path == "/authorize":
        return _error(error.description)
    told = {"error": error.error, "error_description": error.description}
    return JSONResponse(told, status_code=error.status, headers=_NO_STORE)


def _error(message: str) -> Response:
    return HTMLResponse(error_page(message), status_code=400, headers=headers())


async def _body(request: Request) -> bytes:
    """The body, within bounds."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > _BODY_BYTES:
            raise _Refused("invalid_request", f"the body is over {_BODY_BYTES} bytes", 413)
        parts.append(part)
    return b"".join(parts)


def _single(encoded: str) -> dict[str, str]:
    """Form or query parameters; each at most once (RFC 6749 section 3.1)."""
    try:
        pairs = parse_qsl(encoded, keep_blank_values=True, max_num_fields=30)
    except ValueError as error:
        raise _Refused("invalid_request", "the parameters cannot be read") from error
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused("invalid_request", "a parameter stands twice")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m onbehalf.demo.issuer`: serve on loopback; prints where as one JSON line."""
    reader = argparse.ArgumentParser(
        prog="python -m onbehalf.demo.issuer", description="DEMO ISSUER: never for real use"
    )
    reader.add_argument("--port", type=int, default=0, help="0 takes any free port")
    reader.add_argument("--resource", action="append", required=True, help="a resource it gives tokens for")
    reader.add_argument(
        "--client", action="append", nargs=2, metavar=("ID", "REDIRECT_URI"), default=[], help="a client known for good"
    )
    given = reader.parse_args(arguments)
    listening = socket.create_server(("127.0.0.1", given.port))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    clients = [Client(id=id, name="the gateway's own pages", redirect_uris=(uri,)) for id, uri in given.client]
    app = build(url, world().people, given.resource, clients=clients)
    sys.stdout.write(json.dumps({"url": url}) + "\n")
    sys.stdout.flush()
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2))
    server.run(sockets=[listening])


if __name__ == "__main__":
    main()
