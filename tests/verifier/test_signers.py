"""Whose signatures a bundle's newest head needs: by a policy file, whether it names the log or only witnesses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from onbehalf.doors.ledger_keys import open_ledger_keys
from onbehalf.errors import LedgerUnavailable
from onbehalf.explain import quorum
from onbehalf.verifier.check import check
from onbehalf.verifier.command import main
from onbehalf.verifier.policy import read_policy
from onbehalf.verifier.report import Report, Verdict
from verifier.bundle_house import ORIGIN, Bundle, bundled_from, packed, recorded
from witness_house import Told, policy_text, witnessing


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bundle, list[Told], tuple[str, ...]]]:
    """A bundle that two of three witnesses cosigned, the witnesses, and the log's vkeys."""
    place = tmp_path_factory.mktemp("signers")
    reader = recorded(place)
    keys = open_ledger_keys(place / "keys", origin=ORIGIN).vkeys
    with ExitStack() as stack:
        three = [stack.enter_context(witnessing(place / name, log=keys[0], name=f"{name}.example/1")) for name in "abc"]
        urls = tuple(each.url for each in three[:2])
        yield bundled_from(reader, place / "b.zip", start=("index", 0), end=None, witnesses=urls), three, keys


def policy(witnesses: list[Told], quorum: str, *logs: str) -> str:
    named = [(name, each.vkey, "") for name, each in zip("abc", witnesses, strict=True)]
    return "".join(f"log {each}\n" for each in logs) + policy_text(*named, quorum=quorum)


def judged(bundle: Bundle, text: str, *, key: str = "") -> Report:
    return check(bundle.path, key=key, policy=read_policy(text.encode()))


def test_enough_cosignatures_are_enough_and_one_too_few_is_unpinned(
    made: tuple[Bundle, list[Told], tuple[str, ...]],
) -> None:
    bundle, witnesses, keys = made
    for count, verdict in (("any", Verdict.verified), ("2", Verdict.verified), ("3", Verdict.unpinned)):
        report = judged(bundle, policy(witnesses, count, keys[0]))
        assert (report.verdict, report.findings) == (verdict, []), count
        assert report.quorum is not None
        assert [*report.quorum.cosigned] == ["a", "b"]
        assert report.quorum.met == (verdict == Verdict.verified)
        assert ("IS NOT ENOUGH" in report.as_text()) == (verdict == Verdict.unpinned)
        assert report.as_json()["quorum"] == {
            "name": "enough", "met": report.quorum.met, "cosigned": report.quorum.cosigned,
        }  # fmt: skip


def test_a_policy_that_names_no_log_leaves_the_key_to_be_given(
    made: tuple[Bundle, list[Told], tuple[str, ...]],
) -> None:
    bundle, witnesses, keys = made
    assert judged(bundle, policy(witnesses, "2")).verdict == Verdict.unpinned
    assert judged(bundle, policy(witnesses, "2"), key=keys[0]).verdict == Verdict.verified


def test_a_log_that_the_policy_does_not_list_is_not_relied_on(
    made: tuple[Bundle, list[Told], tuple[str, ...]], tmp_path: Path
) -> None:
    bundle, witnesses, keys = made
    stranger = open_ledger_keys(tmp_path / "a", origin="other.example/log").vkeys[0]
    same_name = open_ledger_keys(tmp_path / "b", origin=ORIGIN).vkeys[0]
    for logs, key in (((stranger,), ""), ((stranger,), keys[0]), ((same_name,), ""), ((same_name,), keys[0])):
        report = judged(bundle, policy(witnesses, "2", *logs), key=key)
        assert report.verdict == Verdict.invalid, (logs, key)
        assert {each.code for each in report.findings} & {"log_unlisted", "key_other"}
    assert judged(bundle, policy(witnesses, "2", stranger, keys[0])).verdict == Verdict.verified
    assert judged(bundle, policy(witnesses, "2", same_name, keys[0])).verdict == Verdict.verified


def test_a_policy_that_lists_the_logs_second_key_demands_its_signature(
    made: tuple[Bundle, list[Told], tuple[str, ...]],
) -> None:
    bundle, witnesses, keys = made
    for logs in (keys, keys[1:]):
        report = judged(bundle, policy(witnesses, "2", *logs))
        assert (report.verdict, report.own_signature, report.findings) == (Verdict.unpinned, False, [])


def test_a_spoiled_cosignature_is_invalid_though_others_are_enough(
    made: tuple[Bundle, list[Told], tuple[str, ...]], tmp_path: Path
) -> None:
    bundle, witnesses, keys = made
    lines = bundle.files["checkpoint"].decode().splitlines(keepends=True)
    lines[-1] = lines[-1][:200] + ("A" if lines[-1][200] != "A" else "B") + lines[-1][201:]
    spoiled = packed(tmp_path / "x.zip", {**bundle.files, "checkpoint": "".join(lines).encode()}, honest=True)
    report = check(spoiled, policy=read_policy(policy(witnesses, "any", keys[0]).encode()))
    assert [each.code for each in report.findings] == ["cosignature_invalid"]


def test_the_command_takes_a_policy_file_and_says_in_which_line_it_is_none(
    made: tuple[Bundle, list[Told], tuple[str, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, witnesses, keys = made
    place = tmp_path / "p"
    place.write_text(policy(witnesses, "2", keys[0]))
    assert main([str(bundle.path), "--policy", str(place), "--json"]) == Verdict.verified
    assert json.loads(capsys.readouterr().out)["quorum"]["met"] is True
    place.write_text("quorum none\nquorum none\n")
    assert main([str(bundle.path), "--policy", str(place)]) == Verdict.unusable
    assert "line 2" in capsys.readouterr().err
    assert main([str(bundle.path), "--policy", str(tmp_path / "none")]) == Verdict.unusable


def test_an_export_asks_the_policys_witnesses_and_takes_only_what_their_keys_signed(
    made: tuple[Bundle, list[Told], tuple[str, ...]], tmp_path: Path
) -> None:
    _, witnesses, _ = made
    reader = recorded(tmp_path, calls=2)
    log = reader.verifier.vkey
    with (
        witnessing(tmp_path / "a", log=log, name="a.example/1") as a,
        witnessing(tmp_path / "b", log=log, name="b.example/1") as b,
    ):
        # the second is at another witness's address: it answers, and with another key
        lines = [("a", a.vkey, a.url), ("b", witnesses[1].vkey, b.url), ("c", witnesses[2].vkey, "")]
        one = quorum.parse(policy_text(*lines, quorum="any").encode())
        bundle = bundled_from(reader, tmp_path / "one.zip", start=("index", 0), end=None, policy=one)
        assert bundle.files["checkpoint"].decode().count("\n— ") == 2
        reader = recorded(tmp_path, calls=0)
        two = quorum.parse(policy_text(*lines, quorum="2").encode())
        with pytest.raises(LedgerUnavailable, match="another key") as failed:
            bundled_from(reader, tmp_path / "two.zip", start=("index", 0), end=None, policy=two)
        assert "does not say where it is" in failed.value.message
        assert not (tmp_path / "two.zip").exists()
        reader.close()
