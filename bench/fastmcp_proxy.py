"""The contender FastMCP: its proxy before the backend, with its own check of bearer JWTs. Runs in bench/.venv.

python bench/fastmcp_proxy.py PORT BACKEND_URL ISSUER RESOURCE PUBLIC_KEY_PEM
"""

from __future__ import annotations

import sys
from pathlib import Path

from fastmcp.server import create_proxy
from fastmcp.server.auth.providers.jwt import JWTVerifier

if __name__ == "__main__":
    port, backend, issuer, resource, pem = sys.argv[1:]
    key = Path(pem).read_text(encoding="ascii")
    verifier = JWTVerifier(public_key=key, issuer=issuer, audience=resource, algorithm="ES256")
    proxy = create_proxy(backend, name="bench", auth=verifier)
    proxy.run(
        transport="http",
        host="127.0.0.1",
        port=int(port),
        path="/mcp",
        stateless_http=True,
        json_response=True,
        show_banner=False,
        log_level="ERROR",
        uvicorn_config={"access_log": False},
    )
