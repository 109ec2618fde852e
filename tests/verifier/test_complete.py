"""What `onbehalf-verify` says of completeness: by a backend's own record, by the gateway's word, or why it does not."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from onbehalf.doors.ledger_heartbeat import Heart
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.explain.channel import channel_of
from onbehalf.explain.reconcile import Asked, Row, Sending, account, reconciled
from onbehalf.model import AuditEntry, Json, Receipt, UnixTime, digest
from onbehalf.verifier.backend_rows import BackendRecord, read_rows
from onbehalf.verifier.besides import Besides
from onbehalf.verifier.check import check
from onbehalf.verifier.command import main
from onbehalf.verifier.complete import Completeness, Statement
from onbehalf.verifier.leaves import Leaf
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.report import Report, Verdict
from verifier.bundle_house import ORIGIN, Bundle, bundled_from, packed, recorded

DESK = "https://desk.example/mcp"
CHANNEL = channel_of(ORIGIN, DESK)
Rows = list[dict[str, Any]]


@dataclass
class Life:
    """A log under way, and what an honest backend keeps of it."""

    ledger: SqliteLedger
    rows: Rows
    at: int = 3000

    async def call(self, *, ended: str = "done", taken: bool = True, kept: bool = True) -> Receipt:
        """One call: what is on record of its end, whether the backend took it and kept it."""
        self.at += 1
        name = f"call_{self.at:032x}"
        facts: dict[str, Json] = {"tool": {"name": "desk", "remote": "write"}, "arguments_digest": digest(b"{}")}
        intent = AuditEntry(kind="intent", call=name, at=UnixTime(self.at), facts=facts, audience=DESK)
        receipt = await self.ledger.append(intent)
        if ended:
            told: dict[str, Json] = {
                "intent": {"index": receipt.index, "leaf": receipt.leaf}, "result_digest": digest(name.encode()),
                "outcome": {"status": "done" if ended == "done" else "failed", "code": "" if ended == "done" else ended,
                            "unknown": ended == "interrupted"},
            }  # fmt: skip
            await self.ledger.append(AuditEntry(kind="outcome", call=name, at=UnixTime(self.at), facts=told))
        if taken and kept:
            self.rows.append(
                {
                    "channel": receipt.channel, "n": receipt.number, "token": f"{name}.{receipt.index}", "call": name,
                    "tool": "write", "arguments": digest(b"{}"), "record": receipt.index, "leaf": receipt.leaf,
                    "at": self.at, "answer": digest(name.encode()), "status": 200,
                }
            )  # fmt: skip
        return receipt

    async def silence(self, seconds: int) -> None:
        self.at += seconds

    async def beat(self, every: int = 60) -> None:
        heart = Heart(
            every=every, audiences=[DESK], sendings=self.ledger.sendings, origin=ORIGIN, ledger=self.ledger,
            clock=lambda: UnixTime(self.at),
        )  # fmt: skip
        await heart.stop()

    async def compared(self, *, rows: list[Row] | None, start: int, end: int, sendings: list[Sending]) -> None:
        made = account(
            Asked(audience=DESK, channel=CHANNEL, sendings=sendings, rows=rows, now=UnixTime(self.at + 1000))
        )
        span: dict[str, Json] = {"from": start, "to": end}
        await self.ledger.append(reconciled([made], {}, span=span, now=UnixTime(self.at)))


def lived(place: Path, act: Callable[[Life], Awaitable[None]], **asked: Any) -> tuple[Bundle, Rows]:
    rows: Rows = []

    async def then(ledger: SqliteLedger) -> None:
        await act(Life(ledger, rows))

    reader = recorded(place, calls=0, then=then)
    return bundled_from(reader, place / "bundle.zip", **{"start": ("index", 2), "end": None, **asked}), rows


def judged(bundle: Bundle, rows: Rows | None, place: Path, audience: str = DESK) -> Report:
    backends = []
    if rows is not None:
        file = place / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        backends = [read_rows(audience, file)]
    return check(bundle.path, key=bundle.vkey, besides=Besides(backends=backends))


def stated(report: Report) -> Statement:
    assert report.findings == []
    (one,) = report.statements
    return one


async def three(life: Life) -> None:
    for _ in range(3):
        await life.call()


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Rows]:
    return lived(tmp_path_factory.mktemp("honest"), three)


def test_a_backend_that_kept_what_was_sent_and_nothing_else_makes_it_complete(
    honest: tuple[Bundle, Rows], tmp_path: Path
) -> None:
    report = judged(*honest, tmp_path)
    said = stated(report)
    assert (said.complete, said.by, said.grade, said.backend) == (True, "records", "R2", DESK)
    assert (said.start, said.end) == (2, 8)
    assert (said.counts["sendings"], said.counts["rows"], said.counts["answers"]) == (3, 3, 3)
    assert report.verdict == Verdict.verified
    assert f"complete   {DESK}: leaves 2 to 7, at grade R2, by the backend's own record" in report.as_text()
    assert report.as_json()["complete"] == [said.as_json()]


def test_without_the_backends_record_nothing_is_said_of_completeness(
    honest: tuple[Bundle, Rows], tmp_path: Path
) -> None:
    report = judged(honest[0], None, tmp_path)
    said = stated(report)
    assert (said.complete, said.grade, report.verdict) == (False, "", Verdict.verified)
    assert "NOT SHOWN" in report.as_text()


def test_closed_leaves_are_enough_for_what_was_sent_and_not_for_answers(tmp_path: Path) -> None:
    bundle, rows = lived(tmp_path, three, everything=False)
    said = stated(judged(bundle, rows, tmp_path))
    assert (said.complete, said.counts["rows"], said.counts["answers"]) == (True, 3, 0)
    said = stated(judged(bundle, rows[:2], tmp_path))
    assert said.reasons == ["leaf 6: not in the backend's record, and what came of it is not opened"]


def test_nothing_is_said_of_completeness_by_a_bundle_that_does_not_hold(
    honest: tuple[Bundle, Rows], tmp_path: Path
) -> None:
    bundle, rows = honest
    text = bundle.files["leaves.jsonl"].replace(b'"at":3001', b'"at":3000')
    spoiled = packed(tmp_path / "spoiled.zip", {**bundle.files, "leaves.jsonl": text}, honest=True)
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for backends in ([], [read_rows(DESK, file)]):
        report = check(spoiled, key=bundle.vkey, besides=Besides(backends=backends))
        assert report.verdict == Verdict.invalid
        assert not any(each.complete for each in report.statements)
        assert "the bundle itself does not hold" in report.as_text()


CHEATS: list[tuple[str, Callable[[Rows], Any], str]] = [
    ("a row deleted", lambda rows: rows.pop(1), "leaf 4: the gateway has an answer, and the backend's record has no"),
    ("an answer changed", lambda rows: rows[1].update(answer=digest(b"other")), "leaf 4: the backend's record has ano"),
    ("arguments changed", lambda rows: rows[1].update(arguments=digest(b"x")), "another arguments"),
    ("another tool", lambda rows: rows[1].update(tool="drop"), "another tool"),
    ("another leaf", lambda rows: rows[1].update(leaf=digest(b"x")), "another leaf"),
    ("another call", lambda rows: rows[1].update(call="call_x"), "another call"),
    ("another number", lambda rows: rows[1].update(n=9), "another number"),
    ("a row twice", lambda rows: rows.append(dict(rows[1])), "has leaf 4 twice"),
    ("a row of an outcome", lambda rows: rows.append({**rows[1], "record": 5}), "leaf 5 is no intent to"),
]


@pytest.mark.parametrize(("_", "change", "reason"), CHEATS, ids=[name for name, _, _ in CHEATS])
def test_a_backends_record_that_says_otherwise_is_a_reason_against(
    honest: tuple[Bundle, Rows], tmp_path: Path, _: str, change: Callable[[Rows], Any], reason: str
) -> None:
    rows = [dict(row) for row in honest[1]]
    change(rows)
    report = judged(honest[0], rows, tmp_path)
    said = stated(report)
    assert not said.complete
    assert any(reason in each for each in said.reasons), said.reasons
    assert report.verdict == Verdict.incomplete
    assert "NOT SHOWN" in report.as_text()


def test_a_call_off_the_record_within_the_time_of_the_leaves_is_found_wherever_it_says_it_is(tmp_path: Path) -> None:
    async def act(life: Life) -> None:
        await life.call()
        for _ in range(3):
            await life.silence(50)
            await life.call()

    bundle, rows = lived(tmp_path, act)
    stray = {**rows[0], "record": 9999, "at": 3080, "n": 99, "token": "call_x.9999", "call": "call_x"}
    said = stated(judged(bundle, [*rows, stray], tmp_path))
    assert ["call_x" in each for each in said.reasons] == [True]
    for edge in (2990, 3081):
        early = {**stray, "at": edge}
        assert not stated(judged(bundle, [*rows, early], tmp_path)).complete
    later = {**stray, "at": 9000}
    said = stated(judged(bundle, [*rows, later], tmp_path))
    assert (said.complete, said.counts["outside"]) == (True, 1)


def test_a_row_of_a_channel_that_is_none_of_this_logs_is_a_reason_if_it_is_of_the_time(
    honest: tuple[Bundle, Rows], tmp_path: Path
) -> None:
    """Whoever has the gateway's key can sign a token with any channel: that must not take a call out of sight."""
    other = {**honest[1][0], "channel": "f" * 16, "n": 1}
    said = stated(judged(honest[0], [*honest[1], other], tmp_path))
    assert ["none of this log's" in each for each in said.reasons] == [True]
    said = stated(judged(honest[0], [*honest[1], {**other, "at": 100_000}], tmp_path))
    assert (said.complete, said.counts["outside"]) == (True, 1)


