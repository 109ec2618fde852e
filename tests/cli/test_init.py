"""What `init` writes starts as it is, and nothing that exists is overwritten."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from company import Said, company, said
from onbehalf import config
from ports import free_port


def findings(told: Said) -> list[tuple[str, str]]:
    return [(each["level"], each["what"]) for each in json.loads(told.out)["findings"]]


def test_check_accepts_it_but_for_the_issuer_that_is_an_example(tmp_path: Path) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    told = said("init", tmp_path / "it", "--issuer", dead)
    assert (told.code, told.err) == (0, "")
    assert f"onbehalf check --config {tmp_path / 'it' / 'onbehalf.yaml'}" in told.out
    checked = said("check", "--config", tmp_path / "it" / "onbehalf.yaml", "--json")
    assert checked.code == 1
    assert [what for level, what in findings(checked) if level == "problem"] == ["issuer"]
    assert {what for level, what in findings(checked) if level == "warning"} == {"clock"}


def test_serve_starts_with_it_and_says_that_the_issuer_is_not_there(tmp_path: Path) -> None:
    with company(tmp_path / "around", desk=False) as around:
        said(
            "init",
            tmp_path / "it",
            "--issuer",
            f"http://127.0.0.1:{free_port()}",
            "--resource",
            f"{around.gateway}/mcp",
        )
        around.directory = tmp_path / "it"
        around.edit("127.0.0.1:8100", around.gateway.removeprefix("http://"))
        around.edit("127.0.0.1:8101", around.admin.removeprefix("http://"))
        with around.serving(status=503):
            ready = around.get("/readyz")
            assert ready.json()["checks"]["ledger"] == "ok"
            assert "cannot be reached" in ready.json()["checks"]["issuers"]
            assert around.get("/healthz").status_code == 200
            assert around.get("/.well-known/oauth-protected-resource/mcp", public=True).status_code == 200
        assert "tools offered: notes_list" in around.served_log()


@pytest.mark.parametrize("there", ["onbehalf.yaml", "policies/notes.cedar", "notes.db"])
def test_nothing_is_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_text("mine")
    told = said("init", tmp_path)
    assert told.code == 2
    assert f"`{tmp_path / there}` is there already" in told.err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / there]
    assert (tmp_path / there).read_text() == "mine"


@pytest.mark.parametrize(
    "bad", [["--issuer", "http://login.example.com"], ["--issuer", "login"], ["--resource", "https://x/mcp?y"]]
)
def test_a_url_that_could_not_be_served_is_refused_before_anything_is_written(tmp_path: Path, bad: list[str]) -> None:
    told = said("init", tmp_path / "it", *bad)
    assert told.code == 2
    assert not (tmp_path / "it").exists()


def test_a_url_cannot_write_other_keys(tmp_path: Path) -> None:
    odd = 'https://login.example.com/"\n  - issuer: "https://evil.example'
    told = said("init", tmp_path / "it", "--issuer", odd)
    if told.code == 0:
        written = config.parse((tmp_path / "it" / "onbehalf.yaml").read_text())
        assert [issuer.issuer for issuer in written.issuers] == [odd]


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "it").write_text("")
    told = said("init", tmp_path / "it")
    assert (told.code, told.out) == (2, "")
    assert "cannot be written" in told.err


def schema_of() -> dict[str, Any]:
    told = said("init", "--schema")
    assert told.code == 0
    schema: dict[str, Any] = json.loads(told.out)
    return schema


def test_the_schema_is_json_schema_and_accepts_what_the_gateway_accepts(tmp_path: Path) -> None:
    schema = schema_of()
    jsonschema_rs.meta.validate(schema)
    said("init", tmp_path)
    validator = jsonschema_rs.validator_for(schema)
    for text in (
        (tmp_path / "onbehalf.yaml").read_text(),
        (files("onbehalf.demo") / "house" / "onbehalf.yaml")
        .read_text()
        .replace("@DIGEST@", f"sha256:{'0' * 64}")
        .replace("@", "http://x/"),
    ):
        validator.validate(yaml.safe_load(text))


def test_the_schema_refuses_an_unknown_key(tmp_path: Path) -> None:
    said("init", tmp_path)
    value = yaml.safe_load((tmp_path / "onbehalf.yaml").read_text())
    value["gateway"]["listne"] = "x"
    assert not jsonschema_rs.validator_for(schema_of()).is_valid(value)
