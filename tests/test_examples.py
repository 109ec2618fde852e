"""Each example runs as its own text says, behind a real gateway."""

from __future__ import annotations

import asyncio
import io
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console

from onbehalf.demo import run as demo
from onbehalf.demo.data import world
from onbehalf.demo.person_client import connected
from ports import free_port

EXAMPLE = Path(__file__).parents[1] / "examples" / "guarded_server.py"
UPSTREAM = """
  guarded:
    kind: mcp
    url: "{url}"
    tools:
      whoami: {{action: readTicket}}
"""


@contextmanager
def example(gateway: str, url: str) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, str(EXAMPLE), gateway, url])
    try:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(url, timeout=1)
            except urllib.error.HTTPError:
                break  # it answers, and refuses what is no call
            except OSError:
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(10)


def test_the_guarded_server_learns_from_the_gateway_who_calls(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/mcp"

    @contextmanager
    def with_example(config: Path) -> Iterator[object]:
        text = config.read_text(encoding="utf-8")
        gateway = re.search(r'resource: "(http://[^/]+)/mcp"', text)
        assert gateway is not None
        config.write_text(text + UPSTREAM.format(url=url), encoding="utf-8")
        with example(gateway[1], url), demo.serve_gateway(config) as process:
            yield process

    async def ask(resource: str) -> str:
        async with connected(resource, world().person("acme", "bob")) as client:
            return (await client.call("whoami", {})).text

    with ExitStack() as house:
        ports = demo.Ports(gateway=0, admin=0, issuer=0, tickets=0, orders=0)
        places, _ = demo._start(house, tmp_path, ports, with_example, Console(file=io.StringIO()))
        said = asyncio.run(ask(places.resource))
    assert '"person":"bob"' in said.replace(" ", "")
    assert '"tenant":"acme"' in said.replace(" ", "")
