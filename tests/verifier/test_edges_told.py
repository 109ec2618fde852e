"""What the verifier says and the number it ends with: the worst that is so, told once and in bounds."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onbehalf.verifier import command
from onbehalf.verifier.complete import Statement
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.report import Quorum, Report, Verdict

VKEY = "log.example/1+1a2b3c4d+AQ"


def report(**changed: Any) -> Report:
    """Of a bundle in which all holds."""
    good: dict[str, Any] = {
        "origin": "log.example", "key": VKEY, "pinned": True, "size": 9, "start": 2, "end": 7,
        "summary": {"open": [], "unknown": [], "kinds": {"start": 1, "intent": 4}, "first_at": 0, "last_at": 60,
                    "longest_gap": {"seconds": 50, "before": 3}},
    }  # fmt: skip
    made = Report(**{**good, **{name: value for name, value in changed.items() if name != "summary"}})
    made.summary |= changed.get("summary", {})
    return made


def statement(**changed: Any) -> Statement:
    said: dict[str, Any] = {
        "backend": "https://b", "channel": "c1", "grade": "strong", "by": "records", "start": 2, "end": 7,
        "reasons": [], "more": 0, "counts": {"leaf": 4, "rows_seen": 3},
    }  # fmt: skip
    return Statement(**{**said, **changed})


WORST: list[tuple[Verdict, dict[str, Any]]] = [
    (Verdict.diverged, {"diverged": True}),
    (Verdict.invalid, {"findings": ["x"]}),
    (Verdict.unpinned, {"pinned": False}),
    (Verdict.unpinned, {"witnesses": {"w": 5, "v": None}}),
    (Verdict.unpinned, {"own_signature": False}),
    (Verdict.unpinned, {"quorum": Quorum(name="q", met=False, cosigned={})}),
    (Verdict.incomplete, {"statements": [statement(reasons=["r"])]}),
    (Verdict.erased, {"erased": 1}),
    (Verdict.unknown, {"summary": {"unknown": [4]}}),
    (Verdict.unknown, {"summary": {"open": [4]}}),
]


@pytest.mark.parametrize("place", range(len(WORST)))
def test_the_verdict_is_the_worst_that_is_so(place: int) -> None:
    verdict, alone = WORST[place]
    assert report(**alone).verdict is verdict
    together: dict[str, Any] = {}
    for _, each in reversed(WORST[place:]):
        together |= each
    assert report(**together).verdict is verdict


def test_what_is_no_worse_is_verified_and_each_verdict_has_its_number() -> None:
    quorum = Quorum(name="q", met=True, cosigned={"w": 0})
    for changed in ({}, {"witnesses": {"w": 0}, "own_signature": True, "quorum": quorum}):
        assert report(**changed).verdict is Verdict.verified
    assert (
        report(statements=[statement(by="reconciliation", reasons=["r"]), statement(by=""), statement()]).verdict
        is Verdict.verified
    )
    assert [each.value for each in Verdict] == [0, 1, 2, 3, 4, 5, 6, 7]
    names = "verified invalid unusable diverged unpinned erased unknown incomplete"
    assert [each.name for each in Verdict] == names.split()
    made = report(erased=1)
    assert (made.as_json()["verdict"], made.as_json()["exit"]) == ("erased", 5)
    assert made.as_text().startswith("ERASED (5): Everything that is here holds")


def test_a_thousand_findings_are_kept_and_twenty_are_shown() -> None:
    for count, listed, more in ((1000, 1000, 0), (1003, 1000, 3)):
        made = report()
        for number in range(count):
            made.found("code", f"place{number}", "text", index=number)
        assert (len(made.findings), made.more) == (listed, more)
        said = made.as_json()
        assert isinstance(said["findings"], list)
        assert (len(said["findings"]), said["findings_not_listed"]) == (listed, more)
        assert said["findings"][3] == {"code": "code", "place": "place3", "index": 3, "text": "text"}
        text = made.as_text()
        assert "place19 leaf 19: text (code)" in text
        assert "place20" not in text
        assert f"… and {count - 20} more (--json lists up to 1000)" in text


def test_up_to_twenty_findings_have_no_more_behind_them() -> None:
    made = report()
    for number in range(20):
        made.found("code", f"place{number}", "text")
    assert "more (--json" not in made.as_text()
    assert "  place0: text (code)" in made.as_text().splitlines()
    made.found("code", "first", "text", index=0)
    assert "… and 1 more" in made.as_text()
    one = report()
    one.found("code", "leaves.jsonl", "text", index=0)
    assert "leaves.jsonl leaf 0: text (code)" in one.as_text()


def lines(made: Report) -> dict[str, str]:
    """What the text says, by its first word."""
    return {line[:10].strip(): line[11:] for line in made.as_text().splitlines() if line and line[0] != " "}


def test_a_report_for_people_says_what_was_seen() -> None:
    said = lines(report(asked={"from": "a", "to": "b"}, answered_before=3, opened=5, erased=1, receipts=2))
    assert said["log"] == "log.example, 9 leaves under the head"
    assert said["key"] == f"{VKEY}, which you gave"
    assert said["leaves"] == "2 to 6"
    assert said["asked for"] == "from a, to b"
    assert said["kinds"] == "4 intent, 1 start"
    assert said["time"] == "1970-01-01 00:00:00 UTC to 1970-01-01 00:01:00 UTC, as the gateway says"
    assert said["silence"] == "at most 50 s, before leaf 3"
    assert said["before"] == "3 outcomes of intents that lie before this range"
    assert said["opened"] == "5 facts, 1 leaves erased, 2 backend receipts"
    assert said["policies"] == "0 bundles that decisions name are here"
    for name in ("open", "unknown", "sample", "replayed", "tokens", "ML-DSA-44", "policy", "not checke"):
        assert name not in said


def test_a_report_says_less_where_there_is_less() -> None:
    made = report(pinned=False, start=7, end=7)
    made.summary = {"kinds": {}, "open": [], "unknown": []}
    said = lines(made)
    assert said["leaves"] == "none"
    assert said["kinds"] == "none"
    assert said["key"].endswith("TAKEN FROM THE BUNDLE: compare it with one you got elsewhere")
    assert not {"asked for", "time", "silence", "before"} & {*said}
    assert lines(report(start=6, end=7))["leaves"] == "6 to 6"
    for odd in ({"first_at": None}, {"last_at": None}):
        assert "time" not in lines(report(summary=odd))


def test_calls_without_a_known_end_are_listed_up_to_twenty() -> None:
    for count, end in ((20, "19"), (21, "19 …")):
        said = lines(report(summary={"open": [*range(count)], "unknown": [*range(count)]}))
        listed = ", ".join(map(str, range(20)))
        assert said["open"] == f"calls without outcome in this range: intents {listed}{end[2:]}"
        assert said["unknown"] == f"calls of unknown end: intents {listed}{end[2:]}"


def test_who_signed_and_who_did_not_is_said() -> None:
    made = report(
        heads=["h"], witnesses={"w": 60, "v": None, "far": 10**30}, own_signature=True, others=("x", "y"),
        quorum=Quorum(name="q", met=True, cosigned={"w": 60}),
    )  # fmt: skip
    text = made.as_text()
    for each in (
        "head       h", "witness    w: cosigned the newest head 1970-01-01 00:01:00 UTC",
        "witness    v: DID NOT COSIGN",
        f"witness    far: cosigned the newest head {10**30} s", "ML-DSA-44  signed by the log too",
        "policy     cosigned by w 1970-01-01 00:01:00 UTC: is enough for the quorum `q`",
        "not checked: signatures by x, y",
    ):  # fmt: skip
        assert each in text.splitlines(), each
    made = report(own_signature=False, quorum=Quorum(name="q", met=False, cosigned={}))
    assert "ML-DSA-44  NOT SIGNED BY THE LOG" in made.as_text()
    assert "policy     cosigned by nobody: IS NOT ENOUGH for the quorum `q`" in made.as_text()
    said = made.as_json()
    assert (said["quorum"], said["log_ml_dsa_44"]) == ({"name": "q", "met": False, "cosigned": {}}, False)
    assert (report().as_json()["quorum"], report().as_json()["log_ml_dsa_44"]) == (None, None)


def test_statements_of_completeness_say_by_whom_and_of_what() -> None:
    def told(**changed: Any) -> list[str]:
        text = report(statements=[statement(**changed)]).as_text().splitlines()
        at = next(number for number, line in enumerate(text) if line.startswith("complete"))
        return [text[at], *(line for line in text[at + 1 :] if line.startswith("           "))]

    assert told() == [
        "complete   https://b: leaves 2 to 6, at grade strong, by the backend's own record (4 leaf, 3 rows seen)"
    ]
    assert told(by="reconciliation", backend="", end=2) == [
        "complete   channel c1: no leaf, at grade strong: SO SAYS THE GATEWAY, in leaf 4"
    ]
    for count, more, hidden in ((1, 0, 0), (20, 0, 0), (21, 0, 1), (20, 2, 2), (25, 3, 8)):
        said = told(reasons=[f"r{number}" for number in range(count)], more=more)
        assert said[0] == "complete   https://b: NOT SHOWN for leaves 2 to 6"
        shown = [f"           r{number}" for number in range(min(count, 20))]
        assert said[1:] == [*shown, *([f"           … and {hidden} more (--json)"] if hidden else [])]


def erasure(**changed: Any) -> dict[str, object]:
    return {"leaf": 4, "at": 60, "here": 2, "scope": None, **changed}


def test_erasures_are_told_with_their_leaf_time_and_scope() -> None:
    scope = {"count": 3, "first": 1, "last": 9, "before": 0, "keys": 2}
    for changed, said in (
        ({}, "2 leaves here, 1970-01-01 00:01:00 UTC, by leaf 4"),
        ({"leaf": None}, "2 leaves here, by no leaf that the bundle names"),
        ({"at": None}, "2 leaves here, by leaf 4, which lies outside of the range"),
        ({"scope": scope}, "2 leaves here, 1970-01-01 00:01:00 UTC, by leaf 4, which tells of 3 between 1 and 9"
         " (2 keys)"),
        (
            {"scope": {**scope, "before": 60}},
            "2 leaves here, 1970-01-01 00:01:00 UTC, by leaf 4, which tells of 3 between 1 and 9"
            " (before 1970-01-01 00:01:00 UTC)",
        ),
    ):  # fmt: skip
        assert lines(report(erasures=[erasure(**changed)]))["erased"] == said
    assert report(erasures=[erasure()] * 21).as_text().count("\nerased ") == 20


def test_samples_replays_tokens_and_policies_are_told() -> None:
    replay: dict[str, object] = {"same": 0, "differs": 0, "no_inputs": 0, "engine": "e"}
    tokens = {"given": 0, "off_record": 2}
    said = lines(report(sampled=(3, 41), asked={"seed": "w"}, replay=replay, call_tokens=tokens))
    assert said["sample"] == "3 of 41 calls, chosen by the seed; each is opened in full"
    assert said["replayed"] == "0 same, 0 differs, engine e"
    assert said["tokens"] == "0 given, 2 off record"
    assert "by the head and its cosignatures" in lines(report(sampled=(3, 41)))["sample"]
    made = report(sampled=(3, 41))
    made.found("c", "p", "t")
    assert lines(made)["sample"] == "see above"
    assert made.as_json()["sample"] == {"calls": 3, "of": 41}
    assert report().as_json()["sample"] is None
    made = report(policies={"here": True, **{f"p{number:02}": False for number in range(21)}})
    assert lines(made)["policies"] == "1 bundles that decisions name are here"
    assert "           not here: p19" in made.as_text().splitlines()
    assert "p20" not in made.as_text()


def test_what_a_terminal_would_obey_is_not_in_a_text() -> None:
    text = report(origin="a\x1b[2J\u202eb", heads=["x\ny"]).as_text()
    assert "a�[2J�b" in text
    assert "x�y" in text
    assert text.splitlines()[-1].startswith(("head", "policies"))


# --- the command ---


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The command with a check that keeps what it was given, and answers `report`, or raises it."""
    held: dict[str, Any] = {"report": report()}

    def check(bundle: Path, **named: Any) -> Report:
        held.update(named, bundle=bundle)
        if isinstance(held["report"], Exception):
            raise held["report"]
        made = held["report"]
        assert isinstance(made, Report)
        return made

    monkeypatch.setattr(command, "check", check)
    return held


