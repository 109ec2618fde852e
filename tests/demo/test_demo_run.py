"""Starting the demo: ports, child processes, and what happens when a part does not come up."""

from __future__ import annotations

import io
import os
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from rich.console import Console

from onbehalf.demo import run as demo


def console() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=200), out


def test_a_taken_port_is_replaced_and_that_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told, out = console()
        chosen = demo._free(demo.Ports(gateway=0, admin=0, issuer=port, tickets=0, orders=0), told)
    assert port not in chosen
    assert len(set(chosen)) == 5
    assert f"port {port} is taken; the issuer listens on {chosen[2]}" in out.getvalue()


def test_a_free_port_is_none_that_the_system_gives_away_before_the_part_that_listens_is_there() -> None:
    chosen = demo._free(demo.Ports(gateway=0, admin=0, issuer=0, tickets=0, orders=0), console()[0])
    assert set(chosen) <= set(demo._OURS)
    least, _ = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert max(demo._OURS) < least


def test_an_issuer_of_its_own_process_says_where_it_is_and_ends_with_the_demo(tmp_path: Path) -> None:
    with ExitStack() as house:
        command = (sys.executable, "-m", "onbehalf.demo.issuer", "--resource", "http://127.0.0.1:1/mcp")
        process = demo._start_part(house, command, tmp_path)
        assert process.poll() is None
    assert process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_a_part_that_does_not_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "onbehalf.demo.issuer", "--port", "none", "--resource", "x")
    with (
        ExitStack() as house,
        pytest.raises(demo.DemoFailed, match=r"(?s)onbehalf\.demo\.issuer did not start.*invalid int"),
    ):
        demo._start_part(house, command, tmp_path)


def test_a_gateway_that_is_never_ready_fails_the_demo_and_leaves_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_READY_SECONDS", 15)
    told, out = console()

    def start(config: Path) -> ExitStack:
        monkeypatch.setattr(demo, "_READY_SECONDS", 0.5)
        return ExitStack()

    ports = demo.Ports(gateway=0, admin=0, issuer=0, tickets=0, orders=0)
    assert demo.run(tmp_path / "data", once=True, ports=ports, start_gateway=start, console=told) == 1
    assert "the gateway was not ready" in out.getvalue()
    assert (tmp_path / "data" / "onbehalf.yaml").exists()
