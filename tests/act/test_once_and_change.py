"""What stands in the name of a repeated call and of a change set: another of anything is another name."""

from __future__ import annotations

import pytest

from act.granted import allowed
from onbehalf.act import change_set, once
from onbehalf.model import Allow, CallId, Digest, Ref, ToolCall, UnixTime
from replacing import replace

OTHER = Digest("sha256:" + "9" * 64)


def _call(**changed: object) -> Allow:
    found = allowed()
    call: ToolCall = replace(found.call, **changed)
    return replace(found, call=call)


def named(allow: Allow, changed: str = "d", key: bytes = b"k" * 32) -> Digest:
    return change_set(allow, changed, key=key)


def _others() -> dict[str, Allow]:
    found = allowed()
    call = found.call
    return {
        "tenant": _call(caller=replace(call.caller, tenant="other")),
        "client": _call(caller=replace(call.caller, client="other")),
        "person": _call(person=replace(call.person, ref=Ref(type="User", id="acme/other"))),
        "tool": _call(tool=replace(call.tool, name="other")),
        "definition": _call(tool=replace(call.tool, definition=OTHER)),
        "arguments": _call(digest=OTHER),
    }


@pytest.mark.parametrize("what", list(_others()))
def test_another_name_for_another_call(what: str) -> None:
    other = _others()[what]
    assert once.known_by(other.call) != once.known_by(allowed().call)
    assert named(other) != named(allowed())


def test_a_call_id_and_a_time_make_no_difference() -> None:
    later = _call(id=CallId("call_" + "f" * 32), at=UnixTime(1))
    assert once.known_by(later.call) == once.known_by(allowed().call)
    assert named(later) == named(allowed())


def test_a_change_set_is_of_one_policy_directory_and_database() -> None:
    found = allowed()
    names = {
        named(each, changed)
        for each, changed in [
            (found, "d"), (found, "e"), (replace(found, policy=OTHER), "d"), (replace(found, revision=99), "d"),
        ]
    }  # fmt: skip
    assert len(names) == 4
    assert named(found, key=b"j" * 32) not in names


def test_a_given_key_stands_in_the_place_of_arguments_and_never_for_them() -> None:
    keyed = _call(once="k", digest=OTHER).call
    assert once.known_by(keyed) == once.known_by(_call(once="k").call)
    assert once.known_by(keyed) != once.known_by(_call(once="j").call)
    sneaky = _call(once=allowed().call.digest).call  # a key that looks like what arguments are known by
    assert once.known_by(sneaky) != once.known_by(allowed().call)
