"""What `serve` logs, and how it starts."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from company import company
from onbehalf.cli.serving import _Plain

HOSTILE = "a\x1b[2J\x9b\u202e\n2026 ERROR forged"


def test_what_an_upstream_says_of_itself_is_one_line_of_the_log_without_control_characters() -> None:
    record = logging.LogRecord("onbehalf", logging.ERROR, "", 0, "tool `%s` is not offered", (HOSTILE,), None)
    line = _Plain("%(levelname)s %(message)s").format(record)
    assert line.isprintable()
    assert "forged` is not offered" in line


def test_a_traceback_keeps_its_lines_and_loses_its_control_characters() -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        record = logging.LogRecord("onbehalf", logging.ERROR, "", 0, "broken", (), sys.exc_info())
    text = _Plain("%(message)s").format(record)
    assert len(text.splitlines()) > 3
    assert all(line.isprintable() for line in text.split("\n"))


def test_it_says_where_it_listens_and_what_it_offers_and_every_line_is_dated(tmp_path: Path) -> None:
    with company(tmp_path / "it") as around:
        with around.serving():
            pass
        lines = around.served_log().splitlines()
    assert all(line[:2] == "20" for line in lines)
    text = "\n".join(lines)
    for told in (
        f"{around.gateway}/mcp",
        around.admin.removeprefix("http://"),
        str(around.ledger),
        "desk_read, desk_write",
    ):
        assert told in text
    assert "the record is closed" in lines[-1]
