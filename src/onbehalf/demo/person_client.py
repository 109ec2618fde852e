"""One person's MCP client: the SDK's own client and OAuth flow, with a scripted hand on the login page.

Nothing here knows the answers: it connects, logs in, calls, and says what came back.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx2
from mcp import Client, MCPError
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from onbehalf.demo.data import DemoPerson

__all__ = ["PersonClient", "Told", "connected"]

_REDIRECT = "http://127.0.0.1:8113/callback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What came back from one call. `denial` is "" where it was done; `rows` are the objects in the answer."""

    call: str
    rows: tuple[Mapping[str, Any], ...]
    denial: str
    remedy: str
    text: str

    @property
    def done(self) -> bool:
        """Whether the call was carried out."""
        return not self.denial


class _Keep:
    """Tokens and registration, for as long as the story lasts."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class _Hand:
    """Does what a person would do in the browser: open the page, pick oneself, press the button."""

    def __init__(self, person: DemoPerson) -> None:
        self._person = person
        self._answer: AuthorizationCodeResult | None = None

    async def open(self, url: str) -> None:
        async with httpx2.AsyncClient(follow_redirects=False, timeout=10) as browser:
            page = await browser.get(url)
            name = re.search(r'name="login" value="([^"]+)"', page.text)
            if name is None:
                raise RuntimeError(f"the issuer showed no login page (status {page.status_code})")
            form = {"login": name[1], "subject": self._person.subject}
            done = await browser.post(urljoin(url, "authorize"), data=form)
        back = {key: values[0] for key, values in parse_qs(urlsplit(done.headers.get("location", "")).query).items()}
        self._answer = AuthorizationCodeResult(code=back.get("code", ""), state=back.get("state"), iss=back.get("iss"))

    async def answer(self) -> AuthorizationCodeResult:
        if self._answer is None:
            raise RuntimeError("nobody logged in")
        return self._answer


class PersonClient:
    """Calls tools as one person."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def protocol(self) -> str:
        """The protocol revision that was agreed."""
        return self._client.protocol_version

    async def tools(self) -> set[str]:
        """Names of the tools this person is shown."""
        return {tool.name for tool in (await self._client.list_tools()).tools}

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> Told:
        """Call a tool. A refusal is an answer, not an exception."""
        try:
            result = await self._client.call_tool(tool, dict(arguments))
        except MCPError as error:
            data = error.error.data if isinstance(error.error.data, dict) else {}
            return _told(data, {}, error.error.message, failed=True)
        text = "\n".join(part.text for part in result.content if part.type == "text")
        return _told(result.meta or {}, result.structured_content, text, failed=bool(result.is_error))


@asynccontextmanager
async def connected(url: str, person: DemoPerson) -> AsyncIterator[PersonClient]:
    """A client of `url`, logged in as `person` through discovery, registration, PKCE and the login page."""
    hand = _Hand(person)
    provider = OAuthClientProvider(
        server_url=url,
        client_metadata=OAuthClientMetadata(
            client_name=f"onbehalf demo ({person.name})",
            redirect_uris=[AnyUrl(_REDIRECT)],
            token_endpoint_auth_method="none",  # noqa: S106  # a public client has no secret
        ),
        storage=_Keep(),
        redirect_handler=hand.open,
        callback_handler=hand.answer,
    )
    async with (
        httpx2.AsyncClient(auth=provider, timeout=30) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        yield PersonClient(client)


def _told(meta: Mapping[str, Any], structured: Any, text: str, *, failed: bool) -> Told:
    denial = meta.get("onbehalf/denial")
    said = denial if isinstance(denial, dict) else {}
    if not structured and not failed:
        try:
            structured = json.loads(text)
        except ValueError:
            structured = {}
    return Told(
        call=str(meta.get("onbehalf/call") or said.get("call") or ""),
        rows=() if failed else _objects(structured),
        denial=str(said.get("code") or "failed") if failed else "",
        remedy=str(said.get("remedy") or ""),
        text=text,
    )


def _objects(structured: Any) -> tuple[Mapping[str, Any], ...]:
    """Every object with an `id` in an answer, wherever it stands: what must not leak may not hide either."""
    if isinstance(structured, list):
        return tuple(found for item in structured for found in _objects(item))
    if isinstance(structured, dict):
        if "id" in structured:
            return (structured,)
        return tuple(found for item in structured.values() for found in _objects(item))
    return ()
