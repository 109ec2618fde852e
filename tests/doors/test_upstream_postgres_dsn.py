"""A DSN is made safe before it is used: beyond this machine only a server that proves its name is spoken to."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from onbehalf.doors.secret_reference import resolved
from onbehalf.doors.upstream_postgres_dsn import safe_dsn
from onbehalf.errors import ConfigInvalid

SECRET = "hunter2"


def safe(text: str, *, insecure: bool = False) -> dict[str, str]:
    return {
        key: str(value) for key, value in conninfo_to_dict(safe_dsn(text, what="reader", insecure_tls=insecure)).items()
    }


@pytest.mark.parametrize("host", ["db.example.com", "10.0.0.7", "127.0.0.1,db.example.com", "::2", "localhost.example"])
def test_beyond_this_machine_the_server_must_prove_its_name(host: str) -> None:
    assert safe(f"host={host} user=u dbname=d")["sslmode"] == "verify-full"
    for mode in ("disable", "allow", "prefer", "require", "verify-ca"):
        with pytest.raises(ConfigInvalid, match=f"`sslmode={mode}`, expected `verify-full`"):
            safe(f"host={host} user=u dbname=d sslmode={mode}")
        assert safe(f"host={host} user=u dbname=d sslmode={mode}", insecure=True)["sslmode"] == mode


def test_an_address_that_is_elsewhere_counts_whatever_the_host_is_called() -> None:
    with pytest.raises(ConfigInvalid, match="verify-full"):
        safe("host=localhost hostaddr=10.0.0.7 user=u dbname=d sslmode=disable")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "/var/run/postgresql"])
def test_on_this_machine_a_server_needs_no_certificate(host: str) -> None:
    assert "sslmode" not in safe(f"host={host} user=u dbname=d")


def test_gss_encryption_is_never_taken_instead_of_tls() -> None:
    assert safe("host=db.example.com user=u dbname=d gssencmode=prefer")["gssencmode"] == "disable"


def test_waiting_for_a_server_is_bounded() -> None:
    assert safe("host=db.example.com user=u dbname=d")["connect_timeout"] == "5"
    assert safe("host=db.example.com user=u dbname=d connect_timeout=2")["connect_timeout"] == "2"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"user=u dbname=d password={SECRET}", "names no host"),
        (f"host=h dbname=d password={SECRET}", "names no user"),
        (f"postgresql://u:{SECRET}@h", "names no dbname"),
        (f"host=h user=u dbname=d service=s password={SECRET}", "names a service"),
        (f"no dsn {SECRET}", "refers to no DSN"),
        (f"host=h user=u dbname=d {SECRET}=1", "refers to no DSN"),
    ],
)
def test_what_the_environment_would_choose_is_refused_without_showing_the_secret(text: str, told: str) -> None:
    with pytest.raises(ConfigInvalid, match=told) as found:
        safe(text)
    assert SECRET not in found.value.message + found.value.hint


def test_a_reference_gives_the_secret_from_the_environment_or_a_file_beside_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", f"{SECRET}\n")
    (tmp_path / "secret").write_text(f"  {SECRET}\n")
    for reference in ("env:A_SECRET", "file:secret", f"file:{tmp_path}/secret"):
        assert resolved(reference, base=tmp_path, what="key") == SECRET


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("env:NOT_SET_ANYWHERE", "has no `NOT_SET_ANYWHERE`"),
        ("file:absent", "cannot be read"),
        ("file:empty", "`empty` is empty"),
        ("file:.", "cannot be read"),
        ("file:binary", "cannot be read"),
        ("file:huge", "more than"),
        (SECRET, "is no reference"),
    ],
)
def test_a_reference_to_nothing_is_refused_without_showing_a_secret(tmp_path: Path, reference: str, told: str) -> None:
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"\xff" * 40)
    (tmp_path / "huge").write_text(SECRET * 20_000)
    with pytest.raises(ConfigInvalid, match=told) as found:
        resolved(reference, base=tmp_path, what="key")
    assert SECRET not in found.value.message + found.value.hint
