"""What a client will make of what a gateway and its issuer answered, line by line. Pure: plain values in and out.

1 the address, 2 the challenge, 3 the resource's metadata in three places, 4 the issuer's metadata, 5 what it announces,
6 the copy of it on the gateway's host, 7 how a client is registered, 8 scopes, 9 the tools. Must not fetch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from onbehalf.cli.connect_clients import Client
from onbehalf.doors.outbound_look import Answer, is_loopback
from onbehalf.model import Json

__all__ = ["Line", "Seen", "challenged", "judge"]

_SLOW_SECONDS = 10.0
_HINTS = ("readOnlyHint", "destructiveHint", "openWorldHint")
Level = Literal["ok", "note", "warning", "problem"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that was looked at. `hint` is what to do; `level` `problem` is what this client cannot do without."""

    level: Level
    what: str
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was answered. `resource` is the URL a person types; `challenge` the answer to a call without a token.

    `metadata` are the answers of the three places of RFC 9728 by their names, `issuers` those of the first issuer's
    metadata, `mirrors` those of its copy on the gateway's host. `public` is whether the gateway's name leads to public
    addresses only, None where it leads nowhere; `issuer_public` the same of the issuer. `tools` is the answer to
    tools/list with a person's token, None where none was given.
    """

    resource: str
    public: bool | None
    issuer_public: bool | None
    challenge: Answer
    metadata: Mapping[str, Answer]
    issuers: Sequence[Answer]
    mirrors: Sequence[Answer]
    tools: Answer | None


def challenged(header: str) -> dict[str, str]:
    """The quoted parameters of a `WWW-Authenticate: Bearer` header; {} for another scheme or none."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != "bearer":
        return {}
    return {name.lower(): value for name, value in re.findall(r'([A-Za-z_]{1,40})="([^"\\]{0,4000})"', rest[:16_000])}


def judge(client: Client, seen: Seen) -> list[Line]:
    """Every line, in the order a client walks. What cannot be looked at after a failure is left out."""
    lines = [*_address(client, seen), *_challenge(seen), *_resource(seen)]
    found = _named(seen)
    if not found:
        return lines
    issuer, answers = found[0], [each for each in seen.issuers if each.status == 200 and each.body]
    if len(found) > 1:
        lines.append(_line("note", "issuers", f"{len(found)} are named, and clients use the first: {issuer}"))
    exact = next((each for each in answers if each.body.get("issuer") == issuer), None)
    if exact is None:
        lines.append(_unusable(issuer, seen, answers))
        return [*lines, *_tools(client, seen)]
    lines.append(_line("ok", "issuer", f"{issuer} publishes its metadata at {exact.url}, under exactly this name"))
    lines += _quick("issuer", [*seen.issuers, seen.challenge])
    lines += _issuer(client, seen, exact.body)
    lines += _mirror(client, seen, issuer)
    lines += _registration(client, exact.body)
    return [*lines, *_scopes(seen, exact.body), *_tools(client, seen)]


def _line(level: Level, what: str, text: str, hint: str = "") -> Line:
    return Line(level=level, what=what, text=text, hint=hint)


def _address(client: Client, seen: Seen) -> Iterator[Line]:
    """1"""
    if is_loopback(seen.resource):
        if client.cloud:
            yield _line(
                "warning", "address", f"{seen.resource} is this machine only; {client.title} on the web calls from its "
                "vendor's servers", "give the gateway a public https name, or use a client on this machine",
            )  # fmt: skip
        else:
            yield _line("ok", "address", f"{seen.resource} is on this machine, where http is enough")
    elif not seen.resource.startswith("https://"):
        yield _line(
            "problem", "address", f"{seen.resource} is not https", "end TLS before the gateway, change `resource`"
        )
    elif seen.public is None:
        yield _line(
            "problem", "address", f"{seen.resource} leads nowhere: its name has no address", "publish it in DNS"
        )
    elif client.cloud and not seen.public:
        yield _line(
            "warning", "address", f"{seen.resource} has private addresses as seen from here; {client.title} on the web "
            "calls from its vendor's servers", "see that the same name has a public address for them",
        )  # fmt: skip
    else:
        yield _line("ok", "address", f"{seen.resource} is https")


