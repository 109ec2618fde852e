"""Bundles are kept by their digest, found only as they were, and nothing takes their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from onbehalf.doors.policies_kept import find, keep
from onbehalf.errors import PolicyInvalid
from onbehalf.model import digest


def test_a_bundle_is_found_by_its_digest_and_kept_once(tmp_path: Path) -> None:
    named = keep(tmp_path / "kept", b"one")
    assert named == digest(b"one")
    assert find(tmp_path / "kept", named) == b"one"
    [file] = (tmp_path / "kept").iterdir()
    before = file.stat().st_ino
    assert keep(tmp_path / "kept", b"one") == named
    assert file.stat().st_ino == before
    assert file.stat().st_mode & 0o077 == 0


def test_a_bundle_that_was_changed_is_none_and_is_kept_anew(tmp_path: Path) -> None:
    named = keep(tmp_path, b"one")
    [file] = tmp_path.iterdir()
    file.write_bytes(b"other")
    assert find(tmp_path, named) is None
    keep(tmp_path, b"one")
    assert find(tmp_path, named) == b"one"


@pytest.mark.parametrize("named", ["", "sha256:", "sha256:../../x", "one", "sha256:" + "0" * 64, "sha256:" + "A" * 64])
def test_what_is_no_digest_or_not_kept_is_none(tmp_path: Path, named: str) -> None:
    assert find(tmp_path, named) is None


def test_a_bundle_that_cannot_be_kept_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(PolicyInvalid, match="cannot be kept"):
        keep(tmp_path / "file", b"one")
