"""The wall's SQL and its claims as text: what is signed has one reading, and no name or secret breaks out."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onbehalf import config
from onbehalf.errors import ConfigInvalid
from onbehalf.validate.wall import Plan, Walled, key_sql, plan, quoted, wall_sql
from onbehalf.validate.wall_claim import claim_key, signed_claim

TOOL = config.ToolSettings(action="read", statement="SELECT 1")
WRITING = config.ToolSettings(action="write", statement="DELETE", writes=True)
NAME = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
NUMBER = st.integers(0, 2**53)


def settings(**changes: object) -> config.PostgresUpstream:
    return config.PostgresUpstream(**{"reader": "env:R", "tools": {"t": TOOL}, "tables": {"a": "t"}, **changes})  # type: ignore[arg-type]


@given(st.binary(min_size=32, max_size=4096), st.binary(max_size=300))
def test_the_two_pads_make_the_same_mac_as_the_key(secret: bytes, message: bytes) -> None:
    key = claim_key(secret)
    inner = hashlib.sha256(key.inner + message).digest()
    assert hashlib.sha256(key.outer + inner).digest() == hmac.digest(secret, message, "sha256")


@pytest.mark.parametrize("size", [0, 31, 4097])
def test_a_key_too_short_or_too_long_is_refused(size: int) -> None:
    with pytest.raises(ConfigInvalid, match=f"has {size} bytes"):
        claim_key(b"x" * size)


def test_no_secret_is_shown_where_a_key_is_printed() -> None:
    key = claim_key(b"the secret, which nobody may read")
    assert key.id in repr(key)
    assert "secret, which" not in repr(key)
    assert key.inner.hex() not in repr(key) + str(key.id)


@given(st.tuples(NAME, NAME, NUMBER, NUMBER, NUMBER), st.tuples(NAME, NAME, NUMBER, NUMBER, NUMBER))
def test_two_claims_are_the_same_text_only_when_they_say_the_same(
    one: tuple[str, str, int, int, int], other: tuple[str, str, int, int, int]
) -> None:
    key = claim_key(b"k" * 32)

    def text(said: tuple[str, str, int, int, int]) -> str:
        tenant, principal, pid, started, expires = said
        return signed_claim(
            key, tenant=f"t{tenant}", principal=principal, pid=pid, started=started, expires=expires
        )  # fmt: skip

    assert (text(one) == text(other)) == (one == other)
    assert text(one).count("|") == 7


def test_a_claim_without_a_tenant_is_never_signed() -> None:
    with pytest.raises(ValueError, match="without a tenant"):
        signed_claim(claim_key(b"k" * 32), tenant="", principal="p", pid=1, started=1, expires=2)


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 64, "é" * 32])
def test_a_name_that_postgresql_would_cut_or_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(ConfigInvalid):
        quoted(name)


def test_a_bare_table_is_in_public_and_a_name_stays_within_its_quotes() -> None:
    assert Walled.of("reviews", "tenant_id").text == '"public"."reviews"'
    assert Walled.of("hr.reviews", "tenant_id").text == '"hr"."reviews"'
    odd = Plan(tables=(Walled(schema='a"b', name="x; DROP", tenant='t"'),), own=("o'; --",))
    assert '"a""b"."x; DROP"' in wall_sql(odd)
    assert "'o''; --'" in wall_sql(odd)
    assert '"t""" = (SELECT onbehalf.tenant())' in wall_sql(odd)


def test_what_is_printed_holds_no_secret_and_the_key_statement_holds_the_pads() -> None:
    key = claim_key(b"the secret, which nobody may read")
    text = wall_sql(Plan(tables=(Walled.of("a", "t"),)))
    assert key.inner.hex() not in text
    assert key.inner.hex() in key_sql(key)
    assert key.secret.decode() not in key_sql(key)


def test_a_role_that_writes_is_made_only_where_a_tool_writes() -> None:
    assert plan(settings()).gateway == ("gw_ro",)
    assert "gw_rw" not in wall_sql(plan(settings()))
    assert plan(settings(tools={"t": TOOL, "w": WRITING})).gateway == ("gw_ro", "gw_rw")


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"tables": {}}, "no table"), ({"shared": ("public.a",)}, "under `tables` and under `shared`")],
)
def test_tables_that_are_missing_or_stand_twice_are_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigInvalid, match=told):
        plan(settings(**changes))
