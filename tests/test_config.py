"""`onbehalf.yaml` as text: what is taken, and that everything else is a sentence and never another exception."""

from __future__ import annotations

import contextlib
import random

import pytest

from onbehalf import config
from onbehalf.errors import ConfigInvalid

GOOD = """
gateway: {resource: "https://gateway.example/mcp"}
issuers: [{issuer: "https://login.example", tenant: acme}]
upstreams:
  base: {kind: sql, database: a.db, tools: {notes: {action: readNote, statement: SELECT 1}}}
  desk: {kind: mcp, url: "https://desk.example/mcp", tools: {write: {action: writeDesk}}}
"""


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def _claims(entries: str) -> str:
    return f"directory: {{claims: [{entries}]}}\nupstreams:"


def refused(text: str) -> str:
    with pytest.raises(ConfigInvalid) as found:
        config.parse(text)
    assert found.value.hint
    return found.value.message


def test_the_good_one_is_taken_with_every_default() -> None:
    settings = config.parse(GOOD)
    assert settings.gateway == config.GatewaySettings(resource="https://gateway.example/mcp")
    assert settings.gateway.limits == config.Limits()
    assert {type(each) for each in settings.upstreams.values()} == {config.SqlUpstream, config.McpUpstream}


@pytest.mark.parametrize(
    "url",
    ["gateway.example", "ftp://x/", "https://", "https://x/?a", "https://x/#a", "https://x:99999/", "https://x:0/",
     "https://[::1/", "https://x/a b", "https://x/\\t", "https://x/\\n", " https://x/", "https:///mcp", "https://:80/"],
)  # fmt: skip
@pytest.mark.parametrize("place", ["https://gateway.example/mcp", "https://login.example", "https://desk.example/mcp"])
def test_what_is_no_url_is_refused(place: str, url: str) -> None:
    refused(changed(place, url))


def test_an_issuer_must_be_https_beyond_this_machine() -> None:
    assert "is not https" in refused(changed("https://login.example", "http://login.example"))
    for loopback in ("http://127.0.0.1:1", "http://localhost/x", "http://[::1]:8110"):
        assert config.parse(changed("https://login.example", loopback)).issuers[0].issuer == loopback
    for beside in ("http://127.0.0.1.evil.example", "http://localhost.evil.example", "http://127.0.0.1@evil.example"):
        assert "is not https" in refused(changed("https://login.example", beside))


@pytest.mark.parametrize("place", ["", "\\0", "a\\0b", "\\x1b[2J"])
@pytest.mark.parametrize("key", ["data", "policies", "people"])
def test_a_place_that_no_file_could_have_is_refused(key: str, place: str) -> None:
    assert f"$.gateway.{key}" in refused(changed("gateway: {", f'gateway: {{{key}: "{place}", '))


@pytest.mark.parametrize("place", ["", "\\0"])
def test_a_database_that_no_file_could_be_is_refused(place: str) -> None:
    assert "database" in refused(changed("a.db", f'"{place}"'))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("issuers: [{issuer: \"https://login.example\", tenant: acme}]", "issuers: []", "issuers"),
        ("tenant: acme}]", "tenant: acme}, {issuer: \"https://login.example\", tenant: b}]", "stands twice"),
        ("{write: {", "{notes: {", "of one name"),
        ("{write: {", "{Write: {", "regex"),
        ("{write: {", "{\"../x\": {", "regex"),
        ("kind: sql", "kind: oracle", "oracle"),
        ("kind: sql, ", "", "kind"),
        ("tenant: acme", "tenant: {claim: t, allowed: []}", "allowed"),
        ("tenant: acme", "tenant: acme, algorithms: [none]", "none"),
        ("tenant: acme", "tenant: acme, algorithms: [HS256]", "HS256"),
        ("tenant: acme", "tenant: acme, algorithms: []", "algorithms"),
        ("tenant: acme", "tenant: acme, token_types: []", "token_types"),
        ("tenant: acme", "tenant: acme, outage_seconds: -1", "outage_seconds"),
        ("gateway: {", "gateway: {limits: {rows: 0}, ", "rows"),
        ("gateway: {", "gateway: {limits: {call_seconds: .nan}, ", "call_seconds"),
        ("gateway: {", "gateway: {limits: {call_seconds: .inf}, ", "call_seconds"),
        ("gateway: {", "gateway: {insecure_http_for_tests: 'yes', ", "insecure_http_for_tests"),
        ("gateway: {", "gateway: {dpop: {nonce: off}, ", "nonce"),
        ("gateway: {", "gateway: {dpop: {window_seconds: 3600}, ", "window_seconds"),
        ("gateway: {", "gateway: {dpop: {window: 60}, ", "known keys are `nonce`, `window_seconds`"),
        ("gateway: {", "gateway: {certificates: {}, ", "secret"),
        ("gateway: {", "gateway: {certificates: {secret: hunter2}, ", "secret"),
        ("gateway: {", "gateway: {certificates: {secret: 'env:S', header: a b}, ", "header"),
        ("gateway: {", "gateway: {certificates: {secret: 'env:S', header: Authorization}, ", "something else"),
        ("gateway: {", "gateway: {certificates: {secret: 'env:S', secret_header: client-cert}, ", "twice"),
        ("gateway: {", "gateway: {certificates: {secret: 'env:S', spelling: xfcc}, ", "spelling"),
        ("tenant: acme", "tenant: acme, proof: none", "proof"),
        ("tenant: acme", "tenant: acme, proof: mtls", "none are read here"),
        ("tenant: acme", "tenant: acme, proof: dpop, login: {client_id: x}", "bearer tokens"),
        ("action: writeDesk", "action: writeDesk, writes: 'no'", "writes"),
        ("action: writeDesk", "action: writeDesk, action: x", "twice"),
        ("upstreams:", _claims("{tenant: acme, issuer: 'https://other.example'}"), "no issuer here"),
        ("upstreams:", _claims("{tenant: globex, issuer: 'https://login.example'}"), "may not speak"),
        ("upstreams:", _claims("{tenant: acme, issuer: 'https://login.example', group_names: {a: b}}"), "group_names"),
        ("upstreams:", _claims("{tenant: acme, issuer: 'https://login.example', manager: m}"), "group_names"),
        ("upstreams:", _claims("{tenant: a/b, issuer: 'https://login.example'}"), "regex"),
        ("upstreams:", _claims("{tenant: acme, issuer: 'https://login.example'}, " * 2), "two feeds"),
    ],
)  # fmt: skip
def test_what_weakens_or_means_nothing_is_refused(old: str, new: str, told: str) -> None:
    assert told in refused(changed(old, new))


