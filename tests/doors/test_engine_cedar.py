from __future__ import annotations

from pathlib import Path

import cedarpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.errors import PolicyInvalid
from onbehalf.model import Entity, Json, Lookup, Person, Question, Ref
from onbehalf.validate import decide, questions, rows
from replacing import replace
from validate.policy_house import (
    BOB,
    CAROL,
    DANA,
    NOW,
    PEOPLE,
    POLICIES,
    SCHEMA,
    SHAPE,
    bundle_at,
    caller,
    person,
    review,
    tool,
    user,
)  # fmt: skip

TOOLS = (tool(), tool("other", "other", None))


@pytest.fixture
def engine(tmp_path: Path) -> CedarEngine:
    return CedarEngine.load(bundle_at(tmp_path / "p"), tools=TOOLS)


def loaded(tmp_path: Path, policies: str = POLICIES, schema: str = SCHEMA) -> CedarEngine:
    return CedarEngine.load(bundle_at(tmp_path / "p", policies, schema), tools=TOOLS)


def about(who: Person, row: dict[str, Json]) -> Question:
    [read] = rows.extract(SHAPE, {"structuredContent": {"rows": [row]}}, limit=1).rows
    return questions.about_row(who, caller(tenant=who.tenant), tool(), NOW, read, PEOPLE)


def may(engine: CedarEngine, question: Question) -> bool:
    return decide.may(engine.judge(question))


# --- the four engine facts: the raw engine lets through, the wrapper does not ---------------


WALL_ONLY = """
permit(principal, action, resource);
forbid(principal, action, resource) unless { principal.tenant == resource.tenant };
"""
ASKED = {"principal": 'User::"acme/dana"', "action": 'Action::"reviews.list"', "resource": 'Review::"globex/1"'}
CONTEXT = {"client": {"__entity": {"type": "Client", "id": "c"}}, "scopes": [], "now": 0}
DANA_JSON = (
    '[{"uid":{"type":"User","id":"acme/dana"},"attrs":{"tenant":{"__entity":{"type":"Tenant","id":"acme"}},'
    '"name":"d","active":true},"parents":[]}]'
)


def test_fact_1_a_forbid_that_errors_is_skipped_by_cedar_and_denied_here(tmp_path: Path) -> None:
    raw = cedarpy.is_authorized({**ASKED, "context": CONTEXT}, WALL_ONLY, DANA_JSON)
    assert raw.allowed
    assert raw.diagnostics.errors
    everything = '@id("all") @doc("d") permit(principal, action, resource) when { context.now >= 0 };'
    engine = loaded(tmp_path, everything)
    missing = questions.about_missing(person(DANA), caller(), tool(), NOW, Ref(type="Review", id="globex/1"))
    judgement = engine.judge(missing)
    assert judgement.allowed
    assert judgement.errors
    assert not decide.may(judgement)


def test_fact_2_entities_made_without_a_schema_are_never_checked_by_cedar_and_always_here(tmp_path: Path) -> None:
    from importlib import resources

    core = resources.files("onbehalf.doors").joinpath("core.cedarschema").read_text()
    schema = cedarpy.Schema.from_str(core + SCHEMA)
    broken = '[{"uid":{"type":"User","id":"acme/dana"},"attrs":{},"parents":[]}]'
    handle = cedarpy.Entities.from_json_str(broken)
    assert cedarpy.is_authorized({**ASKED, "context": CONTEXT}, WALL_ONLY, handle, schema=schema).allowed
    engine = loaded(tmp_path)
    nameless = Entity(ref=DANA[0].ref, attributes={}, parents=DANA[0].parents)
    judgement = engine.judge(about(person((nameless, *DANA[1:])), review()))
    assert not judgement.validated
    assert not judgement.allowed


