"""What is measured, as processes: backend, nginx, FastMCP's proxy and the gateway, each ended by its id.

Contenders run on core 0, the backend and the load on core 1.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import certifi
from joserfc import jwt
from joserfc.jwk import ECKey

from machine import cpu_seconds

__all__ = ["Contender", "Issuer", "backend", "fastmcp", "gateway", "nginx"]

HERE = Path(__file__).parent
PEOPLE = 64
_PEM_END = "-----END CERTIFICATE-----"
_POLICY = """
@id("bench-{number}") @doc("Rule {number} of the bench.") @remedy("None.")
permit (principal, action == Action::"benchCall", resource is {kind})
when {{ {condition} }};
"""
_SCHEMA = """
entity Note { tenant: Tenant, owner: User };
action benchCall appliesTo { principal: User, resource: [Tool, Note], context: Context };
"""


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that answers calls at `url`, by the process `pid` (and its children)."""

    name: str
    url: str
    pid: int

    def pids(self) -> list[int]:
        """Its process and that one's children."""
        return [self.pid, *_children(self.pid)]

    def cpu_seconds(self) -> float:
        """User and system time of all its threads until now."""
        return sum(map(cpu_seconds, self.pids()))

    def peak_megabytes(self) -> float:
        """The most memory it ever held, all its processes together."""
        return sum(map(_peak, self.pids())) / 1024


class Issuer:
    """Metadata, one key, and 64 access tokens made beforehand."""

    def __init__(self, directory: Path) -> None:
        self.key = ECKey.generate_key("P-256", {"kid": "bench"})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.pem = directory / "issuer.pem"
        self.pem.write_bytes(self.key.as_pem(private=False))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def tokens(self, audience: str, file: Path) -> Path:
        """One token a person, each on its line."""
        now = int(time.time())
        lines = [
            jwt.encode(
                {"typ": "at+jwt", "alg": "ES256", "kid": "bench"},
                {
                    "iss": self.url,
                    "aud": audience,
                    "sub": f"s{number}",
                    "client_id": "bench",
                    "iat": now,
                    "exp": now + 7200,
                },
                self.key,
            )
            for number in range(PEOPLE)
        ]
        file.write_text("\n".join(lines) + "\n", encoding="ascii")
        return file

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                document: dict[str, Any] = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/jwks.json"}
                if self.path == "/jwks.json":
                    document = {"keys": [issuer.key.as_dict(private=False)]}
                body = json.dumps(document).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


@contextmanager
def backend(directory: Path) -> Iterator[Contender]:
    """The fast MCP server that all contenders stand before."""
    port = _free()
    command = [sys.executable, str(HERE / "backend.py"), str(port)]
    with _process(command, directory / "backend.log", core=1) as process:
        yield _ready(Contender("backend", f"http://127.0.0.1:{port}/mcp", process.pid))


@contextmanager
def nginx(directory: Path, behind: str) -> Iterator[Contender]:
    """nginx as a plain reverse proxy with kept connections: what forwarding alone costs."""
    port = _free()
    target = behind.removeprefix("http://").partition("/")[0]
    (directory / "nginx.conf").write_text(
        f"""daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx-error.log;
        events {{ worker_connections 1024; }}
        http {{ access_log off; client_body_temp_path {directory}; proxy_temp_path {directory};
          fastcgi_temp_path {directory}; uwsgi_temp_path {directory}; scgi_temp_path {directory};
          keepalive_requests 100000000;
          upstream behind {{ server {target}; keepalive 128; keepalive_requests 100000000; }}
          server {{ listen 127.0.0.1:{port};
            location / {{ proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection ""; }} }} }}""",
        encoding="ascii",
    )
    command = ["nginx", "-c", str(directory / "nginx.conf"), "-p", str(directory)]
    with _process(command, directory / "nginx.log", core=0) as process:
        yield _ready(Contender("nginx proxy_pass", f"http://127.0.0.1:{port}/mcp", process.pid))


