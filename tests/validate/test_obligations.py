"""Obligations: what annotations say, how demands come together, what cannot be met, and what is done to rows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onbehalf.model import (
    Allow,
    Approval,
    Approver,
    CallId,
    Digest,
    Json,
    Mask,
    Obligations,
    Owed,
    Ref,
    StepUp,
    Tool,
    UnixTime,
)
from onbehalf.validate import obligations, rows
from onbehalf.validate.demands import KINDS, NONE, merge, read
from onbehalf.validate.obligations import Kept
from replacing import replace
from validate.policy_house import DANA, NOW, SHAPE, caller, person, review, tool, tool_call

KEY = b"k" * 32
MASKS: list[Mask] = ["last4", "hash", "null"]
APPROVERS: list[Approver] = ["self", "manager", "two-person"]
NAMES = st.frozensets(st.sampled_from(["a", "b", "c", "d"]))
DEMANDS = st.builds(
    Obligations,
    columns=st.one_of(st.just("every"), NAMES),
    masks=st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(MASKS)).map(
        lambda masks: frozenset(masks.items())
    ),
    max_rows=st.one_of(st.just("every"), st.integers(1, 9)),
    purposes=st.one_of(st.just("every"), NAMES),
    approve=st.frozensets(st.sampled_from(APPROVERS)),
    scopes=NAMES,
    acr=st.one_of(st.just("every"), NAMES),
    max_age=st.one_of(st.just("every"), st.integers(1, 9)),
)


# --- reading -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text", "read_as"),
    [
        ("columns", "status, score", Obligations(columns=frozenset({"status", "score"}))),
        ("mask", "comment:hash,email : last4", Obligations(masks=frozenset({("comment", "hash"), ("email", "last4")}))),
        ("max_rows", "50", Obligations(max_rows=50)),
        ("purpose", "audit,pay-roll", Obligations(purposes=frozenset({"audit", "pay-roll"}))),
        ("approve", "two-person", Obligations(approve=frozenset({"two-person"}))),
        ("scope", "a.read, b:write", Obligations(scopes=frozenset({"a.read", "b:write"}))),
        ("acr", "urn:example:phr", Obligations(acr=frozenset({"urn:example:phr"}))),
        ("max_age", " 300 ", Obligations(max_age=300)),
    ],
)
def test_each_annotation_is_read(kind: str, text: str, read_as: Obligations) -> None:
    assert read(kind, text) == read_as


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((kind, text) for kind in KINDS for text in ("", " ", ",", "a,,b", "\x00", "a" * 101)),
        ("columns", "a b"), ("columns", "a,a"), ("columns", ",".join(map(str, range(101)))), ("columns", "a:b"),
        ("mask", "a"), ("mask", "a:"), ("mask", ":null"), ("mask", "a:Null"), ("mask", "a:null,a:hash"),
        ("mask", "a:b:null"), ("max_rows", "0"), ("max_rows", "-1"), ("max_rows", "1.5"), ("max_rows", "1000000"),
        ("max_rows", "٣"), ("max_rows", "5 0"), ("purpose", "Audit"), ("purpose", "a,a"), ("approve", "nobody"),
        ("approve", "self,manager"), ("scope", "a b"), ("scope", 'a"b'), ("scope", "a\\b"), ("acr", "a b"),
        ("acr", "\u00e9"), ("max_age", "0"), ("max_age", "-5"), ("max_age", "1m"),
    ],
)  # fmt: skip
def test_what_an_annotation_cannot_mean_is_refused(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read(kind, text)


# --- merging -------------------------------------------------------------------------------


@given(DEMANDS, DEMANDS, DEMANDS)
def test_merging_is_a_meet_with_nothing_as_its_top(one: Obligations, other: Obligations, third: Obligations) -> None:
    assert merge([one, other]) == merge([other, one])
    assert merge([merge([one, other]), third]) == merge([one, merge([other, third])])
    assert merge([one, one]) == one == merge([one, NONE]) == merge([one])
    assert merge([]) == NONE


@given(DEMANDS, DEMANDS)
def test_what_is_merged_is_as_strict_as_each(one: Obligations, other: Obligations) -> None:
    both = merge([one, other])
    if one.columns != "every":
        assert both.columns != "every"
        assert both.columns <= one.columns
    if one.max_rows != "every":
        assert both.max_rows != "every"
        assert both.max_rows <= one.max_rows
    if one.purposes != "every":
        assert both.purposes != "every"
        assert both.purposes <= one.purposes
    assert both.approve >= one.approve
    assert both.scopes >= one.scopes
    if one.acr != "every":
        assert both.acr != "every"
        assert both.acr <= one.acr
    if one.max_age != "every":
        assert both.max_age != "every"
        assert both.max_age <= one.max_age
    stronger = dict(both.masks)
    assert all(MASKS.index(stronger[field]) >= MASKS.index(mask) for field, mask in one.masks)


# --- what cannot be met --------------------------------------------------------------------


def owed(policy: str = "p", **demands: str) -> Owed:
    return Owed(policy=policy, obligations=merge(read(kind, text) for kind, text in demands.items()))


def unmet(
    *demands: Owed, wanted: Tool | None = None, scopes: tuple[str, ...] = (), acr: str = "",
    auth_time: int | None = None, now: int = 1_000_000,
) -> obligations.Unmet | None:  # fmt: skip
    who = caller(scopes=frozenset(scopes))
    evidence = replace(who.evidence, acr=acr, auth_time=None if auth_time is None else UnixTime(auth_time))
    who = replace(who, evidence=evidence)
    return obligations.unmet(demands, tool=wanted or tool(), caller=who, now=UnixTime(now))


def code(*demands: Owed, wanted: Tool | None = None, scopes: tuple[str, ...] = ()) -> str:
    found = unmet(*demands, wanted=wanted, scopes=scopes)
    return found.code if found else ""


def test_approvals_are_all_needed() -> None:
    demands = (owed(approve="self"), owed(columns="a"), owed(approve="manager"))
    assert code(*demands) == ""
    assert obligations.approvers(demands) == {"self", "manager"}


@pytest.mark.parametrize("demand", [{"columns": "a"}, {"mask": "a:null"}, {"max_rows": "1"}])
def test_a_part_of_an_answer_without_mapped_rows_cannot_be_met(demand: dict[str, str]) -> None:
    assert code(owed(**demand), wanted=tool(shape=None)) == "obligation_unmet"
    assert code(owed(**demand)) == ""


def test_a_purpose_is_met_by_the_token_and_for_all_that_demand_one() -> None:
    one, other = owed("x", purpose="audit,payroll"), owed("y", purpose="payroll")
    assert code(one) == code(one, scopes=("audit", "purpose:", "purpose:other")) == "purpose_not_shown"
    assert code(one, scopes=("purpose:audit",)) == ""
    assert code(one, wanted=tool(shape=None), scopes=("purpose:audit",)) == ""
    assert code(one, other, scopes=("purpose:audit",)) == "purpose_not_shown"
    assert code(one, other, scopes=("purpose:payroll",)) == ""
    assert code(one, owed("z", purpose="other"), scopes=("purpose:audit", "purpose:other")) == "purpose_not_shown"


def test_a_scope_is_met_by_all_that_are_demanded_and_a_challenge_names_them_whole() -> None:
    one, other = owed("x", scope="payroll.read"), owed("y", scope="payroll.write,audit")
    assert unmet(one, scopes=("payroll.read",)) is None
    found = unmet(one, other, wanted=replace(tool(), scopes=frozenset({"t.read"})), scopes=("payroll.read",))
    assert found
    assert found.step_up == StepUp(scopes=frozenset({"t.read", "payroll.read", "payroll.write", "audit"}))
    assert "audit" in found.remedy


def test_a_login_is_of_a_demanded_kind_and_what_two_demand_is_what_both_take() -> None:
    one, other = owed("x", acr="phr,phrh"), owed("y", acr="phrh,x")
    assert unmet(one, acr="phr") is None
    assert [bool(unmet(one, acr=acr)) for acr in ("", "PHR", "ph", "phr,phrh")] == [True] * 4
    found = unmet(one, other, acr="phr")
    assert found
    assert found.step_up == StepUp(scopes=frozenset(), acr=("phrh",))
    hopeless = unmet(one, owed("z", acr="other"), acr="phr")
    assert hopeless
    assert hopeless.step_up is None, "no login would change it"


@given(age=st.integers(-200, 2000), max_age=st.integers(1, 1000))
def test_a_login_is_recent_enough_or_not_and_one_without_a_time_or_from_the_future_never_is(
    age: int, max_age: int
) -> None:
    demand, now = owed("x", max_age=str(max_age)), 1_000_000
    found = unmet(demand, auth_time=now - age, now=now)
    assert (found is None) == (-30 <= age <= max_age + 30)
    assert unmet(demand) is not None
    if found:
        assert found.step_up == StepUp(scopes=frozenset(), max_age=max_age)


def test_the_most_recent_login_that_anybody_demands_is_demanded() -> None:
    found = unmet(owed("x", max_age="300"), owed("y", max_age="60", acr="phr"))
    assert found
    assert found.step_up == StepUp(scopes=frozenset(), acr=("phr",), max_age=60)


# --- doing it ------------------------------------------------------------------------------


def allow(*demands: Owed, scopes: tuple[str, ...] = (), tenant: str = "acme") -> Allow:
    call = tool_call(person(DANA, tenant=tenant), scopes=frozenset(scopes))
    return Allow(
        call=call, resource=Ref(type="Tool", id="t"), policies=("call",), policy=Digest(""), revision=1, owed=demands
    )


def kept(
    items: list[dict[str, Json]], *demands: Owed, call: Allow | None = None, key: bytes = KEY
) -> tuple[list[Json], Kept]:
    found = rows.extract(SHAPE, {"structuredContent": {"rows": [*items]}}, limit=100).rows
    assert len(found) == len(items)
    done = obligations.keep(call or allow(), [(row, demands) for row in found], key=key)
    return [row.raw for row in done.rows], done


def test_only_the_columns_of_all_that_demand_some_go_on() -> None:
    [row], done = kept([review(note="n")], owed(columns="id,status,other"), call=allow(owed(columns="status,note")))
    assert row == {"status": "final"}
    assert done.allowed[0].raw == review(note="n")
    assert done.rows[0].ref == Ref(type="Review", id="acme/1")


def test_masks_hide_what_they_are_put_on_and_the_stronger_wins() -> None:
    item = review(mail="dana.long@acme.test", salary=5200, note="n")
    one, other = owed("x", mask="mail:last4,salary:hash,note:hash"), owed("y", mask="salary:null")
    [row], done = kept([item], one, other)
    assert isinstance(row, dict)
    assert (row["mail"], row["salary"], row["status"]) == ("…test", None, "final")
    assert str(row["note"]).startswith("#")
    assert done.applied.masks == (("mail", "last4"), ("note", "hash"), ("salary", "null"))
    assert done.applied.rows == ((one, 1), (other, 1))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("12345678", "…5678"), ("1234567", "…"), ("", "…"), (123456789, "…6789"), (1234, "…"),
        (True, None), (1.25, None), (None, None), (["12345678"], None), ({"a": "12345678"}, None),
    ],
)  # fmt: skip
def test_last4_shows_no_more_than_half(value: Json, shown: Json) -> None:
    [row], _ = kept([review(mail=value)], owed(mask="mail:last4"))
    assert isinstance(row, dict)
    assert row["mail"] == shown


def test_a_number_too_long_to_spell_is_hidden_whole() -> None:
    [row], _ = kept([review(mail=10**5000)], owed(mask="mail:last4"))
    assert isinstance(row, dict)
    assert row["mail"] is None


def hashed(value: Json = "bob", *, key: bytes = KEY, field: str = "mail", purpose: str = "", tenant: str = "") -> Json:
    demands = [owed(mask=f"{field}:hash"), *([owed("q", purpose=purpose)] if purpose else [])]
    call = allow(scopes=(f"purpose:{purpose}",))
    if tenant:
        own = replace(call.call, caller=caller(tenant=tenant, scopes=frozenset()))
        call = replace(call, call=own)
    [row], _ = kept([review() | {field: value}], *demands, call=call, key=key)
    assert isinstance(row, dict)
    return row[field]


def test_a_hash_is_the_same_for_equal_values_only_within_gateway_field_tenant_and_purpose() -> None:
    assert hashed() == hashed()
    others = [
        hashed("Bob"), hashed(["bob"]), hashed(key=b"x" * 32), hashed(field="note"), hashed(purpose="audit"),
        hashed(purpose="payroll"), hashed(tenant="globex"),
    ]  # fmt: skip
    assert len({hashed(), *others}) == len(others) + 1
    assert hashed(None) is None


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_a_hash_never_shows_what_it_hides_and_without_a_key_there_is_none(value: Json) -> None:
    shown = hashed(value)
    assert shown is None or (isinstance(shown, str) and len(shown) == 33)
    assert hashed(value, key=b"") is None


def test_a_row_without_the_masked_field_is_withheld_unless_columns_bound_what_goes_on() -> None:
    items = [review("1", salary=1), review("2", pay=2)]
    shown, done = kept(items, owed(mask="salary:null"))
    assert [row.id for row in done.allowed] == ["1"]
    assert "2" not in json.dumps(shown)
    shown, _ = kept(items, owed(mask="salary:null", columns="id,salary"))
    assert shown == [{"id": "1", "salary": None}, {"id": "2"}]


def test_the_first_rows_go_on_and_the_rest_is_counted() -> None:
    items = [review(str(number)) for number in range(1, 6)]
    _, done = kept(items, owed(max_rows="3"), call=allow(owed("c", max_rows="2")))
    assert [row.id for row in done.rows] == ["1", "2"]
    assert [row.id for row in done.allowed] == ["1", "2", "3", "4", "5"]
    assert done.applied.cut == 3


def test_one_row_whose_permit_allows_few_bounds_the_whole_answer() -> None:
    found = rows.extract(SHAPE, {"structuredContent": {"rows": [review("1"), review("2"), review("3")]}}, limit=9).rows
    done = obligations.keep(allow(), [(found[0], ()), (found[1], ()), (found[2], (owed(max_rows="2"),))], key=KEY)
    assert [row.id for row in done.rows] == ["1", "2"]


def test_each_row_is_shaped_by_its_own_permits() -> None:
    found = rows.extract(SHAPE, {"structuredContent": {"rows": [review("1"), review("2")]}}, limit=9).rows
    done = obligations.keep(allow(), [(found[0], ()), (found[1], (owed(columns="id"),))], key=KEY)
    assert [row.raw for row in done.rows] == [review("1"), {"id": "2"}]
    assert [count for _, count in done.applied.rows] == [1]


def test_rows_that_need_an_approval_or_another_purpose_are_withheld() -> None:
    found = rows.extract(SHAPE, {"structuredContent": {"rows": [review(str(n)) for n in range(1, 5)]}}, limit=9).rows
    demands = [(owed(approve="self"),), (owed(purpose="a"),), (owed(purpose="b,a"),), (owed(purpose="b"),)]
    done = obligations.keep(allow(scopes=("purpose:a", "purpose:b")), list(zip(found, demands, strict=True)), key=KEY)
    assert [row.id for row in done.allowed] == ["2", "3"]
    assert done.applied.purposes == ("a",)
    assert (done.permitted, done.approvers) == (4, frozenset())


def test_rows_that_need_an_approval_are_kept_where_it_can_be_asked_for_or_was_given() -> None:
    found = rows.extract(SHAPE, {"structuredContent": {"rows": [review("1"), review("2")]}}, limit=9).rows
    permitted = [(found[0], (owed(approve="self"),)), (found[1], (owed(approve="manager"),))]
    asking = obligations.keep(allow(), permitted, key=KEY, asking=True)
    assert (len(asking.allowed), asking.approvers) == (2, {"self", "manager"})
    given = Approval(
        id="i", binding=Digest("d"), tenant="acme", person="dana", call=CallId("c"), approvers=frozenset({"manager"}),
        at=NOW, until=NOW,
    )  # fmt: skip
    kept = obligations.keep(replace(allow(), approval=given), permitted, key=KEY)
    assert [row.id for row in kept.allowed] == ["2"]


def test_nothing_demanded_leaves_the_very_rows() -> None:
    found = rows.extract(SHAPE, {"structuredContent": {"rows": [review("1"), review("2")]}}, limit=9).rows
    done = obligations.keep(allow(), [(row, ()) for row in found], key=KEY)
    assert done.rows is done.allowed
    assert all(one is other for one, other in zip(done.rows, found, strict=True))


@given(st.lists(DEMANDS.map(lambda each: replace(each, approve=frozenset(), purposes="every")), max_size=3), DEMANDS)
def test_more_demands_never_show_more(demands: list[Obligations], further: Obligations) -> None:
    items = [review(str(number), a=f"first{number:09}", b="second-value", c=3) for number in range(1, 4)]
    found = rows.extract(SHAPE, {"structuredContent": {"rows": [*items]}}, limit=9).rows
    own = tuple(Owed(policy=str(at), obligations=each) for at, each in enumerate(demands))
    few = obligations.keep(allow(), [(row, (*own, Owed(policy="x", obligations=further))) for row in found], key=b"")
    many = obligations.keep(allow(), [(row, own) for row in found], key=b"")
    assert len(few.rows) <= len(many.rows)
    for one, other in zip(few.rows, many.rows, strict=False):
        assert isinstance(one.raw, dict)
        assert isinstance(other.raw, dict)
        assert one.raw.keys() <= other.raw.keys()
        plain = {name for name, value in other.raw.items() if value == one.raw.get(name)}
        assert all(name in plain or value is None or "…" in str(value) for name, value in one.raw.items())
