"""The demo as a newcomer runs it: real processes, MCP client and OAuth. And that it would notice a wrong gateway."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from onbehalf.demo.run import Ports, run, serve_gateway
from onbehalf.verifier.besides import Besides
from onbehalf.verifier.check import check

ANY = Ports(gateway=0, admin=0, issuer=0, tickets=0, orders=0)
TOO_WIDE = """
@id("too-wide") @doc("Everybody reads and changes everything in their tenant.") @remedy("None.")
permit (principal, action, resource) when { principal.active };
"""


@pytest.mark.timeout(400)
def test_the_story_is_as_told_and_a_second_run_over_the_same_data_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "onbehalf.cli.main", "demo", "--once", "--any-port", "--data", str(tmp_path / "d")]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "39 of 39 steps were as told." in done.stdout
        assert "WRONG" not in done.stdout
    assert (tmp_path / "d" / "gateway-data" / "ledger.db").exists()
    _comes_out_the_same(tmp_path / "d", tmp_path / "all.zip")


def _comes_out_the_same(demo: Path, out: Path) -> None:
    """Every decision of both runs, made again from the evidence."""
    export = ["audit", "export", "-c", str(demo / "onbehalf.yaml"), "--open", "all", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "onbehalf.cli.main", *export], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = check(out, besides=Besides(replay=True))
    assert report.findings == []
    assert report.replay is not None
    counted = {name: count for name, count in report.replay.items() if isinstance(count, int) and count}
    assert counted.keys() <= {"same", "not_decided"}
    assert counted["same"] > 20


def test_a_gateway_with_too_wide_a_policy_fails_the_story_but_not_the_tenant_wall(tmp_path: Path) -> None:
    @contextmanager
    def careless(config: Path) -> Iterator[object]:
        (config.parent / "policies" / "wide.cedar").write_text(TOO_WIDE, encoding="utf-8")
        with serve_gateway(config) as process:
            yield process

    said = io.StringIO()
    code = run(tmp_path, once=True, ports=ANY, start_gateway=careless, console=Console(file=said, width=200))
    told = said.getvalue()
    assert code == 1
    assert "WRONG exactly the reviews of her direct and indirect reports" in told
    assert "WRONG Carol's T-1002 is refused" in told
    assert "ok   another tenant's person (dave, globex): 0 rows" in told
    assert "0 of acme" in told
