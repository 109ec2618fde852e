"""`onbehalf connect`: what to paste into a client, and from outside, whether that client will get in.

Knows the gateway by its public URL alone, as a client does. Must not read the running gateway's data.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from onbehalf.cli.connect_clients import CLIENTS, Client
from onbehalf.cli.connect_judge import Line, Seen, challenged, judge
from onbehalf.cli.screen import AsJson, ConfigFile, console, print_json, quoted
from onbehalf.doors.mcp_words import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    LATEST_HANDSHAKE_VERSION,
    LATEST_MODERN_VERSION,
    PROTOCOL_VERSION_META_KEY,
)
from onbehalf.doors.outbound_look import Answer, Looker, followable, is_loopback, is_public
from onbehalf.doors.secret_reference import resolved
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Json
from onbehalf.places import load_settings

__all__ = ["connect"]

_ACCEPT = {"accept": "application/json, text/event-stream"}
_INFO: dict[str, Json] = {"name": "onbehalf-connect", "version": "1"}
_RESOURCE, _ISSUER = "/.well-known/oauth-protected-resource", "/.well-known/oauth-authorization-server"
_OPENID = "/.well-known/openid-configuration"


class Name(StrEnum):
    """The clients that are known."""

    chatgpt = "chatgpt"
    claude = "claude"
    cursor = "cursor"
    vscode = "vscode"


def connect(
    client: Annotated[Name, typer.Argument(help="Which client people use.")],
    config: ConfigFile = Path("onbehalf.yaml"),
    url: Annotated[str, typer.Option(help="The URL people type, if it is not `gateway.resource`.")] = "",
    token: Annotated[
        str, typer.Option(help="An access token of one person, as env:NAME or file:PATH: also looks at their tools.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Say what to paste into a client, and check from outside that it will get in.

    Asks the gateway at its public URL, and its first issuer, for everything that this client will ask for, and says
    line by line what it will make of it. Nothing is logged in or registered, and no redirect is followed.
    Exit 1 if there is a problem; warnings are for you to judge.

    Example: onbehalf connect claude --config onbehalf.yaml
    """
    resource = url or load_settings(config).gateway.resource
    if urlsplit(resource).scheme not in ("http", "https") or not urlsplit(resource).hostname:
        raise ConfigInvalid(f"`{resource}` is no URL", hint="such as https://gateway.example.com/mcp")
    if token and not resource.startswith("https://") and not is_loopback(resource):
        raise ConfigInvalid(f"the token is not sent to `{resource}`, which is not https", hint="leave `--token` out")
    secret = resolved(token, base=config.resolve().parent, what="--token") if token else ""
    chosen = CLIENTS[client.value]
    lines = judge(chosen, asyncio.run(_seen(resource, secret)))
    problems = sum(each.level == "problem" for each in lines)
    if as_json:
        rows: list[Json] = [
            {"level": each.level, "what": each.what, "text": each.text, "hint": each.hint} for each in lines
        ]
        steps: list[Json] = [*chosen.told(resource)]
        print_json({"ok": not problems, "client": client.value, "url": resource, "steps": steps, "findings": rows})
    else:
        _print(chosen, resource, lines, problems)
    raise typer.Exit(1 if problems else 0)


def _print(client: Client, resource: str, lines: Sequence[Line], problems: int) -> None:
    screen = console()
    colours = {"ok": "green", "note": "dim", "warning": "yellow", "problem": "red bold"}
    screen.print(f"[bold]{client.title}[/bold]")
    for step in client.told(resource):
        screen.print(quoted(step))
    screen.print("\n[bold]From outside[/bold]")
    for each in lines:
        screen.print(f"[{colours[each.level]}]{each.level:<8}[/] {quoted(each.what)}: {quoted(each.text)}")
        if each.hint:
            screen.print(f"         what to do: {quoted(each.hint)}")
    screen.print(f"\n{problems or 'No'} problem{'' if problems == 1 else 's'} found.")


async def _seen(resource: str, token: str) -> Seen:
    looker = Looker()
    try:
        return await _looked(looker, resource, token)
    finally:
        await looker.aclose()


async def _looked(looker: Looker, resource: str, token: str) -> Seen:
    parts = urlsplit(resource)
    origin, path = f"{parts.scheme}://{parts.netloc}", "" if parts.path == "/" else parts.path
    challenge = await looker.post(resource, _hello(), _ACCEPT)
    named = challenged(challenge.headers.get("www-authenticate", "")).get("resource_metadata", "")
    places = {"path form": f"{origin}{_RESOURCE}{path}", "root form": f"{origin}{_RESOURCE}"}
    if named:
        places = {"header": named, **places}
    metadata = {place: await _followed(looker, each, resource) for place, each in places.items()}
    issuer = next((name for each in metadata.values() if (name := _first(each.body))), "")
    issuers = [await looker.get(each) for each in _metadata_urls(issuer) if followable(each, seen_at=resource)]
    mirrors = [await looker.get(each) for each in dict.fromkeys((f"{origin}{_ISSUER}{path}", f"{origin}{_ISSUER}"))]
    return Seen(
        resource=resource, challenge=challenge, metadata=metadata, issuers=issuers, mirrors=mirrors,
        public=await is_public(resource), issuer_public=await is_public(issuer) if issuer else None,
        tools=await looker.post(resource, _list(), _listing(token)) if token else None,
    )  # fmt: skip


async def _followed(looker: Looker, url: str, resource: str) -> Answer:
    if not followable(url, seen_at=resource):
        return Answer(url=url, problem="this URL must not be asked for: not https, or an address of another kind")
    return await looker.get(url)


def _first(body: Mapping[str, Json]) -> str:
    found = body.get("authorization_servers")
    return found[0] if isinstance(found, list) and found and isinstance(found[0], str) else ""


def _metadata_urls(issuer: str) -> tuple[str, ...]:
    """Where clients look, in their order (MCP 2026-07-28, authorization server discovery)."""
    try:
        parts = urlsplit(issuer)
    except ValueError:
        return ()
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    urls = (f"{origin}{_ISSUER}{path}", f"{origin}{_OPENID}{path}", f"{origin}{path}{_OPENID}")
    return tuple(dict.fromkeys(urls))


def _hello() -> dict[str, Json]:
    """What a client says first, without a token."""
    params: dict[str, Json] = {"protocolVersion": LATEST_HANDSHAKE_VERSION, "capabilities": {}, "clientInfo": _INFO}
    return {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}


def _list() -> dict[str, Json]:
    meta: dict[str, Json] = {
        PROTOCOL_VERSION_META_KEY: LATEST_MODERN_VERSION, CLIENT_CAPABILITIES_META_KEY: {}, CLIENT_INFO_META_KEY: _INFO
    }  # fmt: skip
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}


def _listing(token: str) -> dict[str, str]:
    said = {"mcp-protocol-version": LATEST_MODERN_VERSION, "mcp-method": "tools/list"}
    return {**_ACCEPT, **said, "authorization": f"Bearer {token}"}