def test_the_command_hands_on_what_it_was_given_and_ends_with_the_verdict(
    checked: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kept").write_bytes(b"note")
    (tmp_path / "w").write_bytes(b"w+1+2\n")
    given = [
        "b.zip",
        "--key",
        "k",
        "--kept",
        str(tmp_path / "kept"),
        "--witness",
        "v+1+2",
        "--witness",
        str(tmp_path / "w"),
    ]
    assert command.main([*given, "--max-bytes", "77"]) == 0
    assert (checked["bundle"], checked["key"], checked["kept"]) == (Path("b.zip"), "k", b"note")
    assert (checked["witnesses"], checked["policy"], checked["max_bytes"]) == (["v+1+2", "w+1+2\n"], None, 77)
    besides = checked["besides"]
    assert (besides.replay, besides.tokens, besides.backends) == (False, None, [])
    out, err = capsys.readouterr()
    assert (out.splitlines()[0][:12], err) == ("VERIFIED (0)", "")
    checked["report"] = report(diverged=True)
    assert command.main(["b.zip", "--replay", "--json"]) == 3
    assert (checked["key"], checked["kept"], checked["besides"].replay) == ("", b"", True)
    assert json.loads(capsys.readouterr().out)["exit"] == 3


def test_without_a_key_it_warns_beside_the_report(checked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    checked["report"] = report(pinned=False)
    assert command.main(["b.zip", "--json"]) == 4
    out, err = capsys.readouterr()
    assert json.loads(out)["verdict"] == "unpinned"
    assert err.startswith("WARNING: no --key was given")


def test_what_cannot_be_judged_ends_with_2_and_says_so_on_one_line(
    checked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    checked["report"] = Unusable("it\x1b is none")
    assert command.main(["b.zip"]) == 2
    assert capsys.readouterr() == ("", "UNUSABLE (2): it? is none\n")
    assert command.main(["b.zip", "--json"]) == 2
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == ({"verdict": "unusable", "exit": 2, "text": "it? is none"}, "")


def test_a_small_file_has_1_to_262144_bytes(checked: dict[str, Any], tmp_path: Path) -> None:
    for size, code in ((0, 2), (1, 0), (262_144, 0), (262_145, 2)):
        (tmp_path / "key").write_bytes(b"k" * size)
        assert command.main(["b.zip", "--key-file", str(tmp_path / "key")]) == code
    assert checked["key"] == "k" * 262_144
    assert command.main(["b.zip", "--key-file", str(tmp_path / "nothing")]) == 2
    assert command.main(["b.zip", "--key", "k", "--key-file", str(tmp_path / "nothing")]) == 0


def test_a_backends_record_is_given_as_audience_and_file(
    checked: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows").write_bytes(b"")
    assert command.main(["b.zip", "--backend", f"https://b?x=1={tmp_path / 'rows'}"]) == 0
    [record] = checked["besides"].backends
    assert record.audience == "https://b?x=1"
    capsys.readouterr()
    for bad in ("https://b", "=rows", "https://b=", "="):
        assert command.main(["b.zip", "--backend", bad]) == 2
        assert "is no audience and file" in capsys.readouterr().err


@pytest.mark.parametrize(("does", "code"), [(lambda _: 6, 6), (lambda _: _gone(), 2)], ids=["ends", "pipe gone"])
def test_the_process_ends_with_the_code(
    monkeypatch: pytest.MonkeyPatch, does: Callable[[list[str]], int], code: int
) -> None:
    said: list[list[str]] = []

    def main(arguments: list[str]) -> int:
        said.append(arguments)
        return does(arguments)

    monkeypatch.setattr(command, "main", main)
    monkeypatch.setattr(sys, "argv", ["onbehalf-verify", "b.zip"])
    with pytest.raises(SystemExit) as ended:
        command.entry()
    assert (ended.value.code, said) == (code, [["b.zip"]])


def test_a_letter_that_the_terminal_cannot_show_is_spelled_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii", write_through=True))
    monkeypatch.setattr(command, "main", lambda _: sys.stdout.write("é\n"))
    with pytest.raises(SystemExit):
        command.entry()
    assert shown.getvalue() == b"\\xe9\n"


def _gone() -> int:
    raise BrokenPipeError