def test_rows_given_for_a_backend_that_nothing_was_sent_to_leave_the_other_ones_not_shown(
    honest: tuple[Bundle, Rows], tmp_path: Path
) -> None:
    report = judged(honest[0], [], tmp_path, audience="https://another.example")
    assert {each.backend: each.complete for each in report.statements} == {"": False, "https://another.example": True}
    assert report.verdict == Verdict.verified


@pytest.mark.parametrize(
    ("ended", "taken", "complete"),
    [
        ("upstream_error", True, True), ("upstream_error", False, True), ("not_sent", False, True),
        ("not_sent", True, False), ("interrupted", True, True), ("interrupted", False, True), ("", True, True),
        ("", False, False),
    ],
)  # fmt: skip
def test_every_end_of_a_call_is_settled_by_the_backend_or_a_reason(
    tmp_path: Path, ended: str, taken: bool, complete: bool
) -> None:
    async def act(life: Life) -> None:
        await life.call(ended=ended, taken=taken)

    bundle, rows = lived(tmp_path, act)
    assert stated(judged(bundle, rows, tmp_path)).complete == complete


def test_a_hole_in_the_numbers_is_found_without_opening_anything(tmp_path: Path) -> None:
    async def act(life: Life) -> None:
        await life.call()
        life.ledger._numbers.gave(CHANNEL, 7)
        await life.call()

    bundle, rows = lived(tmp_path, act, everything=False)
    report = judged(bundle, rows, tmp_path)
    assert [(each.code, each.index) for each in report.findings] == [("channel_hole", 4)]
    assert report.verdict == Verdict.invalid
    assert "numbers of this channel are missing" in report.statements[0].reasons[0]