def test_fact_3_in_is_transitive_so_a_report_must_not_inherit_the_managers_groups(engine: CedarEngine) -> None:
    chained = (
        '[{"uid":{"type":"U","id":"bob"},"attrs":{},"parents":[{"type":"U","id":"dana"}]},'
        '{"uid":{"type":"U","id":"dana"},"attrs":{},"parents":[{"type":"G","id":"hr"}]}]'
    )
    asked = {"principal": 'U::"bob"', "action": 'Action::"a"', "resource": 'R::"r"', "context": {}}
    assert cedarpy.is_authorized(asked, 'permit(principal in G::"hr", action, resource);', chained).allowed
    assert may(engine, about(person(DANA), review(subject="carol")))
    assert not may(engine, about(person(BOB), review(subject="carol")))


def test_fact_3_in_is_reflexive_so_two_people_in_one_position_manage_each_other(engine: CedarEngine) -> None:
    # why a position belongs to one person: the manager rule cannot tell peers in one position from a manager
    twin = (user("acme", "bob", position="ic2"), *CAROL[1:])
    assert may(engine, about(person(twin), review(subject="carol")))


def test_fact_3_the_schema_refuses_a_user_below_a_user(engine: CedarEngine) -> None:
    below = replace(BOB[0], parents=(DANA[0].ref,))
    assert not engine.judge(about(person((below, *BOB[1:])), review())).validated


def test_fact_4_slices_are_made_per_question_and_leave_nothing_behind(engine: CedarEngine) -> None:
    # adding to a handle clones all of it, so nothing here ever adds: the next question knows only its own entities
    assert may(engine, about(person(DANA), review(subject="bob", status="draft")))
    asked = about(person(DANA), review(subject="bob", status="draft"))
    alone = replace(asked, entities=(*DANA, asked.entities[-1]))
    assert not may(engine, alone)


# --- deciding ------------------------------------------------------------------------------


def test_a_manager_reads_reports_and_a_report_reads_nobody(engine: CedarEngine) -> None:
    assert may(engine, about(person(DANA), review(subject="bob", status="draft")))
    assert not may(engine, about(person(BOB), review(subject="dana", status="draft")))
    assert not may(engine, about(person(BOB), review(subject="bob")))


def test_a_row_of_another_tenant_is_denied_even_by_a_bundle_that_permits_all(tmp_path: Path) -> None:
    everything = '@id("all") @doc("d") permit(principal, action, resource) when { principal == principal };'
    engine = loaded(tmp_path, everything)
    assert may(engine, about(person(DANA), review()))
    judgement = engine.judge(about(person(DANA), review(tenant="globex", subject="erin")))
    assert not decide.may(judgement)
    assert judgement.policies == ("wall:tenant",)


def test_an_inactive_person_is_denied_even_by_a_bundle_that_permits_all(tmp_path: Path) -> None:
    engine = loaded(tmp_path, '@id("all") @doc("d") permit(principal, action, resource) when { 1 == 1 };')
    gone = person((user("acme", "dana", active=False),))
    assert engine.judge(questions.about_tool(gone, caller(), tool(), NOW)).policies == ("wall:active",)


def test_a_person_the_row_names_and_the_directory_lacks_denies(engine: CedarEngine) -> None:
    judgement = engine.judge(about(person(DANA), review(subject="nobody", status="draft")))
    assert judgement.errors
    assert not decide.may(judgement)


def test_a_forbid_about_an_unknown_persons_group_is_not_passed_over(tmp_path: Path) -> None:
    policies = """
    @id("final") @doc("d") permit(principal, action, resource is Review) when { resource.status == "final" };
    @id("board") @doc("d") forbid(principal, action, resource is Review)
    when { resource.subject in Group::"acme/board" };"""
    judgement = loaded(tmp_path, policies).judge(about(person(DANA), review(subject="nobody")))
    assert judgement.allowed
    assert judgement.errors == ("person `acme/nobody` is not in the directory",)
    assert not decide.may(judgement)