@pytest.mark.parametrize(
    "text",
    ["", "a", "[]", "{}", "null", "- " * 3000, "[" * 3000, "{a: " * 3000, "a: &a [*a]", "!!python/object:os.system x",
     "a: 2026-99-99", "? [a]\n: b", "\ufeff", "\x07", "&a a: *b", "--- a\n--- b", "%YAML 9.9\n---\na", "a: !!int x",
     "gateway: &g {resource: *g}", "{[1]: 2}", "<<: 1", "<<: [1]", "a: !!binary x", "1e999999: 1", "'': ''"],
    ids=range(25),
)  # fmt: skip
def test_any_other_text_is_refused(text: str) -> None:
    refused(text)


def test_a_good_text_with_bytes_changed_is_taken_or_refused_and_nothing_else() -> None:
    chance = random.Random(7)
    alphabet = "{}[]:,-&*!|>'\"%@`#?\n\t \0aZ09~=<.\\\x1b\u2028"
    for _ in range(400):
        text = list(GOOD)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(text))
            text[place : place + chance.randint(0, 3)] = chance.choice(alphabet)
        with contextlib.suppress(ConfigInvalid):
            config.parse("".join(text))


ASKED = 'tenant: acme, introspection: {endpoint: "https://login.example/i", client_id: g, client_secret: env:X'


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (", client_secret: plain}", "client_secret"),
        (", client_key: 'file:k'}", "one of `client_secret` and `client_key`"),
        (", client_key: plain}", "client_key"),
        (", kept_seconds: 301}", "kept_seconds"),
        (", kept_seconds: -1}", "kept_seconds"),
        (", asked: some}", "asked"),
        (', prefix: "a b"}', "prefix"),
        (", insecure: true}", "`endpoint`"),
    ],
)
def test_how_an_issuer_is_asked_about_tokens_is_taken_at_its_word(more: str, told: str) -> None:
    good = config.parse(changed("tenant: acme", f"{ASKED}}}")).issuers[0].introspection
    assert good is not None
    assert (good.asked, good.kept_seconds, good.prefix, good.signed) == ("opaque", 30, "", False)
    text = changed("tenant: acme", f"{ASKED}{more}")
    assert told in refused(text.replace("client_secret: env:X, client_secret", "client_secret"))


def test_the_gateway_proves_itself_to_an_issuer_that_it_asks() -> None:
    by_key = changed("tenant: acme", f"{ASKED}}}").replace("client_secret: env:X", "client_key: 'file:gateway.pem'")
    assert config.parse(by_key).issuers[0].introspection
    bare = by_key.replace(", client_key: 'file:gateway.pem'", "")
    assert "one of `client_secret` and `client_key`" in refused(bare)


def test_an_issuer_is_asked_about_tokens_over_https_alone() -> None:
    text = changed("tenant: acme", f"{ASKED}}}").replace("https://login.example/i", "http://login.example/i")
    assert "is not https" in refused(text)


def test_two_issuers_whose_opaque_tokens_look_alike_are_refused() -> None:
    one = f'{{issuer: "https://login.example", {ASKED}}}}}'
    two = one.replace("https://login.example", "https://other.example")
    text = changed('[{issuer: "https://login.example", tenant: acme}]', f"[{one}, {two}]")
    assert "wrong one" in refused(text)
    apart = text.replace("env:X}}, ", "env:X, prefix: one_}}, ").replace("env:X}}]", "env:X, prefix: two_}}]")
    assert len(config.parse(apart).issuers) == 2


