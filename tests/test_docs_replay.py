"""docs/vectors/replay.json is what both programs make of it, and the pages' commands and words are those there are."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import cedarpy
import pytest

from company import Company, company, said
from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.explain import entries
from onbehalf.explain.asked import MAX_ENTITIES_BYTES
from onbehalf.model import canonical, digest
from onbehalf.validate.replayed import recalled, ruling
from onbehalf.verifier.demands import demanded
from onbehalf.verifier.policies import Policies
from onbehalf.verifier.replay import OUTCOMES, made_again
from test_docs_auditors import verify

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "auditors.md").read_text(encoding="utf-8")
VECTORS: dict[str, Any] = json.loads((DOCS / "vectors" / "replay.json").read_text(encoding="utf-8"))
BUNDLE = VECTORS["bundle"].encode()


def test_the_bundle_of_the_vectors_has_the_digest_that_is_named() -> None:
    assert digest(BUNDLE) == VECTORS["policy"]
    assert canonical(json.loads(BUNDLE)) == BUNDLE


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_the_gateway_makes_of_the_vectors_what_they_say(case: dict[str, Any]) -> None:
    engine = CedarEngine.recorded(BUNDLE, actions=[case["question"]["action"]])
    made = ruling(recalled(case["question"], slices=lambda _, make: make()), engine.judge)
    assert (made.effect != "deny", made.code, [*made.policies]) == (case["permitted"], case["code"], case["policies"])
    assert (bool(made.errors), [entries.owed(each) for each in made.owed]) == (case["erred"], case["obligations"])


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_the_verifier_makes_of_the_vectors_what_they_say(case: dict[str, Any]) -> None:
    made = made_again(Policies(cedarpy, BUNDLE), case["question"])
    assert (made.permitted, made.code, [*made.policies]) == (case["permitted"], case["code"], case["policies"])
    assert (made.erred, [demanded(each) for each in made.owed]) == (case["erred"], case["obligations"])


def test_the_page_names_every_member_of_a_question_and_every_outcome() -> None:
    part = PAGE.partition("**A question** is")[2].partition("**The tree**")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", part, flags=re.MULTILINE)) == set(VECTORS["cases"][0]["question"])
    assert f"{MAX_ENTITIES_BYTES // 1024} KiB" in part
    told = PAGE.partition("## Make the decisions again")[2].partition("\n## ")[0]
    assert [name.replace("_", " ") for name in OUTCOMES] == re.findall(r"^\| ([a-z ]+) \|", told, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with company(tmp_path_factory.mktemp("audited") / "it") as made:
        made.notes_listed("alice-at-login", "bob-at-login")
        yield made


def lines(page: str, section: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"^(onbehalf.*)$", text, flags=re.MULTILINE)


def test_the_pages_commands_are_run(audited: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONBEHALF_CONFIG", str(audited.config))
    (tmp_path / "log.pub").write_bytes((audited.directory / "data" / "keys" / "log.pub").read_bytes())
    (tmp_path / "kept.txt").write_text("".join(f"{token}\n" for token in audited.desk.tokens))
    (tmp_path / "new").symlink_to(audited.directory / "policies")
    assert said("audit", "export", "--open", "all", "opened.zip").code == 0
    [replay] = lines("auditors.md", "Make the decisions again")
    code, text = verify(*shlex.split(replay)[1:])
    assert code == 0, text
    assert "replayed   2 same" in text
    [tokens] = lines("auditors.md", "Hold a backend's call tokens against the record")
    assert verify(*shlex.split(tokens)[1:])[0] == 0
    [command] = lines("policy.md", "What would other policies have said")
    told = said(*shlex.split(command)[1:])
    assert told.code == 0, told.err + told.out
    assert "Nothing changes: 2 the same." in told.out
