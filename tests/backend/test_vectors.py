"""The published vectors: our verifier, and the page's own in another language, say of each token what they say."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import node_peers
from backend import vectors
from onbehalf.backend import MemoryReplay, VerifiedCall, read_keys, verify_call
from onbehalf.errors import CallTokenRefused
from onbehalf.model import UnixTime
from test_docs import blocks

DOCS = Path(__file__).parents[2] / "docs"
FILE: dict[str, Any] = json.loads((DOCS / "vectors" / "call-tokens.json").read_text(encoding="utf-8"))
CASES: dict[str, dict[str, Any]] = {each["name"]: each for each in FILE["cases"]}


def verified(case: dict[str, Any], replay: MemoryReplay) -> VerifiedCall:
    return verify_call(
        case["token"], keys=read_keys(FILE["jwks"], issuer=FILE["issuer"]), issuer=FILE["issuer"],
        audience=FILE["audience"], tool=case.get("tool", FILE["tool"]),
        arguments=case.get("arguments", FILE["arguments"]), now=UnixTime(case.get("now", FILE["now"])), replay=replay,
    )  # fmt: skip


def test_the_file_is_what_its_maker_makes() -> None:
    assert (DOCS / "vectors" / "call-tokens.json").read_text(encoding="utf-8") == vectors.document()
    assert len(CASES) == len(FILE["cases"]) > 50


@pytest.mark.parametrize("name", CASES)
def test_our_verifier_says_of_each_token_what_the_file_says(name: str) -> None:
    case, replay = CASES[name], MemoryReplay()
    if "after" in case:
        verified(CASES[case["after"]], replay)
    if case["accept"]:
        call = verified(case, replay)
        assert (call.person, call.tenant) == (case["person"], case["tenant"])
        return
    with pytest.raises(CallTokenRefused) as caught:
        verified(case, replay)
    assert caught.value.code == case["code"]


CODE, USE = blocks(DOCS / "other-languages.md", "js")
CHECKS = [line for line in CODE.splitlines() if line.startswith("  require(") and "unknown key" not in line]
"""Every check of the page's verifier, but for the key, without which it cannot go on anyway."""


def in_node(directory: Path, code: str) -> subprocess.CompletedProcess[str]:
    (directory / "verify.mjs").write_text(code, encoding="utf-8")
    (directory / "use.mjs").write_text(USE, encoding="utf-8")
    (directory / "call-tokens.json").write_text(json.dumps(FILE), encoding="utf-8")
    command = [node_peers.node(), "use.mjs"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)


def test_the_verifier_of_the_page_says_the_same(tmp_path: Path) -> None:
    done = in_node(tmp_path, CODE)
    assert (done.returncode, done.stdout.strip()) == (0, f"{len(CASES)} as told"), done.stdout + done.stderr


@pytest.mark.parametrize("check", CHECKS, ids=range(len(CHECKS)))
def test_the_vectors_tell_of_each_check_that_is_left_out(tmp_path: Path, check: str) -> None:
    assert len(CHECKS) == 13
    done = in_node(tmp_path, CODE.replace(check, ""))
    assert done.returncode != 0
    assert "Error: " in done.stderr
