"""An auditor makes the decisions of a bundle again: the same, or it is found; what cannot be is counted and told."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
import sys
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cedarpy
import pytest

from cli.test_policy_replay import lie
from company import Company, company, said
from onbehalf.verifier.command import main
from onbehalf.verifier.policies import WALLS, Policies, PolicyFault
from verifier.bundle_house import packed


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    """Alice lists notes and writes, Bob is denied; all under one gateway."""
    with company(tmp_path_factory.mktemp("verified") / "it") as made:
        made.asked(
            ("alice-at-login", "notes_list", {}),
            ("alice-at-login", "desk_write", {"word": "é"}),
            ("bob-at-login", "desk_write", {"word": "é"}),
        )
        yield made


@pytest.fixture
def copied(recorded: Company, tmp_path: Path) -> Company:
    return recorded.copied(tmp_path / "copy")


def exported(made: Company, out: Path, *more: str) -> Path:
    told = said("audit", "export", "-c", made.config, *(more or ("--open", "all")), out)
    assert told.code == 0, told.err + told.out
    return out


def verified(made: Company, path: Path, *more: str) -> tuple[int, dict[str, Any]]:
    out, key = io.StringIO(), str(made.directory / "data" / "keys" / "log.pub")
    with contextlib.redirect_stdout(out):
        code = main([str(path), "--key-file", key, "--replay", "--json", *more])
    return code, json.loads(out.getvalue())


def test_every_decision_of_a_whole_bundle_comes_out_the_same(recorded: Company, tmp_path: Path) -> None:
    path = exported(recorded, tmp_path / "all.zip")
    code, report = verified(recorded, path)
    assert (code, report["findings"]) == (0, [])
    counted = {name: count for name, count in report["replay"].items() if count and isinstance(count, int)}
    assert counted == {"same": 3}
    assert report["replay"]["engine"].startswith("cedarpy ")
    assert report["replay"]["recorded_engines"] == {report["replay"]["engine"]: 3}
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main([str(path), "--key-file", str(recorded.directory / "data/keys/log.pub"), "--replay"])
    assert "replayed   3 same, 0 differs, engine cedarpy" in out.getvalue()


def test_without_being_asked_nothing_is_made_again(recorded: Company, tmp_path: Path) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        main([str(exported(recorded, tmp_path / "all.zip")), "--json"])
    assert json.loads(out.getvalue())["replay"] is None


def test_without_the_engine_it_is_said_what_to_install(
    recorded: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = exported(recorded, tmp_path / "all.zip")
    monkeypatch.setitem(sys.modules, "cedarpy", None)
    code, told = verified(recorded, path)
    assert (code, told["verdict"]) == (2, "unusable")
    assert "pip install 'onbehalf-gateway[replay]'" in told["text"]


def test_what_was_not_opened_is_not_made_again(recorded: Company, tmp_path: Path) -> None:
    code, report = verified(recorded, exported(recorded, tmp_path / "closed.zip", "--open", "none"))
    assert (code, report["replay"]["not_opened"], report["replay"]["same"]) == (0, 3, 0)
    code, report = verified(recorded, exported(recorded, tmp_path / "some.zip", "--open", "decision,question"))
    assert (code, report["replay"]["same"]) == (0, 3)
    code, report = verified(recorded, exported(recorded, tmp_path / "half.zip", "--open", "decision"))
    assert (code, report["replay"]["not_opened"]) == (0, 3)


def test_an_erased_payload_has_no_inputs_any_more(copied: Company, tmp_path: Path) -> None:
    with closing(sqlite3.connect(copied.ledger)) as base:
        base.execute("DELETE FROM payload WHERE idx = 1")
        base.commit()
    code, report = verified(copied, exported(copied, tmp_path / "x.zip"))
    assert (code, report["replay"]["erased"], report["replay"]["same"]) == (5, 1, 2)


def test_a_decision_that_its_policies_do_not_make_is_invalid(copied: Company, tmp_path: Path) -> None:
    lie(copied)
    code, report = verified(copied, exported(copied, tmp_path / "x.zip"))
    assert (code, report["verdict"], report["replay"]["differs"]) == (1, "invalid", 1)
    [finding] = report["findings"]
    assert finding["code"] == "decision_differs"
    assert "comes out denied (not_permitted)" in finding["text"]


def files(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as read:
        return {name: read.read(name) for name in read.namelist()}


def test_a_changed_slice_is_not_what_the_leaf_commits_to(recorded: Company, tmp_path: Path) -> None:
    found = files(exported(recorded, tmp_path / "all.zip"))
    assert rb"\"id\":\"acme/staff\",\"type\":\"Group\"" in found["opened.jsonl"]
    found["opened.jsonl"] = found["opened.jsonl"].replace(b"acme/staff", b"acme/stuff")
    code, report = verified(recorded, packed(tmp_path / "x.zip", found, honest=True))
    assert code == 1
    assert {each["code"] for each in report["findings"]} >= {"opened_invalid"}
    assert (report["replay"]["same"], report["replay"]["not_opened"]) == (0, 3)


def test_changed_policies_are_not_those_that_decisions_name(recorded: Company, tmp_path: Path) -> None:
    found = files(exported(recorded, tmp_path / "all.zip"))
    [name] = [each for each in found if each.startswith("policies/")]
    found[name] = found[name].replace(b"acme/staff", b"acme/stuff")
    code, report = verified(recorded, packed(tmp_path / "x.zip", found, honest=True))
    assert (code, report["replay"]["policy_missing"]) == (1, 3)
    assert "policy_changed" in {each["code"] for each in report["findings"]}


def test_policies_that_are_missing_are_counted_and_no_fault(recorded: Company, tmp_path: Path) -> None:
    found = files(exported(recorded, tmp_path / "all.zip"))
    found = {name: data for name, data in found.items() if not name.startswith("policies/")}
    code, report = verified(recorded, packed(tmp_path / "x.zip", found, honest=True))
    assert (code, report["replay"]["policy_missing"], report["findings"]) == (0, 3, [])


CORE = "entity Tenant; entity User { tenant: Tenant, active: Bool }; entity Tool { tenant: Tenant };"
PERMIT = '@id("p") permit (principal, action, resource);'


def bundle(*policies: str, walls: str = WALLS, core: str = CORE, **more: Any) -> bytes:
    schema = [["s", "action a appliesTo { principal: User, resource: Tool };"]]
    pairs = [[f"{number}.cedar", text] for number, text in enumerate(policies)]
    return json.dumps({"core": core, "policies": pairs, "schemas": schema, "walls": walls, **more}).encode()


def test_a_bundle_of_the_least_is_ready() -> None:
    assert Policies(cedarpy, bundle(PERMIT)).owed == {}


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b"\xff", b"[" * 5000,
        bundle(PERMIT, walls=""), bundle(PERMIT, walls=WALLS.replace("forbid", "permit")), bundle(PERMIT, more=1),
        bundle(PERMIT, PERMIT), bundle("permit (principal, action, resource);"), bundle("nonsense"),
        bundle('@id("p") permit (principal == ?principal, action, resource);'),
        bundle('@id("p") permit (principal, action, resource) when { principal.nothing };'),
        bundle('@id("p") permit (principal, action, resource) when { ' + "(" * 5000 + "true" + ")" * 5000 + " };"),
        bundle('@id("p") permit (principal, action, resource) when { true' + " && true" * 5000 + " };"),
        bundle('@id("p") @max_rows("many") permit (principal, action, resource);'),
        bundle('@id("wall:tenant") permit (principal, action, resource);'),
        bundle(PERMIT, core="entity"),
        bundle(PERMIT, core=CORE + "type T = " + "{a:" * 3000 + "Long" + "}" * 3000 + ";"),
        json.dumps({"core": 1, "policies": [1], "schemas": [["a"]], "walls": WALLS}).encode(),
        bundle(*[f'@id("p{number}") permit (principal, action, resource);' for number in range(2001)]),
    ],
)  # fmt: skip
def test_a_bundle_that_is_none_is_a_fault_and_no_crash(data: bytes) -> None:
    with pytest.raises(PolicyFault):
        Policies(cedarpy, data)