def test_a_repeated_question_about_a_tool_sees_a_changed_person(engine: CedarEngine) -> None:
    asked = questions.about_tool(person(DANA), caller(), tool(), NOW)
    assert may(engine, asked)
    assert may(engine, questions.about_tool(person(DANA), caller(), tool(), NOW))
    gone = person((user("acme", "dana", position="lead", active=False), *DANA[1:]))
    assert not may(engine, questions.about_tool(gone, caller(), tool(), NOW))
    foreign = questions.about_tool(person(DANA), caller(tenant="globex"), tool(), NOW)
    assert engine.judge(foreign).policies == ("wall:tenant",)


@given(
    who=st.sampled_from([DANA, BOB, CAROL]), subject=st.sampled_from(["dana", "bob", "carol", "zoe", "nobody"]),
    tenant=st.sampled_from(["acme", "globex"]), status=st.sampled_from(["final", "draft"]), rating=st.integers(-1, 1),
)  # fmt: skip
def test_policies_that_do_not_look_at_their_context_say_the_same_as_if_they_did(
    two_engines: tuple[CedarEngine, CedarEngine], who: tuple[Entity, ...], subject: str, tenant: str, status: str,
    rating: int,
) -> None:  # fmt: skip
    row = review(tenant=tenant, subject=subject, status=status, rating=rating)
    bare, looking = (engine.judge(about(person(who), row)) for engine in two_engines)
    assert replace(bare, errors=()) == replace(looking, errors=())
    assert bool(bare.errors) == bool(looking.errors)


@pytest.fixture(scope="module")
def two_engines(tmp_path_factory: pytest.TempPathFactory) -> tuple[CedarEngine, CedarEngine]:
    """The same policies, once without a word of their context and once with a condition on it that always holds."""
    bare = POLICIES.replace('when { context.scopes.contains("reviews.read") }', "")
    looking = bare.replace("when {", "when { context.now >= 0 } when {")
    assert "context" not in bare
    assert looking.count("context") == 2
    first, second = (loaded(tmp_path_factory.mktemp("p"), text) for text in (bare, looking))
    return first, second


def test_an_action_with_a_context_of_its_own_is_asked_with_all_of_it(tmp_path: Path) -> None:
    own = "context: { client: Client, scopes: Set<String>, now: Long, more?: String }"
    bare = POLICIES.replace('when { context.scopes.contains("reviews.read") }', "")
    engine = loaded(tmp_path, bare, SCHEMA.replace("context: Context", own))
    assert may(engine, questions.about_tool(person(DANA), caller(), tool(), NOW))
    assert not may(engine, about(person(BOB), review(subject="carol")))


@pytest.mark.parametrize(
    "changed",
    [
        {"action": "nope"}, {"action": 'x"::'}, {"resource": Ref(type="Nope", id="1")}, {"context": {}},
        {"context": {"now": 2**70}}, {"principal": Ref(type="Tool", id="x")},
        {"principal": Ref(type="a b", id="\ud800")},
        {"entities": (DANA[0], replace(DANA[0], parents=()))},
        {"context": {"client": {"__entity": {"type": "Client", "id": "x"}}, "scopes": [], "now": 1}},
        {"entities": (Entity(ref=DANA[0].ref, attributes={"name": object()}, parents=()),)},  # type: ignore[dict-item]
    ],
)  # fmt: skip
def test_a_hostile_question_is_answered_with_no_and_never_raises(
    engine: CedarEngine, changed: dict[str, object]
) -> None:
    question = replace(questions.about_tool(person(DANA), caller(), tool(), NOW), **changed)  # type: ignore[arg-type]
    judgement = engine.judge(question)
    assert not judgement.allowed
    assert not judgement.validated
    assert judgement.errors
    engine.candidates(question)


# --- taking apart --------------------------------------------------------------------------


