"""The demo's story with HR on a real PostgreSQL, as a newcomer runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from onbehalf.demo.postgres import ServerFailed, server
from postgres import PROGRAMS


@pytest.mark.skipif(PROGRAMS is None, reason="PostgreSQL is not installed (apt-get install postgresql)")
def test_the_story_is_as_told_on_postgresql_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "onbehalf.cli.main", "demo", "--once", "--any-port", "--database", "postgres"]
    done = subprocess.run(
        [*command, "--data", str(tmp_path / "d")], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "43 of 43 steps were as told." in done.stdout
    assert "asked for as it was shown, exactly that is done" in done.stdout
    assert "without a claim that it signed: 0 reviews" in done.stdout
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "d" / "secrets").iterdir()} == {0}


def test_without_postgresql_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onbehalf.demo.postgres.programs", lambda: None)
    with pytest.raises(ServerFailed, match="apt-get install postgresql"), server():
        pass
