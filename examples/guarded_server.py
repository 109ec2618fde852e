"""An MCP server that knows who calls: three lines of `onbehalf.backend` around any ASGI app.

    python examples/guarded_server.py http://127.0.0.1:8100 http://127.0.0.1:9000/mcp

The first argument is the gateway's origin, the second this server's own URL as `url` in onbehalf.yaml. Every
`tools/call` must carry a call token for this server, this tool and these arguments, and can be used once.
"""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from mcp.server.mcpserver import Context, MCPServer

from onbehalf.backend.asgi import SCOPE_KEY, CallTokenMiddleware

server = MCPServer("guarded")


@server.tool()
def whoami(ctx: Context) -> dict[str, Any]:
    """Who this call is made for, as the gateway vouches."""
    request: Any = ctx.request_context.request
    call = request.scope[SCOPE_KEY]
    return {"tenant": call.tenant, "person": call.person, "client": call.client, "on_record": call.record.index}


def main(gateway: str, url: str) -> None:
    """Serve until Ctrl-C."""
    jwks = f"{gateway}/.well-known/jwks.json"
    app = CallTokenMiddleware(server.streamable_http_app(), issuer=gateway, audience=url, jwks_url=jwks)
    where = urlsplit(url)
    uvicorn.run(app, host=where.hostname or "127.0.0.1", port=where.port or 9000, log_level="warning")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
