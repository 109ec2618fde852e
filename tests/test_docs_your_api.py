"""docs/your-api.md, followed as it stands: what it says to paste is pasted, its API runs, and people call it."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from company import Company, company, said, wait_for
from ports import free_port
from test_docs import blocks

PAGE = Path(__file__).parents[1] / "docs" / "your-api.md"


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    monkeypatch.setenv("ORDERS_KEY", "secret-1")
    with company(tmp_path / "it") as made:
        port = free_port()
        own = f"http://127.0.0.1:{port}"
        (document,) = blocks(PAGE, "json")
        upstream, *_ = blocks(PAGE, "yaml")
        (schema,) = blocks(PAGE, "cedarschema")
        (policies,) = blocks(PAGE, "cedar")
        (code,) = blocks(PAGE, "python")
        (made.directory / "orders.json").write_text(document)
        digest = hashlib.sha256((made.directory / "orders.json").read_bytes()).hexdigest()
        upstream = upstream.replace("0" * 64, digest).replace("https://orders.example.com", own)
        made.edit("\nupstreams:\n", "\nupstreams:\n" + textwrap.indent(upstream, "  "))
        (made.directory / "policies" / "orders.cedarschema").write_text(schema)
        (made.directory / "policies" / "orders.cedar").write_text(policies)
        code = code.replace("https://gateway.example.com", made.gateway).replace("https://orders.example.com", own)
        (made.directory / "orders.py").write_text(code.replace("9100", str(port)))
        with made.serving(), api(made, port):
            yield made


@contextmanager
def api(made: Company, port: int) -> Iterator[None]:
    """The API of the page, in a process of its own."""
    with subprocess.Popen([sys.executable, str(made.directory / "orders.py")], stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: _answers(port), what="the API of the page")
            yield
        finally:
            process.kill()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def orders(found: Any) -> dict[str, bool]:
    return {each["id"]: each["open"] for each in found["structuredContent"]["orders"]}


def test_the_page_followed_word_for_word_gives_everyone_their_own_orders(around: Company) -> None:
    checked = said("check", "--config", around.config)
    assert "tool orders_close: defined, mapped and pinned" in " ".join(checked.out.split())
    assert orders(around.call("orders_list")) == {"1": True}
    assert orders(around.call("orders_list", token=around.token("bob-at-login"))) == {"2": True}
    assert around.call("orders_close", ids=["1", "2"])["isError"] is True  # one of them is bob's: neither is closed
    assert orders(around.call("orders_list")) == {"1": True}
    assert orders(around.call("orders_close", ids=["1"])) == {"1": False}
    assert orders(around.call("orders_list")) == {"1": False}
    assert orders(around.call("orders_list", token=around.token("bob-at-login"))) == {"2": True}
    refused = around.call("orders_list", tenant="globex")
    assert refused["_meta"]["onbehalf/denial"]["code"] == "bound_parameter"