def test_a_denial_is_explained_condition_by_condition(engine: CedarEngine) -> None:
    found = {each.policy: each for each in engine.candidates(about(person(BOB), review(subject="carol")))}
    assert list(found) == ["wall:tenant", "wall:active", "reviews-call", "manager-read", "hr-read"]
    assert [(each.text, each.holds) for each in found["manager-read"].conjuncts] == [
        ("resource is Review", True),
        ("resource.subject has position", True),
        ("principal has position", True),
        ("resource.subject.position in principal.position", False),
        ("resource.subject != principal", True),
    ]
    assert [(each.text, each.holds) for each in found["hr-read"].conjuncts] == [
        ('principal in Group::"acme/hr"', False),
        ("resource is Review", True),
        ('resource.status == "final"', True),
        ("resource has rating", True),
        ("resource.rating > 0", True),
        ("resource.author != principal", True),
        ("resource.subject != principal", True),
    ]
    assert [(each.text, each.holds) for each in found["wall:tenant"].conjuncts] == [
        ("principal.tenant != resource.tenant", False)
    ]
    assert found["manager-read"].remedy == "Ask their manager."


def test_a_condition_that_errs_cannot_be_told(engine: CedarEngine) -> None:
    found = {each.policy: each for each in engine.candidates(about(person(DANA), review(rating=None)))}
    assert [each.holds for each in found["hr-read"].conjuncts] == [True, True, True, False, None, True, True]


def test_an_action_group_reaches_its_members_and_another_action_does_not(engine: CedarEngine) -> None:
    other = questions.about_tool(person(CAROL), caller(), TOOLS[1], NOW)
    assert [each.policy for each in engine.candidates(other)] == ["wall:tenant", "wall:active", "other-call"]
    assert may(engine, other)


