"""A call that people must approve: asked for, said yes or no to, and done once, in the house."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from house import POLICIES, Doors, house, request, reviews, tickets
from onbehalf.approving import Approving, Look
from onbehalf.doors.approvals_sqlite import SqliteApprovals
from onbehalf.errors import ApprovalUnknown, LedgerUnavailable
from onbehalf.explain.leaf import Record
from onbehalf.explain.story import Story, story
from onbehalf.gateway import Gateway
from onbehalf.model import Digest, Done, Json, Presented, Reply, ToolCall, UnixTime, canonical, digest
from replacing import replace
from validate.policy_house import EVIDENCE, NOW, review


@dataclass(kw_only=True)
class Town:
    """A house whose calls people can approve. `now` is what its clock says."""

    gateway: Gateway
    doors: Doors
    approving: Approving
    clock: list[int]

    def call(self, tool: str = "tickets_update", *, token: str = "bob", **arguments: Json) -> Reply:
        arguments = arguments or {"ticket_id": "T1", "status": "closed"}
        return asyncio.run(self.gateway.call(Presented(token=token), request(tool, **arguments)))

    def vote(self, token: str, id: str, *, approves: bool = True) -> None:
        async def voted() -> None:
            caller = await self.gateway.who(Presented(token=token))
            await self.approving.vote(caller, id, approves=approves)

        asyncio.run(voted())

    def look(self, token: str, id: str) -> Look:
        async def looked() -> Look:
            return await self.approving.look(await self.gateway.who(Presented(token=token)), id)

        return asyncio.run(looked())

    def kinds(self) -> list[str]:
        return [entry.kind for entry in self.doors.entries]

    def done(self) -> list[ToolCall]:
        return [call for call in self.doors.sent if call.tool.writes and not call.dry]

    def story(self, call: str) -> Story:
        records = [
            Record(index=at, leaf=Digest("sha256:0"), kind=each.kind, call=each.call, at=each.at, facts=each.facts)
            for at, each in enumerate(self.doors.entries)
            if each.call == call
        ]
        return story(records)


def annotated(policy: str, by: str, *, text: str = POLICIES) -> str:
    assert f'@id("{policy}")' in text
    return text.replace(f'@id("{policy}")', f'@id("{policy}") @approve("{by}")')


def town(directory: Path, policies: str) -> Iterator[Town]:
    gateway, doors = house(directory, policies=policies)
    doors.answer = tickets(T1="bob", T2="bob")
    kept = SqliteApprovals.open(directory / "approvals.db", secret=b"s" * 32)
    clock, numbers = [int(NOW)], itertools.count(1)

    def now() -> UnixTime:
        return UnixTime(clock[0])

    approving = Approving(
        clock=now, fresh=lambda: f"id-{next(numbers)}", approvals=kept, directory=doors, ledger=doors,
        url="https://gateway.test/approvals/", issuers=frozenset({EVIDENCE.issuer}), lifetime_s=900, secret=b"k" * 32,
    )  # fmt: skip
    yield Town(gateway=replace(gateway, approving=approving, clock=now), doors=doors, approving=approving, clock=clock)
    kept.close()


@pytest.fixture
def by_manager(tmp_path: Path) -> Iterator[Town]:
    yield from town(tmp_path, annotated("ticket-own", "manager"))


def id_of(reply: Reply) -> str:
    assert reply.denial == "approval_required"
    assert reply.waiting is not None
    assert reply.waiting.url.startswith("https://gateway.test/approvals/")
    return reply.waiting.url.rpartition("/")[2]


def test_it_waits_is_approved_and_is_done_once(by_manager: Town) -> None:
    waiting = by_manager.call()
    assert by_manager.done() == []
    assert "https://gateway.test/approvals/id-1" in str(waiting.content["content"])
    assert waiting.content["isError"] is True
    by_manager.vote("dana", id_of(waiting))
    assert by_manager.call().denial == ""
    assert len(by_manager.done()) == 1
    by_manager.clock[0] += 100  # past the time in which the same call is known again
    again = by_manager.call()
    assert id_of(again) != id_of(waiting)
    assert len(by_manager.done()) == 1


def test_until_it_is_approved_it_waits_for_the_same_approval(by_manager: Town) -> None:
    first, second = by_manager.call(), by_manager.call()
    assert id_of(first) == id_of(second)
    assert by_manager.done() == []


def test_what_is_approved_is_that_very_call(by_manager: Town) -> None:
    by_manager.vote("dana", id_of(by_manager.call()))
    other = by_manager.call("tickets_update", ticket_id="T1", status="closed ")
    assert id_of(other) == "id-2"
    assert id_of(by_manager.call("tickets_update", ticket_id="T2", status="closed")) != "id-1"
    assert by_manager.done() == []


@pytest.mark.parametrize("token", ["bob", "carol", "erin", "gone"])
def test_who_may_not_approve_hears_what_everybody_hears_of_what_is_not_there(by_manager: Town, token: str) -> None:
    id = id_of(by_manager.call())
    said = []
    for each in (id, "id-99", ""):
        with pytest.raises(ApprovalUnknown) as raised:
            by_manager.vote(token, each)
        said.append((raised.value.message, raised.value.hint))
        with pytest.raises(ApprovalUnknown):
            by_manager.look(token, each)
    assert len(set(said)) == 1
    assert id_of(by_manager.call()) == id
    assert "approval" not in by_manager.kinds()


def test_a_refusal_is_for_good_until_it_is_over(by_manager: Town) -> None:
    id = id_of(by_manager.call())
    by_manager.vote("dana", id)
    by_manager.vote("dana", id, approves=False)  # on second thoughts
    by_manager.vote("dana", id)
    refused = by_manager.call()
    assert refused.denial == "approval_refused"
    assert "refused" in str(refused.content["content"])
    assert by_manager.done() == []
    by_manager.clock[0] += 900
    assert id_of(by_manager.call()) != id


def test_an_approval_is_over_after_its_time(by_manager: Town) -> None:
    id = id_of(by_manager.call())
    by_manager.vote("dana", id)
    by_manager.clock[0] += 900
    assert id_of(by_manager.call()) != id
    assert by_manager.done() == []


def test_who_left_since_has_approved_nothing(by_manager: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    by_manager.vote("dana", id_of(by_manager.call()))
    people = Doors.people

    async def without_dana(doors: Doors, tenant: str, ids: Any) -> Any:
        return [
            replace(each, attributes={**each.attributes, "active": False}) if each.ref.id == "acme/dana" else each
            for each in await people(doors, tenant, ids)
        ]

    monkeypatch.setattr(Doors, "people", without_dana)
    assert by_manager.call().denial == "approval_required"
    assert by_manager.done() == []


def test_two_calls_at_once_use_one_approval_once(by_manager: Town) -> None:
    by_manager.vote("dana", id_of(by_manager.call()))

    async def both() -> list[Any]:
        sent = [
            by_manager.gateway.call(Presented(token="bob"), request("tickets_update", ticket_id="T1", status="closed"))
            for _ in range(4)
        ]
        return await asyncio.gather(*sent, return_exceptions=True)

    replies = asyncio.run(both())
    assert [reply.denial for reply in replies].count("") == 1
    assert len(by_manager.done()) == 1


def test_each_vote_is_a_record_of_its_own_before_it_counts(by_manager: Town) -> None:
    waiting = by_manager.call()
    by_manager.doors.broken.add("ledger_full")
    with pytest.raises(LedgerUnavailable):
        by_manager.vote("dana", id_of(waiting))
    by_manager.doors.broken.clear()
    assert by_manager.call().denial == "approval_required"
    by_manager.vote("dana", id_of(waiting))
    [vote] = [entry for entry in by_manager.doors.entries if entry.kind == "approval"]
    assert vote.call == waiting.call
    assert vote.facts["vote"] == "approved"
    assert vote.facts["person"] == {"id": "dana"}
    done = by_manager.call()
    intent = [entry for entry in by_manager.doors.entries if entry.call == done.call][-2]
    approval: Any = intent.facts["approval"]
    assert (approval["approved_by"], approval["asked_by"]) == (["dana"], waiting.call)
    assert not any("id-1" in str(entry.facts) for entry in by_manager.doors.entries)


def test_the_story_tells_who_was_asked_who_said_what_and_by_whom_it_was_approved(by_manager: Town) -> None:
    waiting = by_manager.call()
    told = by_manager.story(waiting.call)
    assert told.ending == "waiting"
    assert "waits for the approval of manager" in told.as_text()
    by_manager.vote("dana", id_of(waiting))
    done = by_manager.call()
    assert "dana approved it" in by_manager.story(waiting.call).as_text()
    text = by_manager.story(done.call).as_text()
    assert f"approved by dana, as {waiting.call} asked" in text
    by_manager.clock[0] += 100
    refused = by_manager.call()
    by_manager.vote("dana", id_of(refused), approves=False)
    assert by_manager.story(refused.call).ending == "refused"


def test_what_the_approver_sees_is_the_call_and_nothing_is_said_to_the_model(by_manager: Town) -> None:
    id = id_of(by_manager.call())
    look = by_manager.look("dana", id)
    about: Any = look.about
    assert about["arguments"] == {"ticket_id": "T1", "status": "closed"}
    assert about["tool"]["name"] == "tickets_update"
    assert about["policies"] == ["ticket-own"]
    assert (look.state, look.voted, look.mine) == ("open", False, False)
    by_manager.vote("dana", id)
    look = by_manager.look("dana", id)
    assert (look.state, look.voted) == ("approved", True)


def test_a_tool_whose_permit_needs_an_approval_is_listed_where_it_can_be_given(tmp_path: Path) -> None:
    for one in town(tmp_path, annotated("reviews-call", "self")):
        one.doors.answer = reviews(review("1"), review("2", subject="dana"))
        listed = asyncio.run(one.gateway.tools(Presented(token="dana")))
        assert "reviews_list" in {tool.name for tool in listed}
        id = id_of(one.call("reviews_list", token="dana", subject_id="bob"))
        assert one.look("dana", id).mine
        one.vote("dana", id)
        reply = one.call("reviews_list", token="dana", subject_id="bob")
        assert reply.denial == ""
        assert len(reply.content["structuredContent"]["rows"]) == 2  # type: ignore[index,call-overload,arg-type]
        assert id_of(one.call("reviews_list", token="dana", subject_id="bob")) != id  # reading is done once as well


def test_self_and_manager_together_are_two_yeses(tmp_path: Path) -> None:
    policies = annotated("tickets-call", "self", text=annotated("ticket-own", "manager"))
    for one in town(tmp_path, policies):
        id = id_of(one.call())
        one.vote("dana", id)
        assert id_of(one.call()) == id
        one.vote("bob", id)
        assert one.call().denial == ""


def test_a_change_that_can_be_tried_is_shown_to_who_approves_and_only_it_is_made(tmp_path: Path) -> None:
    state: list[Json] = [{"id": "0", "tenant": "acme", "owner_id": "bob", "note": "confidential-9876"}]

    def answer(call: ToolCall) -> Done:
        changed = digest(canonical(state))
        assert call.dry or call.expected == changed
        return Done(content={"content": [], "structuredContent": {"rows": [*state]}}, digest=changed)

    for tool in ("tickets_close", "tickets_move"):
        for one in town(tmp_path / tool, annotated("ticket-own", "manager")):
            one.doors.answer = answer
            waiting = one.call(tool, ticket_id="7")
            assert "confidential" not in str(waiting.content)
            assert one.done() == []
            about: Any = one.look("dana", id_of(waiting)).about
            assert about["changes"] == {"rows": [*state]}
            one.vote("dana", id_of(waiting))
            state[0]["note"] = "another"  # type: ignore[index,call-overload]
            assert id_of(one.call(tool, ticket_id="7")) != id_of(waiting)
            state[0]["note"] = "confidential-9876"  # type: ignore[index,call-overload]
            assert one.call(tool, ticket_id="7").denial == ""
            assert len(one.done()) == 1


def test_where_nobody_can_say_what_was_approved_nothing_is_done(by_manager: Town) -> None:
    by_manager.vote("dana", id_of(by_manager.call()))
    assert isinstance(by_manager.approving.approvals, SqliteApprovals)
    by_manager.approving.approvals.close()
    assert by_manager.call().denial == "approvals_unavailable"
    assert by_manager.done() == []


def test_where_the_directory_cannot_be_asked_nothing_is_approved(by_manager: Town) -> None:
    id = id_of(by_manager.call())
    by_manager.vote("dana", id)
    by_manager.doors.broken.add("directory_down_later")
    with pytest.raises(Exception, match="the directory cannot be read"):
        by_manager.call()
    assert by_manager.done() == []
