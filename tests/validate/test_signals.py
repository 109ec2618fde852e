# ruff: noqa: E501  # what is told reads best in one line
"""What security events come to: for whom, and that nothing is ever guessed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identify.events import ALICE, claims, mint, proven, stream
from identify.minting import ISSUER, NOW
from onbehalf.config_signals import StreamSettings, require_streams
from onbehalf.errors import ConfigInvalid, TenantRefused
from onbehalf.model_signals import Effect, Target
from onbehalf.validate.signals import CAEP, RISC, SSF, Speaks, effects, wanted

LOGIN = Target(kind="login", tenant="acme", name=f"{ISSUER} alice-at-login")
ALL = Target(kind="tenant", tenant="acme", name="")
MAIL = {"format": "email", "email": "alice@acme.example"}
SESSION = {"format": "opaque", "id": "s-1"}


def told(
    type_: str, body: Any = None, /, *, of: StreamSettings | None = None, sub_id: Any = ALICE,
    names: dict[str, list[str]] | None = None, tokens: tuple[str, ...] | None = None,
) -> Effect:  # fmt: skip
    """The effect of one event; `names` are what is found for each value."""
    of = of or stream()
    signal = proven(mint(claims(type_, body or {}, sub_id=sub_id)), of=of)
    by = Speaks(stream=of, tokens=(of.logins or of.issuer,) if tokens is None else tokens)
    asked = wanted(signal, by)
    found = {each: (names or {}).get(each.value, [each.value] if each.what == "login" else []) for each in asked}
    [effect] = effects(signal, by=by, found=found)
    return effect


@pytest.mark.parametrize(("type_", "does"), [
    (f"{CAEP}session-revoked", "end"), (f"{CAEP}credential-change", "end"), (f"{CAEP}token-claims-change", "end"),
    (f"{CAEP}assurance-level-change", "end"), (f"{CAEP}device-compliance-change", "end"), (f"{CAEP}risk-level-change", "end"),
    (f"{RISC}account-disabled", "block"), (f"{RISC}account-purged", "block"), (f"{RISC}account-enabled", "let_go"),
    (f"{RISC}credential-compromise", "end"),
])  # fmt: skip
def test_an_event_about_a_login_is_about_just_that_login(type_: str, does: str) -> None:
    effect = told(type_)
    assert (effect.does, effect.targets) == (does, (LOGIN,))


@pytest.mark.parametrize(("type_", "body"), [
    (f"{CAEP}session-established", {}), (f"{CAEP}session-presented", {}), (f"{SSF}verification", {"state": "x"}),
    (f"{SSF}stream-updated", {"status": "paused"}), (f"{CAEP}made-up", {}), ("urn:x:y", {}), (f"{CAEP}session-revoked/", {}),
    (f"{CAEP}assurance-level-change", {"change_direction": "increase"}), (f"{SSF}made-up", {}),
    (f"{CAEP}device-compliance-change", {"current_status": "compliant"}), (f"{CAEP}risk-level-change", {"current_level": "LOW"}),
])  # fmt: skip
def test_what_is_unknown_or_good_news_takes_nothing_away(type_: str, body: Any) -> None:
    effect = told(type_, body)
    assert (effect.does, effect.targets) == ("nothing", ())
    assert effect.why


@pytest.mark.parametrize(("type_", "body"), [
    (f"{CAEP}assurance-level-change", {"change_direction": "Increase"}),
    (f"{CAEP}device-compliance-change", {"current_status": "not-compliant"}),
    (f"{CAEP}risk-level-change", {"current_level": ["LOW"]}),
])  # fmt: skip
def test_only_good_news_in_its_own_words_is_good(type_: str, body: Any) -> None:
    assert told(type_, body).does == "end"


def test_somebody_who_has_a_device_and_a_session_is_stopped_whatever_they_use() -> None:
    both = {"format": "complex", "user": ALICE, "device": SESSION, "session": SESSION}
    assert told(f"{CAEP}session-revoked", sub_id=both).targets == (LOGIN,)


@pytest.mark.parametrize("sub_id", [
    {"format": "complex", "session": SESSION}, {"format": "complex", "device": SESSION},
    {"format": "complex", "group": {"format": "opaque", "id": "g"}}, {"format": "complex", "tenant": SESSION},
    MAIL, {"format": "opaque", "id": "x"},
])  # fmt: skip
def test_who_is_not_told_is_everybody_unless_the_stream_says_otherwise(sub_id: Any) -> None:
    effect = told(f"{CAEP}session-revoked", sub_id=sub_id)
    assert (effect.does, effect.targets) == ("end", (ALL,))
    effect = told(f"{CAEP}session-revoked", sub_id=sub_id, of=stream(unclear="record"))
    assert (effect.does, effect.targets) == ("nothing", ())


def test_one_event_shuts_no_tenant_and_opens_none() -> None:
    whole = {"format": "complex", "tenant": SESSION}
    assert told(f"{RISC}account-disabled", sub_id=whole).does == "end"
    assert told(f"{RISC}account-enabled", sub_id=whole).does == "nothing"


@pytest.mark.parametrize("format_", ["phone_number", "uri", "account", "did", "made-up"])
def test_a_format_that_is_not_read_is_no_guess(format_: str) -> None:
    for sub_id in (
        {"format": format_, "x": "y"},
        {"format": "complex", "user": {"format": format_}, "session": SESSION},
    ):
        effect = told(f"{CAEP}session-revoked", sub_id=sub_id)
        assert (effect.does, effect.targets) == ("nothing", ())
        assert format_ in effect.why


def test_an_address_that_two_people_have_stops_both_and_lets_neither_go() -> None:
    of, names = stream(email="attribute:mail"), {"alice@acme.example": ["alice", "alice2"]}
    found = tuple(Target(kind="person", tenant="acme", name=name) for name in ("alice", "alice2"))
    assert told(f"{RISC}account-disabled", sub_id=MAIL, of=of, names=names) == Effect(
        does="block", event=f"{RISC}account-disabled", at=NOW - 2, targets=found, why="the user it names"  # type: ignore[arg-type]
    )  # fmt: skip
    assert told(f"{RISC}account-enabled", sub_id=MAIL, of=of, names=names).does == "nothing"
    assert told(f"{RISC}account-enabled", sub_id=MAIL, of=of, names={"alice@acme.example": ["alice"]}).does == "let_go"
    assert told(f"{RISC}account-disabled", sub_id=MAIL, of=of).does == "nothing"  # nobody has it


def test_aliases_stop_everybody_whom_they_name() -> None:
    of, names = stream(email="person"), {"alice@acme.example": ["alice"]}
    both = {"format": "aliases", "identifiers": [ALICE, MAIL, {"format": "did", "url": "did:x"}]}
    effect = told(f"{CAEP}session-revoked", sub_id=both, of=of, names=names)
    assert effect.targets == (LOGIN, Target(kind="person", tenant="acme", name="alice"))
    assert told(f"{RISC}account-enabled", sub_id=both, of=of, names=names).does == "nothing"


def test_a_login_at_an_issuer_that_is_not_the_streams_is_refused() -> None:
    with pytest.raises(TenantRefused):
        told(f"{CAEP}session-revoked", sub_id={**ALICE, "iss": "https://globex.example"})
    with pytest.raises(TenantRefused):
        told(f"{CAEP}session-revoked", sub_id={**ALICE, "iss": f"{ISSUER}/"})
    of = stream(logins="https://login.example")
    found = told(f"{CAEP}session-revoked", sub_id={**ALICE, "iss": "https://login.example"}, of=of)
    assert found.targets == (Target(kind="login", tenant="acme", name="https://login.example alice-at-login"),)


def test_a_stream_acts_on_the_tenants_that_are_its_own_and_no_other() -> None:
    of = stream(tenant={"t-1": "acme", "t-2": "globex"})

    def about(tenant: str) -> Any:
        return {"format": "complex", "user": ALICE, "tenant": {"format": "opaque", "id": tenant}}

    assert [each.tenant for each in told(f"{CAEP}session-revoked", sub_id=about("t-2"), of=of).targets] == ["globex"]
    assert [each.tenant for each in told(f"{CAEP}session-revoked", of=of).targets] == ["acme", "globex"]
    assert told(f"{RISC}account-enabled", of=of).does == "let_go"  # one login, whichever tenant knows it
    for name in ("acme", "t-3", "T-1"):
        with pytest.raises(TenantRefused):
            told(f"{CAEP}session-revoked", sub_id=about(name), of=of)


def test_the_login_behind_the_broker_is_the_login_of_the_brokers_tokens() -> None:
    names = tuple(Target(kind="login", tenant="acme", name=f"{each} alice-at-login") for each in ("https://gw", ISSUER))
    assert told(f"{CAEP}session-revoked", tokens=(ISSUER, "https://gw")).targets == names
    assert told(f"{RISC}account-enabled", tokens=(ISSUER, "https://gw")).targets == names
    assert told(f"{CAEP}session-revoked", tokens=()).targets == (ALL,)  # called by another claim: it does not tell who


@given(st.sampled_from(["acme", "globex"]), st.lists(st.text(min_size=1, max_size=5), max_size=4))
def test_nobody_outside_of_the_streams_tenant_is_ever_a_target(tenant: str, names: list[str]) -> None:
    of = stream(tenant=tenant, email="person")
    for type_ in (f"{CAEP}session-revoked", f"{RISC}account-disabled", f"{RISC}account-enabled"):
        effect = told(type_, sub_id=MAIL, of=of, names={"alice@acme.example": names})
        assert {each.tenant for each in effect.targets} <= {tenant}
        assert effect.does != "let_go" or len(effect.targets) == 1


@pytest.mark.parametrize(("changes", "says"), [
    ({"poll": {"url": "https://x", "secret": "env:X"}}, "one of `push` and `poll`"), ({"push": None}, "one of `push` and `poll`"),
    ({"metadata": "https://x", "jwks": "https://x"}, "`metadata` and `jwks`"), ({"tenant": {}}, "speaks for no tenant"),
    ({"required": True}, "silent for ever"),
])  # fmt: skip
def test_streams_that_cannot_be_are_refused(changes: Any, says: str) -> None:
    with pytest.raises(ConfigInvalid, match=says):
        require_streams([stream(**changes)], {ISSUER: "acme"})


def test_streams_are_told_apart() -> None:
    with pytest.raises(ConfigInvalid, match="one name"):
        require_streams([stream(), stream(audience="other")], {ISSUER: "acme"})
    with pytest.raises(ConfigInvalid, match="one issuer and audience"):
        require_streams([stream(), stream(name="other")], {ISSUER: "acme"})
