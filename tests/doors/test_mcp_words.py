"""Our copies of MCP's names are the SDK's, and a worker does without the SDK until somebody needs it."""

from __future__ import annotations

import subprocess
import sys

import mcp_types
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared import inbound
from mcp_types import version

from onbehalf.doors import mcp_words


def test_the_names_and_numbers_are_the_sdks() -> None:
    for name in mcp_words.__all__:
        if name.isupper():
            theirs = getattr(mcp_types, name, None) or getattr(version, name)
            ours = getattr(mcp_words, name)
            assert ours == (tuple(theirs) if isinstance(ours, tuple) else theirs), name


@given(st.text(max_size=40) | st.from_regex(r"=\?base64\?[A-Za-z0-9+/=]{0,12}\?=", fullmatch=True))
def test_headers_are_written_and_read_as_the_sdk_does(value: str) -> None:
    try:
        encoded = inbound.encode_header_value(value)
    except UnicodeEncodeError:
        return
    assert mcp_words.encode_header(value) == encoded
    assert mcp_words.decode_header(value) == inbound.decode_header_value(value)
    assert mcp_words.decode_header(encoded) == value


@pytest.mark.parametrize("module", ["onbehalf.app", "onbehalf.doors.serve_uvicorn"])
def test_the_gateway_loads_without_the_sdk_or_a_second_http_client(module: str) -> None:
    not_here = {"mcp", "mcp_types", "pydantic", "starlette", "pyreqwest", "httpx2", "psycopg"}
    code = f"import sys, {module}; sys.exit(bool({not_here} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
