"""`audit erase` and `audit hold`, where no gateway runs and while one serves."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from company import Company, company, said, wait_for
from onbehalf.model import Json
from onbehalf.verifier.check import check
from onbehalf.verifier.report import Verdict

BASIS = ("--basis", "GDPR art. 17(1)(a)")


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Company]:
    """Alice and Bob list notes, and somebody strange is refused."""
    with company(tmp_path / "it") as made:
        made.notes_listed("alice-at-login", "bob-at-login", "nobody-at-login")
        yield made


def listed(made: Company) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = made.audit("list", "-n", "1000")["records"]
    return records


def people(made: Company) -> list[str]:
    """Who is told of on record, each once."""
    return sorted({each["person"] for each in listed(made) if each["person"]})


def test_a_persons_records_are_erased_and_everything_else_holds(recorded: Company, tmp_path: Path) -> None:
    assert people(recorded) == ["acme/alice", "acme/bob", "nobody-at-login"]
    answer = said("audit", "erase", "-c", recorded.config, "--subject", "acme/alice", *BASIS, "--yes")
    assert answer.code == 0, answer.err
    assert answer.out.startswith(
        "2 payloads of acme/alice, in records 1 to 2.\n2 payloads are erased. Record 6 says so"
    )
    assert people(recorded) == ["acme/bob", "nobody-at-login"]
    report = recorded.audit("verify")
    assert (report["ok"], report["erased"], report["findings"]) == (True, 2, [])
    assert [(each["leaf"], each["count"]) for each in report["erasures"]] == [(6, 2)]
    assert "record 6: 2 payloads of one person were erased" in said("audit", "verify", "-c", recorded.config).out
    assert said("audit", "export", "-c", recorded.config, "--open", "all", tmp_path / "all.zip").code == 0
    key = (recorded.directory / "data" / "keys" / "log.pub").read_text().strip()
    assert check(tmp_path / "all.zip", key=key).verdict is Verdict.erased


def test_an_erased_call_is_explained_by_what_is_left_of_it(recorded: Company) -> None:
    call = next(each["call"] for each in listed(recorded) if each["person"] == "acme/alice")
    assert said("audit", "erase", "-c", recorded.config, "--subject", "acme/alice", *BASIS, "--yes").code == 0
    story = said("explain", call, "-c", recorded.config).out
    assert "What this intent said was erased on" in story
    assert "as record 6 says; its leaf still proves that it was recorded." in story
    assert "under way" not in story
    assert json.loads(said("explain", call, "-c", recorded.config, "--json").out)["ending"] == "erased"


def test_nothing_is_erased_without_a_yes(recorded: Company) -> None:
    erase = ("audit", "erase", "-c", recorded.config, "--subject", "acme/alice", *BASIS)
    with mock.patch("sys.stdin", io.StringIO("n\n")):
        answer = said(*erase)
    assert (answer.code, "2 payloads of acme/alice" in answer.out) == (1, True)
    assert "acme/alice" in people(recorded)
    with mock.patch("sys.stdin", io.StringIO("y\n")):
        assert said(*erase).code == 0
    assert "acme/alice" not in people(recorded)


def test_a_login_that_the_directory_does_not_know_is_erased_by_its_name(recorded: Company) -> None:
    login = f"{recorded.issuer.url} nobody-at-login"
    answer = said("audit", "erase", "-c", recorded.config, "--login", login, *BASIS, "--yes")
    assert answer.code == 0, answer.err
    assert people(recorded) == ["acme/alice", "acme/bob"]


def test_what_somebody_did_before_the_directory_knew_them_is_erased_with_the_rest(recorded: Company) -> None:
    carol = (
        f"      carol: {{name: Carol Example, logins: [{{issuer: {recorded.issuer.url}, subject: nobody-at-login}}]}}"
    )
    recorded.edit("      bob:", f"{carol}\n      bob:", name="people.yaml")
    recorded.notes_listed("nobody-at-login")
    assert "acme/carol" in people(recorded)
    answer = said("audit", "erase", "-c", recorded.config, "--subject", "acme/carol", *BASIS, "--yes")
    assert answer.code == 0, answer.err
    assert people(recorded) == ["acme/alice", "acme/bob"]


def test_a_hold_blocks_erasure_until_it_is_lifted(recorded: Company) -> None:
    erase = ("audit", "erase", "-c", recorded.config, "--subject", "acme/alice", *BASIS, "--yes")
    made = said("audit", "hold", "add", "acme/alice", "-c", recorded.config, "--reason", "case 4711")
    assert (made.code, made.out) == (0, "Hold 1 on acme/alice stands. Record 6 says so.\n")
    assert [(each["whom"], each["reason"]) for each in recorded.audit("hold", "list")["holds"]] == [
        ("acme/alice", "case 4711")
    ]
    answer = said(*erase)
    assert (answer.code, "a legal hold stands" in answer.err) == (2, True)
    assert "acme/alice" in people(recorded)
    lifted = said("audit", "hold", "lift", "1", "-c", recorded.config, "--reason", "closed")
    assert (lifted.code, lifted.out) == (0, "The hold on acme/alice is lifted. Record 7 says so.\n")
    assert said("audit", "hold", "list", "-c", recorded.config).out == "No legal hold stands.\n"
    assert said(*erase).code == 0
    assert "acme/alice" not in people(recorded)
    assert [each["kind"] for each in listed(recorded)][-3:] == ["legal_hold", "legal_hold", "erased"]


def test_a_machine_is_told_as_json(recorded: Company) -> None:
    found = recorded.audit("erase", "--subject", "acme/bob", *BASIS, "--yes")["erased"]
    assert (found["leaf"], found["count"], found["first"], found["last"]) == (6, 1, 3, 3)


def test_a_gateway_that_serves_erases_while_calls_go_on(tmp_path: Path) -> None:
    with company(tmp_path / "it") as made, made.serving():
        failed: list[Json] = []
        stop = threading.Event()
        made.call("notes_list")
        first = next(each["call"] for each in listed(made) if each["person"] == "acme/alice")

        def calling(subject: str) -> None:
            token = made.token(subject)
            while not stop.is_set():
                result = made.call("notes_list", token=token)
                if "onbehalf/receipt" not in result.get("_meta", {}):  # allowed or denied, it is on record
                    failed.append(result)

        threads = [threading.Thread(target=calling, args=(each,)) for each in ("alice-at-login", "bob-at-login")]
        for each in threads:
            each.start()
        wait_for(lambda: len(listed(made)) > 20, what="some calls")
        answer = said("audit", "erase", "-c", made.config, "--subject", "acme/alice", *BASIS, "--yes")
        erased = next(each["index"] for each in listed(made) if each["kind"] == "erased")
        wait_for(lambda: listed(made)[-1]["index"] > erased + 20, what="more calls")
        stop.set()
        for each in threads:
            each.join()
        assert answer.code == 0, answer.err
        assert failed == []
        assert "erased on" in said("explain", first, "-c", made.config).out
        after = [each for each in listed(made) if each["index"] > erased]
        assert {"acme/alice", "acme/bob"} <= {each["person"] for each in after}
        bobs = [each for each in listed(made) if each["person"] == "acme/bob" and each["index"] < erased]
        assert bobs
        report = made.audit("verify")
        assert (report["ok"], report["findings"]) == (True, [])
        assert report["erased"] == sum(each["count"] for each in report["erasures"]) > 0
        assert said("audit", "hold", "add", "acme/bob", "-c", made.config, "--reason", "x").code == 0


def test_a_gateway_that_serves_deletes_what_is_too_old(tmp_path: Path) -> None:
    with company(tmp_path / "it") as made:
        with mock.patch("onbehalf.app.now", return_value=int(time.time()) - 9 * 86_400):
            made.notes_listed("bob-at-login", ago=9 * 86_400)
        with made.serving():
            made.call("notes_list")
            before = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 3 * 86_400))
            answer = said("audit", "erase", "-c", made.config, "--before", before, *BASIS, "--yes")
            assert answer.code == 0, answer.err
            assert f"payloads from before {before}, in records 0 to " in answer.out
            assert made.call("notes_list")["structuredContent"]
            report = made.audit("verify")
            assert (report["ok"], report["erased"]) == (True, report["erasures"][0]["count"])
            assert people(made) == ["acme/alice"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("erase", *BASIS), "say whose records"),
        (("erase", "--subject", "acme/alice", "--before", "2020-01-01", *BASIS), "say whose records"),
        (("erase", "--subject", "alice", *BASIS), "names nobody"),
        (("erase", "--subject", "acme/alice"), "--basis has"),
        (("erase", "--subject", "acme/alice", "--basis", "x" * 501), "--basis has"),
        (("erase", "--subject", "acme/zoe", *BASIS, "--yes"), "there is no payload of acme/zoe"),
        (("erase", "--before", "soon", *BASIS), "is no time"),
        (("erase", "--before", "2999-01-01", *BASIS), "is not a day ago"),
        (("erase", "--before", "2001-01-01", *BASIS, "--yes"), "there is no payload from before"),
        (("erase", "--login", "alice", *BASIS), "is no login"),
        (("erase", "--subject", "acme/alice", *BASIS, "--json"), "add --yes"),
        (("hold", "add", "alice", "--reason", "x"), "names nobody"),
        (("hold", "add", "acme/alice"), "--reason has"),
        (("hold", "add", "acme/al\x1bice", "--reason", "x"), "names nobody"),
        (("hold", "add", "acme/alice", "--reason", "two\nlines"), "--reason has"),
        (("hold", "lift", "7", "--reason", "x"), "there is no hold 7"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_do(
    recorded: Company, arguments: tuple[str, ...], told: str
) -> None:
    answer = said("audit", *arguments, "-c", recorded.config)
    assert answer.code == 2, answer.out
    assert told in answer.err + answer.out
    assert "what to do" in answer.err
    assert people(recorded) == ["acme/alice", "acme/bob", "nobody-at-login"]
