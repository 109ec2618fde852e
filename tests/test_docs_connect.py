"""What docs/connect.md and docs/idp say is what the commands say and the configuration takes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from onbehalf import config
from onbehalf.cli.connect_clients import CLIENTS

DOCS = Path(__file__).parents[1] / "docs"
CONNECT = (DOCS / "connect.md").read_text(encoding="utf-8")
URL = "https://gateway.example.com/mcp"
PAGES = sorted((DOCS / "idp").glob("*.md"))


def section(title: str) -> str:
    return CONNECT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", sorted(CLIENTS))
def test_each_client_has_a_section_with_every_redirect_address_that_the_command_prints(name: str) -> None:
    client = CLIENTS[name]
    told = section(client.title)
    for address in re.findall(r"https://[^\s<]+", " ".join(client.redirects)):
        host_and_path = address.removeprefix("https://").rstrip("/")
        short = "claude.com" if host_and_path.startswith("claude.com/") else host_and_path  # said beside claude.ai's
        assert short in told, address


@pytest.mark.parametrize("name", ["cursor", "vscode"])
def test_the_json_to_paste_is_what_the_command_prints(name: str) -> None:
    client = CLIENTS[name]
    [shown] = re.findall(r"```json\n(.*?)```", section(client.title), flags=re.DOTALL)
    printed = "\n".join(client.told(URL))
    assert shown.strip() in printed
    assert URL in json.dumps(json.loads(shown))


def test_the_command_for_claude_code_is_what_the_page_says() -> None:
    [line] = [each.strip() for each in CLIENTS["claude"].told(URL) if "claude mcp add" in each]
    assert line in section("Claude")


def test_there_is_a_page_for_each_login_that_the_connect_page_links() -> None:
    assert {f"idp/{page.name}" for page in PAGES} == set(re.findall(r"\((idp/[a-z0-9]+\.md)\)", CONNECT))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_page_says_what_of_it_was_run_and_its_configuration_is_taken(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert ("Nothing on this page was run against" in text) != (page.stem == "glewlwyd")
    assert "`<public url>/oauth/callback`" in text
    assert "`openid email profile`" in text
    blocks = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == (0 if page.stem == "google" else 1)
    for block in blocks:
        settings = config.parse(f"gateway: {{resource: {URL}}}\nupstreams: {{}}\n{block}")
        if page.stem == "glewlwyd":
            assert settings.broker
            assert settings.broker.login.subject_claim == "preferred_username"
        else:
            assert settings.issuers[0].algorithms == ("RS256",)
