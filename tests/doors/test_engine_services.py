"""What a service may do: what the schema lets services do at all, by a permit that is for services by its scope."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from onbehalf.cli.deny_path import open_doors, wide_doors
from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.errors import PolicyInvalid
from onbehalf.model import Judgement, Person, Tool
from onbehalf.validate import decide, questions
from onbehalf.validate.rows import extract
from service_house import service, service_caller
from validate.policy_house import BOB, NOW, SHAPE, ZOE, bundle_at, caller, person, review, tool

SCHEMA = """
entity Review { tenant: Tenant, subject: User, author: User, status: String, rating?: Long };
action both appliesTo { principal: [User, Service], resource: [Tool, Review], context: Context };
action people appliesTo { principal: User, resource: [Tool, Review], context: Context };
action services appliesTo { principal: Service, resource: [Tool, Review], context: Context };
"""
WIDE = '@id("wide") @doc("All.") @remedy("r1") permit(principal, action, resource) when { principal.active };'
USERS = (
    '@id("users") @doc("People.") @remedy("r2") permit(principal is User, action, resource) when { context.now > 0 };'
)
EXPORT = (
    '@id("export") @doc("The export reads.") @remedy("r3") '
    'permit(principal == Service::"acme/export", action, resource);'
)
ANY = '@id("any") @doc("Any service.") @remedy("r4") permit(principal is Service, action, resource is Tool);'
TOOLS = {action: tool(f"{action}_list", action) for action in ("both", "people", "services")}


def engine(directory: Path, *policies: str, schema: str = SCHEMA, tools: tuple[Tool, ...] = ()) -> CedarEngine:
    files = bundle_at(directory / "policies", "\n".join(policies), schema)
    return CedarEngine.load(files, tools=tools or tuple(TOOLS.values()))


def asked(of: CedarEngine, who: Person, action: str) -> Judgement:
    by = service_caller(who.name, tenant=who.tenant) if who.kind == "service" else caller()
    return of.judge(questions.about_tool(who, by, TOOLS[action], NOW))


def row_of(of: CedarEngine, who: Person, action: str, **changes: str) -> Judgement:
    by = service_caller(who.name, tenant=who.tenant) if who.kind == "service" else caller()
    content = {"structuredContent": {"rows": [{**review(), **changes}]}}
    (row,) = extract(SHAPE, content, limit=9).rows
    return of.judge(questions.about_row(who, by, TOOLS[action], NOW, row, (*BOB, *ZOE)))


@pytest.mark.parametrize("policy", [WIDE, USERS, WIDE + USERS])
def test_a_permit_that_does_not_say_service_lets_no_service_through(tmp_path: Path, policy: str) -> None:
    made = engine(tmp_path, policy)
    assert decide.may(asked(made, person(BOB), "both"))
    for name in ("export", "bob", "dana"):
        for action in TOOLS:
            assert not decide.may(asked(made, service(name), action))
    for action in TOOLS:
        assert not made.services_do(TOOLS[action])


def test_a_permit_for_services_lets_the_one_through_that_it_names_and_no_person(tmp_path: Path) -> None:
    made = engine(tmp_path, EXPORT)
    assert decide.may(asked(made, service("export"), "both"))
    assert decide.may(asked(made, service("export"), "services"))
    assert decide.may(row_of(made, service("export"), "both"))
    for who in (service("other"), service("export", tenant="globex"), person(BOB)):
        for action in TOOLS:
            assert not decide.may(asked(made, who, action))


def test_an_action_of_people_is_no_services_whatever_a_permit_says(tmp_path: Path) -> None:
    made = engine(tmp_path, EXPORT, ANY)
    judgement = asked(made, service("export"), "people")
    assert (judgement.allowed, judgement.validated, judgement.errors) == (False, True, ())  # denied, and no error
    assert made.candidates(questions.about_tool(service(), service_caller(), TOOLS["people"], NOW)) == ()


def test_a_forbid_holds_for_services_too(tmp_path: Path) -> None:
    stop = '@id("stop") @doc("Not now.") forbid(principal, action, resource is Tool) when { context.now > 0 };'
    assert not decide.may(asked(engine(tmp_path, EXPORT, stop), service("export"), "both"))


def test_the_wall_between_tenants_stands_before_services(tmp_path: Path) -> None:
    made = engine(tmp_path, EXPORT)
    assert decide.may(row_of(made, service("export"), "both"))
    assert not decide.may(row_of(made, service("export"), "both", tenant="globex"))


def test_what_is_for_services_is_not_told_to_people_and_the_other_way_round(tmp_path: Path) -> None:
    made = engine(tmp_path, USERS, EXPORT)
    told = made.candidates(questions.about_tool(person(BOB), caller(), TOOLS["both"], NOW))
    assert "export" not in {each.policy for each in told}
    told = made.candidates(questions.about_tool(service("other"), service_caller("other"), TOOLS["both"], NOW))
    assert {each.policy for each in told} == {"wall:tenant", "wall:active", "export"}


def test_a_service_is_in_no_group_and_has_no_position(tmp_path: Path) -> None:
    for condition in ('principal in Group::"acme/hr"', "principal has position"):
        policy = f'@id("g") @doc("d") permit(principal is Service, action, resource) when {{ {condition} }};'
        made = engine(tmp_path, EXPORT.replace("export", "never"), policy)
        assert not decide.may(asked(made, service("dana"), "both"))


def test_a_tool_of_services_alone_can_be_loaded_and_is_hidden_from_people(tmp_path: Path) -> None:
    made = engine(tmp_path, ANY, tools=(TOOLS["services"],))
    assert decide.may(asked(made, service("export"), "services"))
    assert not decide.may(asked(made, person(BOB), "services"))


def test_a_tool_that_narrows_its_rows_in_sql_is_not_for_services(tmp_path: Path) -> None:
    from onbehalf.doors.engine_cedar_scope import Narrowed
    from onbehalf.validate.pushdown_terms import Layout

    shape = replace(SHAPE, type="Note", attributes={"status": ("status", "String")})
    scoped = replace(TOOLS["both"], scoped=True, rows=shape)
    schema = (
        "entity Note { tenant: Tenant, status: String };"
        "action both appliesTo { principal: [User, Service], resource: [Tool, Note], context: Context };"
    )
    narrowed = {scoped.name: Narrowed(layout=Layout(tables={}, closures={}), dialect="sqlite")}
    by_status = (
        '@id("s") @doc("d") permit(principal is User, action, resource is Note) when { resource.status == "x" };'
    )
    files = bundle_at(tmp_path / "policies", f"{by_status}\n{EXPORT}", schema)
    with pytest.raises(PolicyInvalid, match="not done for services"):
        CedarEngine.load(files, tools=(scoped,), narrowed=narrowed)
    made = CedarEngine.load(bundle_at(tmp_path / "policies", by_status, schema), tools=(scoped,), narrowed=narrowed)
    asked_by = questions.about_tool(service("bob"), service_caller("bob"), scoped, NOW)
    assert made.narrowing(scoped, asked_by).sql == "1 = 0"
    assert made.narrowing(scoped, questions.about_tool(person(BOB), caller(), scoped, NOW)).sql != "1 = 0"


def test_check_names_what_every_service_may_and_finds_the_wall(tmp_path: Path) -> None:
    made = engine(tmp_path, ANY, EXPORT)
    assert open_doors(made, tuple(TOOLS.values()), now=NOW) == ()
    wide = wide_doors(made, tuple(TOOLS.values()), now=NOW)
    assert [each for each in wide if "every service" in each] == [
        "`both_list` is allowed to every service of the tenant, by whatever name",
        "`services_list` is allowed to every service of the tenant, by whatever name",
    ]
