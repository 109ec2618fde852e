from __future__ import annotations

from dataclasses import replace

from onbehalf.model import Entity, Json, Ref
from onbehalf.validate import questions, rows
from validate.policy_house import BOB, CAROL, DANA, IC, LEAD, NOW, PEOPLE, SHAPE, ZOE, caller, person, review, tool


def read(row: dict[str, Json]) -> rows.Row:
    [found] = rows.extract(SHAPE, {"structuredContent": {"rows": [row]}}, limit=1).rows
    return found


def test_a_tool_is_asked_about_in_the_callers_tenant() -> None:
    question = questions.about_tool(person(DANA), caller(), tool(), NOW)
    assert question.principal == DANA[0].ref
    assert question.resource == Ref(type="Tool", id="reviews_list")
    assert question.entities[-1].attributes == {"tenant": Ref(type="Tenant", id="acme"), "writes": False}
    assert question.context == {"client": Ref(type="Client", id="chat"), "scopes": ["reviews.read"], "now": NOW}


def test_a_row_is_asked_about_with_those_it_names_each_entity_once() -> None:
    question = questions.about_row(person(DANA), caller(), tool(), NOW, read(review(subject="bob")), PEOPLE)
    refs = [entity.ref for entity in question.entities]
    assert len(refs) == len(set(refs))
    assert BOB[0].ref in refs
    assert IC.ref in refs
    assert CAROL[0].ref not in refs


def test_a_flat_list_of_people_gives_the_same_question() -> None:
    flat = [*DANA, *BOB, *CAROL, *ZOE]
    row = read(review(subject="bob"))
    grouped = questions.about_row(person(DANA), caller(), tool(), NOW, row, PEOPLE)
    assert set(map(ref_of, grouped.entities)) == set(
        map(ref_of, questions.about_row(person(DANA), caller(), tool(), NOW, row, flat).entities)
    )


def ref_of(entity: Entity) -> Ref:
    return entity.ref


def test_a_row_of_another_tenant_does_not_borrow_a_person_of_the_same_id() -> None:
    row = read(review(tenant="globex", subject="bob"))
    question = questions.about_row(person(DANA), caller(), tool(), NOW, row, PEOPLE)
    assert BOB[0].ref not in [entity.ref for entity in question.entities]


def test_a_row_cannot_redefine_the_callers_own_entities() -> None:
    raised = Entity(ref=DANA[0].ref, attributes={}, parents=())
    row = read(review(subject="dana"))
    question = questions.about_row(person(DANA), caller(), tool(), NOW, row, {raised.ref.id: (raised,)})
    assert [entity for entity in question.entities if entity.ref == raised.ref] == [DANA[0]]


def test_a_missing_row_is_asked_about_without_an_entity() -> None:
    ref = Ref(type="Review", id="acme/1")
    question = questions.about_missing(person(DANA), caller(), tool(), NOW, ref)
    assert question.resource == ref
    assert question.entities == DANA


def test_people_are_grouped_with_all_they_refer_to() -> None:
    grouped = questions.by_person([*BOB, *DANA])
    assert set(grouped) == {"acme/bob", "acme/dana"}
    assert set(map(ref_of, grouped["acme/bob"])) == {BOB[0].ref, IC.ref, LEAD.ref}


def test_rows_asked_about_together_share_their_entities_and_a_repeated_id_is_asked_about_alone() -> None:
    people = questions.by_person([entity for entities in PEOPLE.values() for entity in entities])
    found = rows.extract(
        SHAPE,
        {"structuredContent": {"rows": [review("1"), review("2", subject="carol"), review("1", subject="dana")]}},
        limit=10,
    ).rows
    asked = questions.about_rows(person(DANA), caller(), tool(), NOW, found, people)
    assert asked[0].entities is asked[1].entities
    assert asked[2] == questions.about_row(person(DANA), caller(), tool(), NOW, found[2], people)
    assert [question.resource for question in asked] == [row.ref for row in found]


def test_rows_that_refer_to_their_own_type_are_each_asked_about_alone() -> None:
    shape = replace(SHAPE, attributes={**SHAPE.attributes, "before": ("before_id", "Review")})
    found = rows.extract(
        shape, {"structuredContent": {"rows": [review("1", before_id="2"), review("2", before_id="1")]}}, limit=10
    ).rows
    people = questions.by_person([entity for entities in PEOPLE.values() for entity in entities])
    asked = questions.about_rows(person(DANA), caller(), tool(), NOW, found, people)
    assert asked == tuple(questions.about_row(person(DANA), caller(), tool(), NOW, row, people) for row in found)
