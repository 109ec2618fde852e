"""What each MCP client is, as plain values: what a person pastes where, and what the client demands of a server.

Facts of vendors, which change: each is as their pages said in autumn 2026. Must not fetch or check anything.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

__all__ = ["CLIENTS", "Client"]

_NAME = "onbehalf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One client. `steps` are lines for a person, with `@URL@` for the gateway's; `redirects` what a client that is
    registered by hand must be registered with.

    `cloud` is whether its calls come from its vendor's servers, `mirror` whether it looks for the issuer's metadata on
    the MCP host, `public_cimd` whether it uses a client id metadata document only where the method `none` is announced,
    `stable_redirect` whether its redirect address is the same for everybody only with RFC 9207, `annotated` whether it
    refuses tools without annotations.
    """

    title: str
    steps: tuple[str, ...]
    redirects: tuple[str, ...]
    cloud: bool = False
    mirror: bool = False
    public_cimd: bool = False
    stable_redirect: bool = False
    annotated: bool = False

    def told(self, url: str) -> tuple[str, ...]:
        """What to paste where, for a gateway at `url`."""
        return tuple(line.replace("@URL@", url) for line in self.steps)


_CURSOR = json.dumps({"mcpServers": {_NAME: {"url": "@URL@"}}}, indent=2)
_VSCODE = json.dumps({"servers": {_NAME: {"type": "http", "url": "@URL@"}}}, indent=2)

CLIENTS: dict[str, Client] = {
    "chatgpt": Client(
        title="ChatGPT",
        steps=(
            "An administrator of the workspace turns on developer mode, then adds a custom connector (app) with:",
            "  MCP server URL   @URL@",
            "  Authentication   OAuth",
            "Leave client id and secret empty, unless the last lines below say that a client is registered by hand.",
        ),
        redirects=(
            "https://chatgpt.com/connector_platform_oauth_redirect",
            "https://chatgpt.com/connector/oauth/<callback id, which ChatGPT shows> (where RFC 9207 is not announced)",
        ),
        cloud=True,
        mirror=True,
        stable_redirect=True,
        annotated=True,
    ),
    "claude": Client(
        title="Claude",
        steps=(
            "Claude on the web and Claude Desktop: Settings, Connectors, Add custom connector, with",
            "  URL   @URL@",
            "In a Team or Enterprise plan an owner adds it for all first. Claude Code, in a terminal:",
            f"  claude mcp add --transport http {_NAME} @URL@",
            "then /mcp within Claude Code, to log in.",
        ),
        redirects=(
            "https://claude.ai/api/mcp/auth_callback",
            "https://claude.com/api/mcp/auth_callback",
            "http://localhost/callback and http://127.0.0.1/callback, with any port (Claude Code)",
        ),
        cloud=True,
        public_cimd=True,
    ),
    "cursor": Client(
        title="Cursor",
        steps=(
            "Put this into ~/.cursor/mcp.json (all projects) or .cursor/mcp.json (one project):",
            *_CURSOR.splitlines(),
            "then Cursor Settings, MCP, and Connect beside it, to log in. For a client that is registered by hand, add",
            '  "auth": {"CLIENT_ID": "..."}',
            "beside `url`.",
        ),
        redirects=("http://localhost:8787/callback", "cursor://anysphere.cursor-mcp/oauth/callback"),
    ),
    "vscode": Client(
        title="VS Code",
        steps=(
            "Put this into .vscode/mcp.json (one workspace), or the file that `MCP: Open User Configuration` opens:",
            *_VSCODE.splitlines(),
            "then Start above it, and log in. For a client that is registered by hand, add",
            '  "oauth": {"clientId": "..."}',
            "beside `url`.",
        ),
        redirects=("http://127.0.0.1:33418/", "https://vscode.dev/redirect"),
    ),
}