def _challenge(seen: Seen) -> Iterator[Line]:
    """2"""
    answer = seen.challenge
    if answer.problem:
        yield _line("problem", "challenge", f"{answer.url}: {answer.problem}", "is it served, and reachable from here?")
        return
    said = challenged(answer.headers.get("www-authenticate", ""))
    if answer.status != 401:
        what = f"a call without a token was answered with {answer.status}, not 401"
        yield _line("problem", "challenge", what, "see that no proxy answers, redirects or logs in before the gateway")
    elif not said.get("resource_metadata"):
        what = "the 401 has no `WWW-Authenticate: Bearer resource_metadata=…`"
        yield _line("problem", "challenge", what, "see that no proxy removes the header")
    else:
        yield _line("ok", "challenge", f"401, and the header leads to {said['resource_metadata']}")


def _resource(seen: Seen) -> Iterator[Line]:
    """3"""
    for place, answer in seen.metadata.items():
        what = f"resource metadata ({place})"
        hint = "let the proxy before the gateway pass `/.well-known/` on as it is"
        if answer.problem or answer.status != 200 or not answer.body:
            told = answer.problem or f"status {answer.status}" + ("" if answer.body else ", and no JSON object")
            yield _line("problem", what, f"{answer.url}: {told}", hint)
        elif answer.body.get("resource") != seen.resource:
            told = f"its `resource` is {_short(answer.body.get('resource'))}, and people type {seen.resource}"
            yield _line("problem", what, told, "set `gateway.resource` to exactly the URL that people type")
        elif not _texts(answer.body.get("authorization_servers")):
            yield _line("problem", what, "it names no authorization server", "see `issuers` in the configuration")
        else:
            yield _line("ok", what, f"{answer.url} is for exactly this URL")


def _named(seen: Seen) -> list[str]:
    for answer in seen.metadata.values():
        if found := _texts(answer.body.get("authorization_servers")):
            return found
    return []


def _unusable(issuer: str, seen: Seen, answers: Sequence[Answer]) -> Line:
    """4, where it fails."""
    if answers:
        other = f"{answers[0].url} says that its issuer is {_short(answers[0].body.get('issuer'))}, not {issuer}"
        return _line("problem", "issuer", other, "spell `issuer` in the configuration exactly so, and in tokens' `iss`")
    told = "; ".join(f"{each.url}: {each.problem or f'status {each.status}'}" for each in seen.issuers)
    hint = "a client must reach it: publish RFC 8414 or OpenID Connect metadata there"
    return _line(
        "problem", "issuer", f"the metadata of {issuer} cannot be had; {told or 'its URL must not be asked'}", hint
    )


def _quick(what: str, answers: Sequence[Answer]) -> Iterator[Line]:
    slowest = max((each.seconds for each in answers), default=0.0)
    if slowest >= _SLOW_SECONDS / 2:
        text = f"an answer took {slowest:.1f} s; clients give up after {_SLOW_SECONDS:g} s"
        yield _line("problem" if slowest >= _SLOW_SECONDS else "warning", what, text, "find out what is slow there")


def _issuer(client: Client, seen: Seen, body: Mapping[str, Json]) -> Iterator[Line]:
    """5"""
    if client.cloud and seen.issuer_public is False and not is_loopback(seen.resource):
        text = f"the issuer has private addresses as seen from here; {client.title} on the web must reach it"
        yield _line("warning", "issuer", text, "see that its token endpoint has a public address")
    for name in ("authorization_endpoint", "token_endpoint"):
        if not isinstance(body.get(name), str):
            yield _line("problem", "issuer", f"its metadata has no `{name}`", "it must do the authorization code flow")
    if "S256" in _texts(body.get("code_challenge_methods_supported")):
        yield _line("ok", "PKCE", "`code_challenge_methods_supported` has S256")
    else:
        hint = "turn PKCE on there and have it announced; a sign-in broker before it can announce it too"
        yield _line("problem", "PKCE", "`code_challenge_methods_supported` has no S256, so clients refuse it", hint)
    if body.get("authorization_response_iss_parameter_supported") is True:
        yield _line("ok", "RFC 9207", "`iss` comes back with every authorization response")
    elif client.stable_redirect:
        text = (
            "`authorization_response_iss_parameter_supported` is not announced, so each connector has its own redirect"
        )
        hint = f"announce and send it (RFC 9207), or register the redirect address that {client.title} shows"
        yield _line("warning", "RFC 9207", text, hint)
    else:
        yield _line("note", "RFC 9207", "`iss` is not announced for authorization responses; mix-up attacks are easier")


