"""Leaves: what the gateway writes is read, and every other spelling of the same is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onbehalf.errors import LedgerCorrupt
from onbehalf.explain import leaf as written
from onbehalf.model import AuditEntry, UnixTime
from onbehalf.verifier.channels import Channels
from onbehalf.verifier.leaves import MAX_LEAF, Pairing, read_leaf

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,63}", fullmatch=True)
ENTRIES = st.builds(
    AuditEntry, kind=st.sampled_from(["intent", "outcome", "denial", "start"]),
    call=st.from_regex(r"(call_[0-9a-f]{32})?", fullmatch=True), at=st.integers(0, 2**40).map(UnixTime),
    facts=st.dictionaries(NAMES, st.integers(0, 9), max_size=6)
    | st.builds(lambda index: {"intent": {"index": index}}, st.integers(0, 2**40)),
)  # fmt: skip


PLACES = st.tuples(st.from_regex(r"[0-9a-f]{16}", fullmatch=True), st.integers(1, 2**45))


def made(entry: AuditEntry, place: tuple[str, int] = ("", 0)) -> bytes:
    return written.make(written.spell(entry), id_="0" * 32, salt=b"s" * 32, place=place).leaf


@given(ENTRIES, PLACES)
def test_what_the_gateway_writes_is_read_alike_by_both(entry: AuditEntry, place: tuple[str, int]) -> None:
    for line in (made(entry), made(entry, place if entry.kind == "intent" else ("", 0))):
        one, other = read_leaf(line), written.read(line)
        assert (one.kind, one.call, one.at, one.of, one.facts) == (
            other.kind, other.call, other.at, other.of, other.facts
        )  # fmt: skip
        assert (one.channel, one.number) == (other.ch, other.n)
        assert json.dumps(json.loads(line), sort_keys=True, separators=(",", ":")).encode() == line


@pytest.mark.parametrize(
    "line",
    [
        b'{"at":1,"call":"","ch":"0123456789abcdef","facts":{},"id":"","kind":"intent","v":1}',
        b'{"at":1,"call":"","facts":{},"id":"","kind":"intent","n":1,"v":1}',
        b'{"at":1,"call":"","ch":"0123456789abcdef","facts":{},"id":"","kind":"denial","n":1,"v":1}',
        b'{"at":1,"call":"","ch":"0123456789abcdef","facts":{},"id":"","kind":"intent","n":0,"v":1}',
        b'{"at":1,"call":"","ch":"0123456789ABCDEF","facts":{},"id":"","kind":"intent","n":1,"v":1}',
        b'{"at":1,"call":"","ch":"","facts":{},"id":"","kind":"intent","n":1,"v":1}',
    ],
)
def test_a_channel_and_a_number_that_do_not_belong_together_are_no_leaf_to_either_reader(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"leaf|number"):
        read_leaf(line)
    with pytest.raises(LedgerCorrupt):
        written.read(line)


def intents(*places: tuple[str, int]) -> list[bytes]:
    return [made(AuditEntry(kind="intent", call="c", at=UnixTime(0), facts={}), place) for place in places]


def test_numbers_of_each_channel_follow_each_other_and_a_hole_is_said_once() -> None:
    one, other = "a" * 16, "b" * 16
    channels = Channels(0)
    said = [channels.take(read_leaf(line)) for line in intents((one, 1), (other, 1), (one, 2), (one, 4), (one, 5))]
    assert [bool(each) for each in said] == [False, False, False, True, False]
    assert (channels.all[one].holes, channels.all[other].holes) == (1, 0)


def test_a_log_from_its_beginning_counts_from_one_and_a_later_range_from_anywhere() -> None:
    (line,) = intents(("a" * 16, 7))
    assert "where 1 is next" in Channels(0).take(read_leaf(line))
    assert Channels(5).take(read_leaf(line)) == ""


@given(ENTRIES, st.data())
def test_what_this_reader_takes_is_canonical_json_that_the_other_takes_too(
    entry: AuditEntry, data: st.DataObject
) -> None:
    line = bytearray(made(entry))
    for _ in range(data.draw(st.integers(1, 3))):
        line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    try:
        leaf = read_leaf(bytes(line))
    except ValueError:
        return
    assert json.dumps(json.loads(line), sort_keys=True, separators=(",", ":")).encode() == line
    assert written.read(bytes(line)).facts == leaf.facts


GOOD = b'{"at":1,"call":"","facts":{"a":"%b"},"id":"","kind":"x","v":1}' % (b"0" * 64)


@pytest.mark.parametrize(
    ("part", "spelled"),
    [
        (GOOD, b""), (GOOD, b"{}"), (GOOD, b"null"), (b'"v":1', b'"v":2'), (b'"at":1', b'"at":01'),
        (b'"at":1', b'"at":-1'), (b'"at":1', b'"at":1.0'), (b'{"at"', b' {"at"'), (b'"v":1}', b'"v":1} '),
        (b'"at":1,"call":""', b'"call":"","at":1'), (b'"call":""', b'"call":"\\u0041"'), (b'"v"', b'"of":-1,"v"'),
        (b'"kind":"x"', b'"kind":"\xc3\xa9"'), (b'"a":"0', b'"a":"F'), (b'"a":', b'"A":'), (b'"v":1', b'"v":1,"w":1'),
        (b'{"a":', b'{"b":"%b","a":' % (b"0" * 64)), (b'{"a":', b'{"a":"%b","a":' % (b"0" * 64)),
    ],
)  # fmt: skip
def test_any_other_spelling_is_refused(part: bytes, spelled: bytes) -> None:
    assert read_leaf(GOOD).facts == {"a": "0" * 64}
    assert part in GOOD
    with pytest.raises(ValueError, match=r"leaf|facts"):
        read_leaf(GOOD.replace(part, spelled))


def test_the_longest_leaf_of_the_gateway_fits_into_a_bundle() -> None:
    assert MAX_LEAF == written.MAX_LEAF_BYTES == 65_535
    facts = {f"fact_{number}": 1 for number in range(1000)}
    with pytest.raises(ValueError, match="at most 65535"):
        made(AuditEntry(kind="start", call="", at=UnixTime(0), facts=facts))
    assert (
        len(read_leaf(made(AuditEntry(kind="x", call="", at=UnixTime(0), facts=dict(list(facts.items())[:800])))).facts)
        == 800
    )


def test_one_intent_has_one_outcome() -> None:
    pairing = Pairing(0)
    intent = read_leaf(made(AuditEntry(kind="intent", call="c", at=UnixTime(0), facts={})))
    outcome = read_leaf(made(AuditEntry(kind="outcome", call="c", at=UnixTime(0), facts={"intent": {"index": 4}})))
    pairing.take(4, intent, b"h")
    assert pairing.take(5, outcome, b"h") is not None
    with pytest.raises(ValueError, match="no intent before it"):
        pairing.take(6, outcome, b"h")
    again = Pairing(0)
    again.take(4, intent, b"h")
    other = read_leaf(made(AuditEntry(kind="outcome", call="d", at=UnixTime(0), facts={"intent": {"index": 4}})))
    with pytest.raises(ValueError, match="another call"):
        again.take(5, other, b"h")
    alone = read_leaf(made(AuditEntry(kind="outcome", call="c", at=UnixTime(0), facts={})))
    with pytest.raises(ValueError, match="no intent before it"):
        Pairing(3).take(5, alone, b"h")
    later = Pairing(5)
    assert later.take(5, outcome, b"h") is None
    assert later.before == 1
