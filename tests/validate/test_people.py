"""`people.yaml` means what it says, or is refused with its place and what to do."""

from __future__ import annotations

import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from onbehalf.demo import data, files
from onbehalf.errors import ConfigInvalid, DirectoryInvalid
from onbehalf.validate import people
from onbehalf.validate.people import Login

WHOLE = """
tenants:
  acme:
    positions: {ceo: null, lead: ceo, second: [ceo, lead]}
    groups: {all: [], staff: [all], empty: null}
    people:
      dana:
        name: Dana Ü
        position: lead
        groups: [staff, staff]
        attributes: {department: hr, level: 3, remote: false, sites: [a, b], floor: null}
        logins: [{issuer: "https://i.test", subject: u-1}, {issuer: "https://j.test", subject: u-1}]
      rob: {name: Rob, position: lead, active: false}
      zoe: {name: Zoe}
  globex: {}
"""


def acme(text: str) -> str:
    return f"tenants:\n  acme:\n    {text}\n"


def person(text: str) -> str:
    return acme(
        f"{{positions: {{lead: null, ic: lead}}, groups: {{hr: []}}, people: {{dana: {text}, bob: {{name: B}}}}}}"
    )


def test_a_whole_directory_is_read_as_it_says() -> None:
    found = people.parse(WHOLE).tenants
    assert set(found) == {"acme", "globex"}
    assert found["acme"].positions == {"ceo": (), "lead": ("ceo",), "second": ("ceo", "lead")}
    assert found["acme"].groups == {"all": (), "staff": ("all",), "empty": ()}
    dana, rob, zoe = found["acme"].people.values()
    assert (dana.id, dana.name, dana.position, dana.groups, dana.active) == ("dana", "Dana Ü", "lead", ("staff",), True)
    assert dana.logins == (
        Login(issuer="https://i.test", subject="u-1"),
        Login(issuer="https://j.test", subject="u-1"),
    )
    assert dana.attributes == {"department": "hr", "level": 3, "remote": False, "sites": ["a", "b"], "floor": None}
    assert (rob.position, rob.active) == ("lead", False)
    assert (zoe.position, zoe.groups, zoe.logins, zoe.attributes) == ("", (), (), {})


def test_the_demos_directory_is_read_whole() -> None:
    world = data.world()
    found = people.parse(files.people_yaml(world, issuer="https://i.test")).tenants
    assert sum(len(each.people) for each in found.values()) == len(world.people)


def test_the_digest_is_of_the_content_and_not_of_its_spelling() -> None:
    again = yaml.safe_dump(yaml.safe_load(WHOLE), sort_keys=True)
    assert again != WHOLE
    assert people.parse(again).digest == people.parse(WHOLE).digest
    assert people.parse(WHOLE.replace("level: 3", "level: 4")).digest != people.parse(WHOLE).digest