# --- exchange -----------------------------------------------------------------------------------

EXCHANGE = """
  orders:
    kind: openapi
    url: "https://orders.example"
    document: a.json
    digest: "sha256:{digest}"
    tools: {{orders: {{action: readOrder}}}}
    exchange: {{{keys}}}
"""
RIGHT = "issuer: 'https://login.example', client_id: g, client_secret: 'env:S', audience: orders"


def exchanging(keys: str, *, more: str = "") -> str:
    return GOOD + EXCHANGE.format(digest="0" * 64, keys=keys) + more


def test_an_exchange_at_a_known_issuer_is_taken() -> None:
    upstream = config.parse(exchanging(RIGHT)).upstreams["orders"]
    assert isinstance(upstream, config.OpenapiUpstream)
    assert upstream.exchange is not None
    assert upstream.exchange.grant == "token-exchange"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("login.example", "other.example", "no issuer here"),
        (", client_secret: 'env:S'", "", "one of `client_secret` and `client_key`"),
        ("client_id: g", "client_id: g, client_key: 'file:k'", "one of `client_secret` and `client_key`"),
        (", audience: orders", "", "what the token is for"),
        ("audience: orders", "grant: entra", "by `scope`, or by `resource`"),
        ("audience: orders", "grant: entra, scope: s, audience: orders", "by `scope`, or by `resource`"),
        ("audience: orders", "resource: 'https://gateway.example/mcp'", "for this gateway"),
        ("audience: orders", "audience: orders, subject_token: x", "unknown key `subject_token`"),
        ("audience: orders", "audience: orders, token_endpoint: 'https://x.example'", "unknown key `token_endpoint`"),
        ("client_secret: 'env:S'", "client_secret: plain", "client_secret"),
    ],
)
def test_an_exchange_that_could_go_wrong_is_refused(old: str, new: str, why: str) -> None:
    assert old in RIGHT
    assert why in refused(exchanging(RIGHT.replace(old, new)))


def test_a_person_who_signs_in_by_the_broker_has_nothing_to_exchange() -> None:
    broker = "broker: {login: {issuer: 'https://company.example', client_id: g, client_secret: 'env:S', tenant: acme}}"
    for issuer in ("https://gateway.example", "https://company.example"):
        keys = RIGHT.replace("https://login.example", issuer)
        assert "no issuer here but perhaps the broker's" in refused(exchanging(keys, more=broker))


def test_an_mcp_server_has_one_way_to_its_bearers_at_most_and_no_header_that_could_carry_one() -> None:
    own = "tools: {write: {action: writeDesk}}"
    one = changed(own, f"{own}, exchange: {{{RIGHT}}}")
    upstream = config.parse(one).upstreams["desk"]
    assert isinstance(upstream, config.McpUpstream)
    assert upstream.exchange is not None
    account = "authorization_endpoint: 'https://a.example', token_endpoint: 'https://a.example/t', client_id: g, "
    account = f"account: {{{account}client_secret: 'env:S'}}"
    assert config.parse(changed(own, f"{own}, {account}")).upstreams["desk"]
    assert "two of" in refused(changed(own, f"{own}, exchange: {{{RIGHT}}}, {account}"))
    assert "is not https" in refused(
        changed(own, f"{own}, {account.replace('https://a.example/t', 'http://a.example')}")
    )
    assert "no issuer here" in refused(changed(own, f"{own}, exchange: {{{RIGHT.replace('login', 'other')}}}"))
    assert "unknown key `headers`" in refused(changed(own, f"{own}, headers: {{Authorization: 'env:A'}}"))


def test_definitions_in_a_file_are_pinned() -> None:
    own = "tools: {write: {action: writeDesk}}"
    for one in ("definitions: tools.json", f"digest: 'sha256:{'0' * 64}'"):
        assert "one of `definitions` and `digest`" in refused(changed(own, f"{own}, {one}"))
    refused(changed(own, f"{own}, definitions: tools.json, digest: 'sha256:0'"))
    both = f"{own}, definitions: tools.json, digest: 'sha256:{'0' * 64}'"
    assert config.parse(changed(own, both)).upstreams["desk"]


def test_an_upstream_with_an_exchange_has_no_other_bearer() -> None:
    other = "    headers: {Authorization: 'env:A'}\n"
    assert "two of `authorization`, `exchange`" in refused(exchanging(RIGHT, more=other))


def test_security_events_go_with_a_shared_memory_and_unknown_keys_of_it_are_told() -> None:
    state = 'state: {postgres: {dsn: "env:STATE"}}'
    shared = changed('mcp"}', f'mcp", {state}}}')
    assert config.parse(shared).gateway.state is not None
    stream = (
        'signals: [{name: idp, issuer: "https://login.example", audience: a, push: "env:B", jwks: "https://x/j",'
        " tenant: acme}]\nupstreams:"
    )
    assert len(config.parse(shared.replace("upstreams:", stream)).signals) == 1
    assert "known keys are `postgres`" in refused(shared.replace("postgres", "mysql"))
    assert "`timeout_seconds`" in refused(shared.replace("dsn:", "url: x, dsn:"))