def test_silence_longer_than_two_heartbeats_is_a_reason_unless_the_gateway_said_that_it_ends(tmp_path: Path) -> None:
    async def quiet(life: Life) -> None:
        await life.call()
        await life.silence(200)
        await life.call()

    async def ended(life: Life) -> None:
        await life.call()
        await life.beat()
        await life.silence(100_000)
        await life.call()

    for name, act, complete in (("quiet", quiet, False), ("ended", ended, True)):
        bundle, rows = lived(tmp_path / name, act)
        said = stated(judged(bundle, rows, tmp_path))
        assert said.complete == complete, said.reasons
    bundle, rows = lived(tmp_path / "again", quiet)
    assert any("silence of 201 s before leaf" in each for each in stated(judged(bundle, rows, tmp_path)).reasons)


def comparing(*, bad: bool = False, more: bool = False, numbers: int = 0) -> Callable[[Life], Awaitable[None]]:
    async def act(life: Life) -> None:
        sendings, rows = [], []
        for _ in range(3):
            receipt = await life.call()
            sendings.append(
                Sending(
                    index=receipt.index, leaf=receipt.leaf, call="", channel=CHANNEL, number=receipt.number + numbers,
                    at=UnixTime(life.at), end="done",
                )
            )  # fmt: skip
            rows.append(Row(token=f".{receipt.index}", at=UnixTime(life.at)))
        await life.compared(rows=rows[1:] if bad else rows, start=0, end=8, sendings=sendings)
        if more:
            await life.call()

    return act