REFUSED = {
    "a circle of positions": (acme("positions: {a: b, b: c, c: a}"), "tenant `acme`: position `a` is above itself"),
    "a circle of groups": (acme("groups: {a: [b], b: [a]}"), "tenant `acme`: group `a` is above itself"),
    "a position above itself": (acme("positions: {a: a}"), "position `a` is above itself"),
    "a group in itself": (acme("groups: {b: [], a: [b, a]}"), "group `a` is above itself"),
    "an unknown position above": (acme("positions: {a: x}"), "position `a`: position `x` is not in this tenant"),
    "a position of another tenant": (
        "tenants: {acme: {positions: {a: b}}, globex: {positions: {b: null}}}", "tenant `acme`, position `a`",
    ),
    "an unknown group above": (acme("groups: {a: [x]}"), "group `a`: group `x` is not in this tenant"),
    "an unknown position held": (person("{name: D, position: x}"), "person `dana`: position `x` is not in this tenant"),
    "an unknown group": (person("{name: D, groups: [hr, x]}"), "person `dana`: group `x` is not in this tenant"),
    "a slash in a tenant": ("tenants: {a/b: {}}", "the name `a/b` has a `/`"),
    "a slash in a position": (acme("positions: {a/b: null}"), "`positions`: the name `a/b` has a `/`"),
    "a slash in a group": (acme("groups: {a/b: []}"), "`groups`: the name `a/b` has a `/`"),
    "a slash in a person": (acme("people: {globex/erin: {name: E}}"), "`people`: the name `globex/erin` has a `/`"),
    "a login of two": (
        person("{name: D, logins: [{issuer: i, subject: s}]}")
        .replace("name: B", "name: B, logins: [{issuer: i, subject: s}]"),
        "tenant `acme`: login `s` of `i` is of `dana` already",
    ),
    "a login twice": (
        person("{name: D, logins: [{issuer: i, subject: s}, {issuer: i, subject: s}]}"),
        "login `s` of `i`",
    ),
    "two holders": (
        person("{name: D, position: ic}").replace("name: B", "name: B, position: ic"),
        "`bob` and `dana` both hold the position `ic`",
    ),
    "an unknown key at the top": ("tenant: {}", "people.yaml has the unknown key `tenant`"),
    "an unknown key of a tenant": (acme("person: {}"), "tenant `acme` has the unknown key `person`"),
    "an unknown key of a person": (person("{name: D, admin: true}"), "person `dana` has the unknown key `admin`"),
    "an unknown key of a login": (
        person("{name: D, logins: [{iss: a}]}"),
        "person `dana`, a login has the unknown key `iss`",
    ),
    "a key that is no text": (person("{name: D, 7: true}"), "has the unknown key `7`"),
    "a key that is huge": (person(f"{{name: D, {'k' * 500}: 1}}"), "has the unknown key `kkk"),
    "nothing": ("", "people.yaml is not a mapping"),
    "a list": ("[]", "people.yaml is not a mapping"),
    "no tenants": ("{}", "`tenants` is not a mapping of names"),
    "a tenant that is nothing": ("tenants: {acme: }", "tenant `acme` is not a mapping"),
    "a person that is nothing": (person(""), "person `dana` is not a mapping"),
    "positions as a list": (acme("positions: [a]"), "`positions` is not a mapping of names"),
    "people as a list": (acme("people: [dana]"), "`people` is not a mapping of names"),
    "a number for a tenant": ("tenants: {7: {}}", "`tenants`, a name is not 1 to 200"),
    "a number for a person": (acme("people: {7: {name: D}}"), "`people`, a name is not 1 to 200"),
    "`no` for a position": (acme("positions: {no: null}"), "`positions`, a name is not 1 to 200"),
    "`no` above a position": (acme("positions: {a: no}"), "position `a` is not 1 to 200"),
    "`no` above a group": (acme("groups: {a: no}"), "group `a` has no list of names"),
    "`no` for a held position": (person("{name: D, position: no}"), "person `dana`, `position` is not 1 to 200"),
    "an empty held position": (person("{name: D, position: ''}"), "`position` is not 1 to 200"),
    "`no` for groups": (person("{name: D, groups: no}"), "person `dana`, `groups` has no list of names"),
    "an empty text for groups": (person("{name: D, groups: ''}"), "`groups` has no list of names"),
    "a word for groups": (person("{name: D, groups: hr}"), "`groups` has no list of names"),
    "a number for a name": (person("{name: 7}"), "person `dana`, `name` is not 1 to 200"),
    "a date for a name": (person("{name: 2026-01-01}"), "`name` is not 1 to 200"),
    "no name": (person("{active: true}"), "person `dana`, `name` is not 1 to 200"),
    "a blank name": (person("{name: '  '}"), "`name` is not 1 to 200"),
    "a long name": (person(f"{{name: {'n' * 201}}}"), "`name` is not 1 to 200"),
    "a name that turns the line": (person('{name: "a\\u202eb"}'), "`name` is not 1 to 200"),
    "a number for a subject": (person("{name: D, logins: [{issuer: i, subject: 1001}]}"), "`subject` is not 1 to 255"),
    "a login without an issuer": (person("{name: D, logins: [{subject: s}]}"), "`issuer` is not 1 to 255"),
    "logins as a mapping": (person("{name: D, logins: {issuer: i}}"), "person `dana`: `logins` is not a list"),
    "`maybe` for active": (person("{name: D, active: maybe}"), "`active` is not true or false"),
    "1 for active": (person("{name: D, active: 1}"), "`active` is not true or false"),
    "null for active": (person("{name: D, active: }"), "`active` is not true or false"),
    "a list of attributes": (person("{name: D, attributes: [a]}"), "`attributes` is not a mapping"),
    "a number for an attribute": (person("{name: D, attributes: {1: a}}"), "`attributes`, a name is not 1 to 200"),
    "a date as an attribute": (
        person("{name: D, attributes: {since: 2026-01-01}}"),
        "person `dana`, `attributes`, `since`",
    ),
    "no number as an attribute": (person("{name: D, attributes: {a: .nan}}"), "`attributes`, `a` is no text"),
    "a huge number": (person("{name: D, attributes: {a: 9007199254740993}}"), "`attributes`, `a` is no text"),
    "a lone surrogate": (person('{name: D, attributes: {a: "\\ud800"}}'), "`attributes`, `a` is no text"),
    "a nested attribute": (person("{name: D, attributes: {a: {b: c}}}"), "`attributes`, `a` is no text"),
    "an attribute without an end": (person("{name: D, attributes: {a: &a [*a]}}"), "`attributes`, `a` is no text"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_cannot_be_meant_is_refused_with_its_place_and_a_hint(case: str) -> None:
    text, said = REFUSED[case]
    with pytest.raises(DirectoryInvalid) as caught:
        people.parse(text)
    assert said in caught.value.message
    assert caught.value.hint
    assert caught.value.code == "directory_invalid"
    assert len(caught.value.message) < 700
    assert "Traceback" not in caught.value.message


@pytest.mark.parametrize("case", [each for each in REFUSED if "unknown key" in each])
def test_an_unknown_key_is_answered_with_the_known_ones(case: str) -> None:
    with pytest.raises(DirectoryInvalid) as caught:
        people.parse(REFUSED[case][0])
    assert caught.value.hint.startswith("known keys are `")


@pytest.mark.parametrize(
    "text",
    [
        "tenants: {acme: {}, acme: {}}", person("{name: D, name: E}"), acme("positions: {a: null, a: null}"),
        "tenants: [", "? [a]\n: b", "[" * 5000, "!!python/object:os.system {}", "a: &a [*b]", "a: 1\n---\nb: 2",
    ],
)  # fmt: skip
def test_what_is_no_yaml_or_says_a_key_twice_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        people.parse(text)
    assert caught.value.hint


def test_laughing_aliases_are_refused_at_once() -> None:
    lines = ["tenants: {acme: {people: {dana: {name: D, attributes: {", "a0: &a0 [x, x],"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]," for n in range(1, 30)]
    with pytest.raises(DirectoryInvalid, match="`a1` is no text"):
        people.parse("\n".join([*lines, "}}}}}"]))


def test_somebody_who_left_may_stand_on_the_position_of_a_successor() -> None:
    text = person("{name: D, position: ic}").replace("name: B", "name: B, position: ic, active: false")
    assert people.parse(text).tenants["acme"].people["bob"].position == "ic"


def test_a_login_may_be_as_long_as_the_subject_of_a_token() -> None:
    text = "{name: D, logins: [{issuer: i, subject: %s}]}"
    found = people.parse(person(text % ("s" * 255))).tenants["acme"].people["dana"]
    assert found.logins == (Login(issuer="i", subject="s" * 255),)
    with pytest.raises(DirectoryInvalid, match="`subject` is not 1 to 255"):
        people.parse(person(text % ("s" * 256)))


def test_one_login_may_be_known_in_two_tenants() -> None:
    login = "{people: {a: {name: A, logins: [{issuer: i, subject: s}]}}}"
    assert len(people.parse(f"tenants: {{acme: {login}, globex: {login}}}").tenants) == 2


@pytest.mark.parametrize("kind", ["positions", "groups"])
@pytest.mark.parametrize("order", [1, -1], ids=["top first", "bottom first"])
def test_chains_are_bounded_in_whatever_order_they_are_written(kind: str, order: int) -> None:
    def chain(length: int) -> str:
        names = {f"p{n}": [f"p{n - 1}"] if n else [] for n in range(length)}
        return acme(f"{kind}: {{{', '.join(f'{name}: {above}' for name, above in [*names.items()][::order])}}}")

    assert people.parse(chain(64))
    for length in (65, 66, 2000):
        with pytest.raises(DirectoryInvalid, match="64 or more levels above it"):
            people.parse(chain(length))


def test_two_thousand_people_are_read_in_reasonable_time() -> None:
    many = {
        f"u{n}": {
            "name": f"U {n}",
            "position": f"p{n}",
            "groups": ["g"],
            "logins": [{"issuer": "i", "subject": f"s{n}"}],
        }
        for n in range(2000)
    }
    positions = {"top": None} | {f"p{n}": f"p{n // 10}" if n >= 10 else "top" for n in range(2000)}
    text = yaml.safe_dump({"tenants": {"acme": {"positions": positions, "groups": {"g": []}, "people": many}}})
    started = time.perf_counter()
    assert len(people.parse(text).tenants["acme"].people) == 2000
    assert time.perf_counter() - started < 20


@st.composite
def hierarchies(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    """Places with edges to earlier ones only, then written in any order."""
    size = draw(st.integers(1, 9))
    above = {
        f"n{n}": draw(st.sets(st.sampled_from([f"n{m}" for m in range(n)]), max_size=3)) if n else ()
        for n in range(size)
    }
    order = draw(st.permutations(sorted(above)))
    return {name: tuple(sorted(above[name])) for name in order}


@given(above=hierarchies())
@settings(max_examples=100, deadline=None)
def test_ancestors_are_all_that_can_be_reached_with_the_least_distance(above: dict[str, tuple[str, ...]]) -> None:
    def distance(start: str, end: str, most: int) -> int | None:
        """By trying every walk."""
        if start == end:
            return 0
        found = [distance(each, end, most - 1) for each in above[start]] if most else []
        return min((each + 1 for each in found if each is not None), default=None)

    for start in above:
        expected = {end: distance(start, end, len(above)) for end in above if end != start}
        assert people.ancestors(above, start) == {end: steps for end, steps in expected.items() if steps is not None}


@given(
    edges=st.dictionaries(
        st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), unique=True, max_size=3), min_size=6
    )
)
@settings(max_examples=150, deadline=None)
def test_a_hierarchy_is_refused_exactly_when_something_is_above_itself(edges: dict[str, list[str]]) -> None:
    reached = {name: set(above) for name, above in edges.items()}
    for _ in edges:
        reached = {name: above | {up for each in above for up in reached[each]} for name, above in reached.items()}
    circle = any(name in above for name, above in reached.items())
    try:
        people.parse(yaml.safe_dump({"tenants": {"acme": {"groups": edges}}}))
    except DirectoryInvalid as error:
        assert (circle, "above itself" in error.message) == (True, True)  # noqa: PT017  # either may be
    else:
        assert not circle