def _mirror(client: Client, seen: Seen, issuer: str) -> Iterator[Line]:
    """6"""
    good = [each for each in seen.mirrors if each.status == 200 and each.body.get("issuer") == issuer]
    wrong = [each for each in seen.mirrors if each.status == 200 and each not in good]
    if wrong:
        text = f"{wrong[0].url} names another issuer: {_short(wrong[0].body.get('issuer'))}"
        yield _line("problem", "copy of issuer metadata", text, "let nothing but the gateway answer there")
    elif len(good) == len(seen.mirrors):
        yield _line("ok", "copy of issuer metadata", "the gateway's own host gives it too")
    else:
        bad = next(each for each in seen.mirrors if each not in good)
        level: Level = "problem" if client.mirror else "note"
        text = f"{bad.url}: {bad.problem or f'status {bad.status}'}; {client.title} " + (
            "looks there" if client.mirror else "does not need it"
        )
        hint = "let the gateway reach the issuer, and the proxy pass `/.well-known/` on" if client.mirror else ""
        yield _line(level, "copy of issuer metadata", text, hint)


def _registration(client: Client, body: Mapping[str, Json]) -> Iterator[Line]:
    """7"""
    methods = _texts(body.get("token_endpoint_auth_methods_supported"))
    announced = body.get("client_id_metadata_document_supported") is True
    cimd = announced and (not client.public_cimd or "none" in methods)
    dynamic = isinstance(body.get("registration_endpoint"), str)
    if cimd:
        yield _line("ok", "registration", "the client brings its own document (CIMD); nobody registers it")
    elif announced:
        text = "CIMD is announced, but `none` is not in `token_endpoint_auth_methods_supported`, so it is not used"
        yield _line("note" if dynamic else "warning", "registration", text, "announce `none`, for public clients")
    if dynamic and not cimd:
        yield _line("ok", "registration", "the client registers itself (RFC 7591), once per connection")
    elif not cimd:
        places = "; ".join(client.redirects)
        text = "neither CIMD nor dynamic registration is announced: a client must be registered by hand"
        hint = f"register a public client with PKCE there, redirect {places}; then give its id to {client.title}"
        yield _line("warning", "registration", text, hint)


def _scopes(seen: Seen, body: Mapping[str, Json]) -> Iterator[Line]:
    """8"""
    said = challenged(seen.challenge.headers.get("www-authenticate", "")).get("scope", "").split()
    listed = next((_texts(each.body.get("scopes_supported")) for each in seen.metadata.values() if each.body), [])
    wanted = said or listed
    known = _texts(body.get("scopes_supported"))
    if not wanted:
        yield _line("note", "scopes", "none is asked for; the issuer gives what it gives by default")
    elif known and (missing := [each for each in wanted if each not in known]):
        text = f"clients will ask for {' '.join(missing)}, which the issuer does not list"
        yield _line("warning", "scopes", text, "make these scopes known at the issuer, or take them from the tools")
    else:
        yield _line("ok", "scopes", f"clients will ask for {' '.join(wanted)}")


def _tools(client: Client, seen: Seen) -> Iterator[Line]:
    """9"""
    if seen.tools is None:
        yield _line("note", "tools", "not looked at: `--token env:NAME` shows what one person is shown")
        return
    result = seen.tools.body.get("result")
    listed = result.get("tools") if isinstance(result, dict) else None
    if seen.tools.status != 200 or not isinstance(listed, list):
        text = f"tools/list was answered with {seen.tools.problem or seen.tools.status}"
        yield _line("problem", "tools", text, "is the token for this gateway, of a known person, and not over?")
        return
    bare = [_short(each.get("name")) for each in listed if isinstance(each, dict) and not _annotated(each)]
    if not listed:
        hint = "`onbehalf check --as TENANT/PERSON` says why, tool by tool"
        yield _line("problem", "tools", "connected, and no tool is shown to this person", hint)
    elif bare:
        text = f"without all of {', '.join(_HINTS)}: {', '.join(bare[:5])}"
        yield _line("problem" if client.annotated else "warning", "tools", text, "report this")
    else:
        yield _line("ok", "tools", f"{len(listed)} shown to this person, each with its annotations")


def _annotated(tool: Mapping[str, Json]) -> bool:
    said = tool.get("annotations")
    return isinstance(said, dict) and all(isinstance(said.get(name), bool) for name in _HINTS)


def _texts(value: Json) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _short(value: Json) -> str:
    return str(value)[:200]
