"""docs/completeness.md: its code is run, its members are those that the backend writes, its classes those found."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from backend.api_document import BYTES
from backend.forging import KEY, KID, encoded
from onbehalf.backend.calls import COLUMNS, SqliteCalls
from onbehalf.cli.main import command_line
from onbehalf.doors import backend_records
from onbehalf.verifier.backend_rows import Row, read_rows
from onbehalf.verifier.report import Verdict
from test_docs import blocks

PAGE = Path(__file__).parents[1] / "docs" / "completeness.md"
TEXT = PAGE.read_text(encoding="utf-8")


def ran(code: str, **names: Any) -> dict[str, Any]:
    exec(code, names)
    return names


def test_the_pages_code_guards_an_api_and_exports_rows_that_both_readers_take(tmp_path: Path) -> None:
    guard, export = blocks(PAGE, "python")
    keys = {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": KID, "x": encoded(bytes(KEY.verify_key)), "alg": "EdDSA"}]}
    made = ran(guard)["guarded"](lambda *_: [], BYTES, keys, tmp_path / "calls.db")
    assert callable(made)
    calls = SqliteCalls(tmp_path / "calls.db")
    values = ["c" * 16, 1, "call_1.7", "call_1", "t", "sha256:a", 7, "sha256:l", 1000, "", 0]
    calls._connection.execute(f"INSERT INTO onbehalf_calls VALUES ({','.join('?' * 11)})", values)
    written = io.StringIO()
    ran(export)["export"](calls, written)
    file = tmp_path / "rows.jsonl"
    file.write_text(written.getvalue())
    assert len(read_rows("https://orders.example.com", file).rows) == 1
    assert len(backend_records.read_records(str(file), base=tmp_path).rows) == 1


def test_the_pages_members_are_those_of_a_row_everywhere() -> None:
    table = TEXT.partition("| member | |")[2].partition("\n\n")[0]
    named = [name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.split("|")[1] if line else "")]
    assert sorted(named) == sorted(COLUMNS) == sorted(backend_records.COLUMNS) == sorted(Row.__slots__)


def test_the_pages_commands_have_the_options_that_they_are_shown_with() -> None:
    helped = (
        CliRunner()
        .invoke(command_line(), ["audit", "reconcile", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
        .output
    )
    for option in ("--from", "--to", "--backend", "--json"):
        assert option in helped
        assert option in TEXT
    assert f"the exit code is {int(Verdict.incomplete)}" in TEXT


def test_every_class_of_finding_is_explained() -> None:
    source = (Path(__file__).parents[1] / "src" / "onbehalf" / "explain" / "reconcile.py").read_text(encoding="utf-8")
    for kind in set(re.findall(r'(?:kind=|said\()"([a-z_]+)"', source)) - {"reconciled"}:
        assert f"| `{kind}` |" in TEXT, kind