def test_a_comparison_on_record_is_told_as_the_gateways_word_and_for_its_leaves_only(tmp_path: Path) -> None:
    bundle, _ = lived(tmp_path, comparing(more=True), everything=False)
    report = judged(bundle, None, tmp_path)
    said = stated(report)
    assert (said.complete, said.by, said.grade, said.start, said.end) == (True, "reconciliation", "R2", 2, 8)
    assert "SO SAYS THE GATEWAY, in leaf 8" in report.as_text()
    assert said.backend == DESK


@pytest.mark.parametrize("spoiled", [comparing(bad=True), comparing(numbers=5)], ids=["bad", "numbers"])
def test_a_comparison_that_found_something_or_is_of_other_numbers_shows_nothing(
    tmp_path: Path, spoiled: Callable[[Life], Awaitable[None]]
) -> None:
    bundle, _ = lived(tmp_path, spoiled)
    assert not stated(judged(bundle, None, tmp_path)).complete


def test_a_comparison_whose_opened_words_were_changed_is_not_believed(tmp_path: Path) -> None:
    bundle, _ = lived(tmp_path, comparing(bad=True))
    text = bundle.files["opened.jsonl"].replace(b'\\"complete\\":false', b'\\"complete\\":true')
    assert text != bundle.files["opened.jsonl"]
    report = check(
        packed(tmp_path / "spoiled.zip", {**bundle.files, "opened.jsonl": text}, honest=True), key=bundle.vkey
    )
    assert report.verdict == Verdict.invalid
    assert not any(each.complete for each in report.statements)


@pytest.mark.parametrize(
    "line", ["", "{", "[]", "{}", '{"channel": 1}', "@extra", "@text", "@number", "@minus", "@true", "@twice"]
)
def test_a_line_that_is_no_row_makes_the_whole_record_unusable(
    honest: tuple[Bundle, Rows], tmp_path: Path, line: str
) -> None:
    row = honest[1][0]
    made = {
        "@extra": {**row, "x": 1}, "@text": {**row, "tool": 1}, "@number": {**row, "n": "1"},
        "@minus": {**row, "n": -1}, "@true": {**row, "at": True},
    }  # fmt: skip
    text = json.dumps(made[line]) if line in made else line
    if line == "@twice":
        text = json.dumps(row)[:-1] + ', "n": 2}'
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{json.dumps(row)}\n{text}\n")
    with pytest.raises(Unusable):
        read_rows(DESK, file)


def test_the_command_takes_backends_and_says_so_in_its_exit_code(
    honest: tuple[Bundle, Rows], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in honest[1]))
    given = [str(honest[0].path), "--key", honest[0].vkey]
    assert main([*given, "--backend", f"{DESK}={file}"]) == Verdict.verified
    assert "by the backend's own record" in capsys.readouterr().out
    file.write_text(json.dumps(honest[1][0]) + "\n")
    assert main([*given, "--backend", f"{DESK}={file}", "--json"]) == Verdict.incomplete
    assert json.loads(capsys.readouterr().out)["exit"] == 7
    for bad in ("nothing", f"{DESK}=", f"={file}", f"{DESK}={tmp_path / 'none'}"):
        assert main([*given, "--backend", bad]) == Verdict.unusable
    assert main([*given, *(["--backend", f"{DESK}={file}"] * 2)]) == Verdict.unusable


def test_of_very_many_calls_that_do_not_agree_a_hundred_are_kept_and_the_rest_counted() -> None:
    complete = Completeness(ORIGIN, 0, 500, [BackendRecord(audience=DESK, digest="", rows=[])])
    for index in range(0, 500, 2):
        intent = Leaf("intent", "c", 1, -1, (), [], CHANNEL, index // 2 + 1)
        complete.take(index, intent, b"", None, sound=True)
        complete.take(index + 1, Leaf("outcome", "c", 1, index, (), []), b"", None, sound=True)
    (said,) = complete.statements(500)
    assert (len(said.reasons), said.more) == (100, 150)
    assert "leaf 198:" in said.reasons[99]
