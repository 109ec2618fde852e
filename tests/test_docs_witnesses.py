"""docs/witnesses.md: its policy file is one, and its client keeps what it is given."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onbehalf.explain import quorum
from onbehalf.explain.checkpoint import Checkpoint, NoteSigner, write
from verifier.test_policy import vkey

PAGE = (Path(__file__).parents[1] / "docs" / "witnesses.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)[0]


def test_the_policy_of_the_page_asks_for_two_of_three() -> None:
    text = block("").replace("<the line of log.pub>", vkey("log", 1))
    for name in ("audit", "partner", "cloud"):
        text = text.replace("<its witness.pub>", vkey(name, 6), 1)
    policy = quorum.parse(text.encode())
    assert policy.met({"audit", "cloud"})
    assert not policy.met({"audit"})
    assert all(each.url.startswith("https://") for each in policy.witnesses)


class Session:
    """A client's session whose answers carry heads of these sizes; what it was told to send along."""

    def __init__(self, *notes: str) -> None:
        self.notes = [*notes]
        self.brought: list[Any] = []

    async def call_tool(self, tool: str, arguments: Any, *, meta: Any = None) -> Any:
        self.brought.append(meta)
        return SimpleNamespace(meta={"onbehalf/checkpoint": self.notes.pop(0)})


def test_the_client_of_the_page_keeps_the_last_checkpoint_sends_it_back_and_sees_a_shorter_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = NoteSigner("log.example", b"k" * 32)
    one, two = (write(Checkpoint(origin="log.example", size=size, root=bytes(32)), signer) for size in (5, 9))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.pub").write_text(f"{signer.verifier.vkey}\n")
    client: dict[str, Any] = {}
    exec(block("python"), client)  # our own page
    session = Session(one, two, one)

    async def walk() -> None:
        for _ in range(2):
            await client["call"](session, "t", {})
        with pytest.raises(RuntimeError, match="shorter"):
            await client["call"](session, "t", {})

    asyncio.run(walk())
    assert session.brought == [None, {"onbehalf/checkpoint": one}, {"onbehalf/checkpoint": two}]
    assert (tmp_path / "checkpoint.txt").read_text() == two
