from __future__ import annotations

from typing import Any

import cedarpy
import orjson
import pytest

from onbehalf.errors import PolicyInvalid
from onbehalf.model import Obligations, digest
from onbehalf.validate import bundle
from onbehalf.validate.bundle import Source


def est(text: str) -> dict[str, Any]:
    parsed: dict[str, Any] = orjson.loads(cedarpy.policies_to_json_str(text))
    return parsed


GOOD = '@id("a") @doc("d") @owner("o") @remedy("r") permit(principal, action, resource is T);'


def test_a_clean_bundle_passes_and_keeps_the_order_of_the_file() -> None:
    text = "".join(GOOD.replace('"a"', f'"p{number}"') for number in range(12))
    bundle.require_clean([("x.cedar", est(text))])
    assert [policy.id for policy in bundle.policies_of(est(text))] == [f"p{number}" for number in range(12)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (GOOD.replace('@id("a")', ""), "has no @id"),
        (GOOD.replace('@id("a")', "@id"), "has no @id"),
        (GOOD.replace('"a"', '"wall:tenant"'), "beginning with `wall:`"),
        (GOOD.replace('"a"', '"a b"'), "letters, digits"),
        (GOOD.replace('@doc("d")', ""), "has no @doc"),
        (GOOD.replace('@doc("d")', '@doc(" ")'), "has no @doc"),
        (GOOD.replace("@owner", "@msk"), "unknown annotation @msk; known ones are @id, @doc, @owner, @remedy, "),
        (GOOD.replace("@owner", "@mask"), "`a` has an unreadable @mask: expected fields with how they go on"),
        (GOOD.replace("@owner", "@columns").replace('"o"', '"a,a"'), "unreadable @columns: expected field names"),
        (GOOD.replace('@owner("o")', "@max_rows"), "unreadable @max_rows: expected a whole number from 1"),
        (GOOD.replace('@owner("o")', '@approve("hr")'), "unreadable @approve: expected one of `self`, `manager`"),
        (GOOD.replace('@owner("o")', '@purpose("a b")'), "unreadable @purpose: expected purposes in lower case"),
        (
            GOOD.replace('@owner("o")', '@mask("a:null")').replace("permit", "forbid"),
            "`a` forbids, and so cannot have the obligation @mask",
        ),
        (GOOD + GOOD, "has the id of a policy in x.cedar"),
        (GOOD.replace("resource is T", "resource"), "neither scope nor condition"),
        (GOOD.replace("resource is T)", "resource) when { true }"), "neither scope nor condition"),
        (GOOD.replace("resource is T)", "resource) unless { false }"), "neither scope nor condition"),
        (GOOD.replace("principal,", "principal == ?principal,"), "a template stands here"),
    ],
)  # fmt: skip
def test_each_fault_is_named_with_its_file(text: str, fault: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        bundle.require_clean([("x.cedar", est(text))])
    assert "x.cedar: " in caught.value.message
    assert fault in caught.value.message


def test_a_policy_carries_all_its_obligations_as_one() -> None:
    text = GOOD.replace('@owner("o")', '@columns("a, b") @mask("b:last4,a:null") @max_rows("9") @purpose("x")')
    [policy] = bundle.policies_of(est(text + " "))
    assert policy.obligations == Obligations(
        columns=frozenset({"a", "b"}),
        masks=frozenset({("b", "last4"), ("a", "null")}),
        max_rows=9,
        purposes=frozenset({"x"}),
    )
    [plain] = bundle.policies_of(est(GOOD))
    assert plain.obligations == Obligations()


def test_an_id_is_unique_over_all_files() -> None:
    with pytest.raises(PolicyInvalid, match=r"y\.cedar: policy `a` has the id of a policy in x\.cedar"):
        bundle.require_clean([("x.cedar", est(GOOD)), ("y.cedar", est(GOOD))])


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(PolicyInvalid) as caught:
        bundle.require_clean([("x.cedar", est("permit(principal, action, resource);"))])
    assert all(fault in caught.value.message for fault in ("no @id", "no @doc", "neither scope"))


def test_a_bare_forbid_is_fine() -> None:
    bundle.require_clean([("x.cedar", est('@id("a") @doc("d") forbid(principal, action, resource);'))])


def test_conditions_are_taken_apart_at_the_top_level_only() -> None:
    text = GOOD.replace(";", "when { 1 == 1 && (2 == 2 || 3 == 3) } unless { 4 == 4 || !(5 == 5) || 6 < 7 && true };")
    [policy] = bundle.policies_of(est(text))
    assert [next(iter(part)) for part in bundle.conjuncts(policy.est)] == ["==", "||", "!=", "==", "!"]


def test_parentheses_around_plain_paths_go_and_strings_stay() -> None:
    assert bundle.tidy('((a.b).c) == "(a.b) \\" (c)"') == 'a.b.c == "(a.b) \\" (c)"'
    assert bundle.tidy("((a).contains(b)) && (c)") == "(a.contains(b)) && c"


def test_the_digest_covers_names_texts_and_core() -> None:
    def digest_of(name: str = "a", text: str = "t", schema: str = "s", core: str = "c") -> str:
        return digest(bundle.spelled([Source(name=name, text=text)], [Source(name="s", text=schema)], core=core))

    changed = {digest_of(), digest_of(name="b"), digest_of(text="u"), digest_of(schema="x"), digest_of(core="y")}
    assert len(changed) == 5
    assert digest_of() == digest_of()


def test_a_bundle_is_had_back_from_what_its_digest_is_over() -> None:
    one, schema = Source(name="a/b.cedar", text=GOOD), Source(name="s", text="entity Réview;")
    files = bundle.unspelled(bundle.spelled([one], [schema], core="c"))
    assert (files.policies, files.schemas, files.core, files.walls) == ((one,), (schema,), "c", bundle.WALLS)


@pytest.mark.parametrize("text", ["[]", "{}", "{", '{"core":"","policies":[["a",1]],"schemas":[],"walls":""}'])
def test_what_is_no_bundle_is_not_had_back(text: str) -> None:
    with pytest.raises(ValueError, match=r"bundle|JSON|unexpected|expected"):
        bundle.unspelled(text.encode())


@pytest.mark.parametrize(
    "text", ["(" * 65, "[" * 65, "// )))\r" + "(" * 65, '"' + ")" * 99 + '"' + "({" * 33, ")" * 99 + "(" * 65]
)
def test_brackets_nested_too_deep_are_refused(text: str) -> None:
    with pytest.raises(PolicyInvalid, match="deeper"):
        bundle.require_shallow(Source(name="x", text=text))


@pytest.mark.parametrize("text", ["true" + "&&true" * 2_000, "a;" + "b.c" * 3_000 + ";", '";"' * 3_000])
def test_a_statement_too_long_is_refused(text: str) -> None:
    with pytest.raises(PolicyInvalid, match="over 8000 characters"):
        bundle.require_shallow(Source(name="x", text=text))


def test_many_short_statements_are_fine() -> None:
    bundle.require_shallow(Source(name="x", text="a && b;\n" * 5_000))


@pytest.mark.parametrize("text", ["(" * 64, "()" * 999, '"' + "(" * 99 + '"', "//" + "(" * 99])
def test_brackets_in_strings_and_comments_do_not_count(text: str) -> None:
    bundle.require_shallow(Source(name="x", text=text))


def test_the_walls_are_policies_with_an_id_and_a_doc() -> None:
    walls = bundle.policies_of(est(bundle.WALLS))
    assert [wall.id for wall in walls] == ["wall:tenant", "wall:active"]
    assert all(wall.doc and wall.est["effect"] == "forbid" for wall in walls)