# --- loading -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        (SCHEMA + "entity Foo { a: String }; action z appliesTo { principal: User, resource: Foo, context: Context };",
         "Foo"),
        (SCHEMA.replace("{ tenant: Tenant, subj", "{ tenant?: Tenant, subj"), "Review"),
        (SCHEMA.replace("{ tenant: Tenant, subj", "{ tenant: String, subj"), "Tenant"),
        (SCHEMA + "entity User;", "User"),
        (SCHEMA + "type Context = {};", "Context"),
        (SCHEMA + "namespace N { entity User; }", "shadows"),
        (SCHEMA + "namespace N { type Context = {}; }", "shadows"),
        (SCHEMA + "entity {", "a.cedarschema"),
        (SCHEMA.replace("[Tool, Review]", "[Review]"), "reviews_list"),
        (SCHEMA.replace("[Tool, Review]", "[Tool]"), "Review"),
        (SCHEMA.replace("context: Context", "context: { more: String }"), ""),
        (SCHEMA.replace('"other"', '"another"'), ""),
        (SCHEMA.replace("author: User,", "author: User, needed: String,"), "do not fit"),
    ],
)  # fmt: skip
def test_a_schema_that_cannot_stand_behind_the_walls_is_refused(tmp_path: Path, schema: str, named: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        loaded(tmp_path, '@id("x") @doc("d") permit(principal, action, resource is Tool);', schema)
    assert named in caught.value.message


@pytest.mark.parametrize(
    ("policies", "named"),
    [
        ("permit(", "a.cedar"),
        ('@id("x") @doc("d") permit(principal, action, resource) when { resource.nope };', "policy `x`"),
        ('@id("x") @doc("d") permit(principal, action == Action::"nope", resource);', "policy `x`"),
        ('@id("x") @doc("d") permit(principal, action, resource);', "neither scope nor condition"),
        ('@id("wall:x") @doc("d") forbid(principal, action, resource);', "wall:"),
    ],
)
def test_a_policy_fault_names_its_file_and_policy(tmp_path: Path, policies: str, named: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        loaded(tmp_path, policies)
    assert caught.value.message.startswith("a.cedar")
    assert named in caught.value.message


def test_the_action_must_apply_to_what_a_lookup_finds(tmp_path: Path) -> None:
    changer = replace(TOOLS[1], lookup=Lookup(tool="reviews_list", parameter="id", argument="id"))
    with pytest.raises(PolicyInvalid, match="cannot be asked about Review"):
        CedarEngine.load(bundle_at(tmp_path), tools=(TOOLS[0], changer))


def test_files_are_read_at_any_depth_and_a_link_out_is_refused(tmp_path: Path) -> None:
    bundle = bundle_at(tmp_path / "p")
    deeper = bundle / "domains" / "x"
    deeper.mkdir(parents=True)
    (deeper / "no.cedar").write_text('@id("no") @doc("d") forbid(principal, action, resource);')
    engine = CedarEngine.load(bundle, tools=TOOLS)
    assert engine.judge(questions.about_tool(person(DANA), caller(), tool(), NOW)).policies == ("no",)
    (tmp_path / "outside.cedar").write_text("")
    (bundle / "link.cedar").symlink_to(tmp_path / "outside.cedar")
    with pytest.raises(PolicyInvalid, match="link"):
        CedarEngine.load(bundle, tools=TOOLS)


def test_a_linked_directory_is_refused(tmp_path: Path) -> None:
    bundle = bundle_at(tmp_path / "p")
    (tmp_path / "more").mkdir()
    (bundle / "more").symlink_to(tmp_path / "more")
    with pytest.raises(PolicyInvalid, match="link to a directory"):
        CedarEngine.load(bundle, tools=TOOLS)


@pytest.mark.parametrize("content", [b"\xff", b"//;\n" * 2**18 + b"/"])
def test_a_file_that_is_not_text_or_too_large_is_refused(tmp_path: Path, content: bytes) -> None:
    bundle = bundle_at(tmp_path / "p")
    (bundle / "b.cedar").write_bytes(content)
    with pytest.raises(PolicyInvalid, match=r"b\.cedar"):
        CedarEngine.load(bundle, tools=TOOLS)


def test_no_directory_and_no_policy_are_refused(tmp_path: Path) -> None:
    for directory in (tmp_path / "none", tmp_path):
        with pytest.raises(PolicyInvalid):
            CedarEngine.load(directory, tools=TOOLS)


@pytest.mark.parametrize(
    "condition",
    [
        "(" * 5000 + "true" + ")" * 5000,
        "true" + "&&true" * 150_000,
        "true" + "&&true" * 1_000,
        "[" * 60 + "]" * 60 + "==1",
    ],
)
def test_deep_nesting_is_refused_and_not_a_crash(tmp_path: Path, condition: str) -> None:
    with pytest.raises(PolicyInvalid):
        loaded(tmp_path, f'@id("x") @doc("d") permit(principal, action, resource) when {{ {condition} }};')


ROW = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["1", "2", "3"]),
        "tenant": st.sampled_from(["acme", "globex"]),
        "subject_id": st.sampled_from(["bob", "carol", "dana", "zoe", "nobody"]),
        "author_id": st.sampled_from(["zoe", "dana", "nobody"]),
        "status": st.sampled_from(["final", "draft"]),
        "rating": st.sampled_from([0, 4]),
    }
)


@given(found=st.lists(ROW, max_size=6), who=st.sampled_from([DANA, BOB, CAROL]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_asked_about_together_get_the_answers_of_each_by_itself(
    engine: CedarEngine, found: list[dict[str, Json]], who: tuple[Entity, ...]
) -> None:
    people = questions.by_person([entity for entities in PEOPLE.values() for entity in entities])
    read = rows.extract(SHAPE, {"structuredContent": {"rows": found}}, limit=10).rows
    whom = (person(who), caller(), tool(), NOW)
    together = [engine.judge(question) for question in questions.about_rows(*whom, read, people)]
    assert together == [engine.judge(questions.about_row(*whom, row, people)) for row in read]
