"""What a backend installs: a few libraries, none of which is the gateway's."""

from __future__ import annotations

import json
import pkgutil

import pytest

import onbehalf.backend
from backend.light import ROOT, alone, brought

VECTORS = ROOT / "docs" / "vectors" / "call-tokens.json"
FRAMEWORK = {"fastapi"}
"""The modules for those who have a framework already."""
MODULES = sorted({each.name for each in pkgutil.iter_modules(onbehalf.backend.__path__)} - FRAMEWORK)
GATEWAYS = ("cedarpy", "httptools", "mcp", "psycopg", "pydantic", "sqlglot", "starlette", "typer", "uvicorn", "rich")
PROVING = f"""
import json
from onbehalf.backend import MemoryReplay, read_keys, verify_call
file = json.load(open({str(VECTORS)!r}))
call = verify_call(
    file["cases"][0]["token"], keys=read_keys(file["jwks"], issuer=file["issuer"]), issuer=file["issuer"],
    audience=file["audience"], tool=file["tool"], arguments=file["arguments"], now=file["now"], replay=MemoryReplay())
print(json.dumps([call.person, sorted(name for name in sys.modules if name.startswith("onbehalf."))]))
"""


def test_the_base_dependencies_are_few_and_none_is_the_gateways() -> None:
    found = brought()
    assert len(found) <= 10, found  # one of them for Python before 3.11 only
    assert found.isdisjoint(GATEWAYS)


@pytest.mark.parametrize("module", MODULES)
def test_every_module_of_the_kit_is_imported_with_the_base_dependencies_alone(module: str) -> None:
    done = alone(f"import onbehalf.backend.{module}")
    assert done.returncode == 0, done.stderr


def test_what_keeps_others_out_in_these_tests_does() -> None:
    for name in GATEWAYS:
        assert "ModuleNotFoundError" in alone(f"import {name}").stderr


def test_a_call_token_is_proven_with_the_base_dependencies_alone_and_no_door_is_loaded() -> None:
    done = alone(PROVING)
    assert done.returncode == 0, done.stderr
    person, loaded = json.loads(done.stdout)
    assert person == "alice"
    for name in ("doors", "gateway", "app", "explain", "act", "cli", "demo"):
        assert not [each for each in loaded if each.split(".")[1] == name]


def test_the_command_says_what_to_install_where_the_gateway_is_not() -> None:
    done = alone("from onbehalf.cli.start import entry; entry()")
    assert done.returncode == 2
    assert "what to do: pip install 'onbehalf-gateway[gateway]'" in done.stderr
    assert "Traceback" not in done.stderr
