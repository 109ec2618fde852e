"""The keys by which a backend's receipts are known are read from a file, or the gateway does not start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backend.forging import encoded
from onbehalf.backend.receipt import receipt_key
from onbehalf.doors.upstream_receipts import open_receipts
from onbehalf.errors import ConfigInvalid

OWN = receipt_key(b"\x21" * 32).public


def test_no_place_asks_for_no_receipts_and_a_file_of_keys_does(tmp_path: Path) -> None:
    assert open_receipts("", base=tmp_path) is None
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [OWN]}))
    assert open_receipts("keys.json", base=tmp_path) is not None


@pytest.mark.parametrize(
    "document",
    [
        "", "{}", "[]", '{"keys": []}', {"keys": [{**OWN, "d": encoded(b"\x21" * 32)}]},
        {"keys": [{**OWN, "kid": ""}]}, {"keys": [OWN, OWN]}, {"keys": [{**OWN, "x": "AA"}]}, "x" * 70_000,
    ],
)  # fmt: skip
def test_a_file_without_a_fit_key_is_refused(tmp_path: Path, document: Any) -> None:
    text = document if isinstance(document, str) else json.dumps(document)
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(ConfigInvalid):
        open_receipts("keys.json", base=tmp_path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for place in ("keys.json", "."):
        with pytest.raises(ConfigInvalid, match="receipt_keys"):
            open_receipts(place, base=tmp_path)