@contextmanager
def fastmcp(directory: Path, behind: str, issuer: Issuer, python: Path) -> Iterator[Contender]:
    """FastMCP's proxy with its own check of tokens, stateless and with JSON answers.

    It makes a TLS context a call, also for a backend without TLS, and loading a whole trust store each time would be
    most of its figure. So it gets a store of one certificate.
    """
    port = _free()
    url = f"http://127.0.0.1:{port}/mcp"
    command = [str(python), str(HERE / "fastmcp_proxy.py"), str(port), behind, issuer.url, url, str(issuer.pem)]
    store = directory / "one.pem"
    store.write_text(Path(certifi.where()).read_text(encoding="utf-8").partition(_PEM_END)[0] + _PEM_END + "\n")
    environment = os.environ | {"SSL_CERT_FILE": str(store), "SSL_CERT_DIR": str(directory)}
    with _process(command, directory / "fastmcp.log", core=0, environment=environment) as process:
        yield _ready(Contender("FastMCP proxy", url, process.pid))


@contextmanager
def gateway(directory: Path, behind: str, issuer: Issuer) -> Iterator[Contender]:
    """The gateway as `onbehalf serve` runs it: 10 policies, 64 people, call tokens, a record on disk."""
    port, admin = _free(), _free()
    url = f"http://127.0.0.1:{port}/mcp"
    config = _house(directory / "house", url=url, port=port, admin=admin, behind=behind, issuer=issuer.url)
    command = [sys.executable, "-m", "onbehalf.cli.main", "serve", "--config", str(config)]
    with _process(command, directory / "gateway.log", core=0) as process:
        _wait(f"http://127.0.0.1:{admin}/readyz")
        yield Contender("onbehalf", url, process.pid)


def _house(directory: Path, *, url: str, port: int, admin: int, behind: str, issuer: str) -> Path:
    (directory / "policies").mkdir(parents=True)
    rules = [f'principal.name == "Nobody {number}"' for number in range(8)]
    policies = [_POLICY.format(number=number, kind="Tool", condition=rule) for number, rule in enumerate(rules)]
    policies += [_POLICY.format(number=8, kind="Tool", condition='principal in Group::"acme/staff"')]
    policies += [
        _POLICY.format(number=9, kind="Note", condition="resource.owner == principal || principal has position")
    ]
    (directory / "policies" / "bench.cedar").write_text("".join(policies), encoding="utf-8")
    (directory / "policies" / "bench.cedarschema").write_text(_SCHEMA, encoding="utf-8")
    people = {
        f"p{number}": {
            "name": f"Person {number}", "position": f"at{number}", "groups": ["staff"],
            "logins": [{"issuer": issuer, "subject": f"s{number}"}],
        }
        for number in range(PEOPLE)
    }  # fmt: skip
    positions = {f"at{number}": f"at{number // 4}" if number else None for number in range(PEOPLE)}
    tenants = {"acme": {"positions": positions, "groups": {"staff": []}, "people": people}}
    (directory / "people.yaml").write_text(json.dumps({"tenants": tenants}), encoding="utf-8")
    rows = {"type": "Note", "at": "rows", "attributes": {"owner": "owner_id User"}}
    tools = {"echo": {"action": "benchCall"}, "rows": {"action": "benchCall", "rows": rows}}
    settings = {
        "gateway": {"resource": url, "listen": f"127.0.0.1:{port}", "admin": f"127.0.0.1:{admin}"},
        "issuers": [{"issuer": issuer, "tenant": "acme", "algorithms": ["ES256"]}],
        "upstreams": {"bench": {"kind": "mcp", "url": behind, "protocol": "2026-07-28", "tools": tools}},
    }
    config = directory / "onbehalf.yaml"
    config.write_text(json.dumps(settings), encoding="utf-8")
    return config


@contextmanager
def _process(
    command: Sequence[str], log: Path, *, core: int, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as said:
        process = subprocess.Popen(
            command,
            stdout=said,
            stderr=said,
            env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, {core % (os.cpu_count() or 1)}),
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ready(contender: Contender) -> Contender:
    where = contender.url.removeprefix("http://").partition("/")[0].partition(":")
    until = time.monotonic() + 40
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex((where[0], int(where[2]))) == 0:
                return contender
        time.sleep(0.1)
    raise SystemExit(f"{contender.name} did not start")


def _wait(url: str) -> None:
    until = time.monotonic() + 40
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing is ready at {url}")


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def _peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
