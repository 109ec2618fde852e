"""A company whose people approve calls: a gateway process, the demo issuer as its login, and an MCP server behind."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2

from company import Company, company
from house_process import bearer
from onbehalf.demo.run import _start_part
from ports import free_port

__all__ = ["ALICE", "BOB", "CLIENT", "Browser", "Town", "approval_town"]

CLIENT = "gateway-pages"
MARTA, ALICE, BOB, INES = "u-1003", "u-1001", "u-1008", "u-1002"
PEOPLE = """
tenants:
  acme:
    positions: {vp: [], lead: [vp], ic: [lead], ic2: [lead]}
    groups: {staff: []}
    people:
      marta: {name: Marta Lindqvist, position: vp, groups: [staff], logins: [{issuer: "@ISSUER@", subject: u-1003}]}
      alice: {name: Alice Ngo, position: lead, groups: [staff], logins: [{issuer: "@ISSUER@", subject: u-1001}]}
      bob: {name: Bob <b>Tran</b>, position: ic, groups: [staff], logins: [{issuer: "@ISSUER@", subject: u-1008}]}
      ines: {name: Ines Halloran, position: ic2, groups: [staff], logins: [{issuer: "@ISSUER@", subject: u-1002}]}
"""
POLICIES = """
@id("staff") @doc("Staff read at the desk.") @remedy("Ask for the group staff.")
permit (principal in Group::"acme/staff", action == Action::"readDesk", resource is Tool);
@id("writes") @doc("Staff write with an approval.") @remedy("Ask for the group staff.") @approve("@BY@")
permit (principal in Group::"acme/staff", action == Action::"writeDesk", resource is Tool);
"""


@dataclass(kw_only=True)
class Town:
    """Where things listen; `company` calls tools."""

    company: Company
    issuer: str
    tokens: dict[str, str] = field(default_factory=dict)

    def token(self, subject: str) -> str:
        """A token of this person's one client."""
        if subject not in self.tokens:
            self.tokens[subject] = bearer(self.issuer, f"{self.company.gateway}/mcp", subject)
        return self.tokens[subject]

    def call(self, subject: str = BOB, **arguments: Any) -> Any:
        return self.company.call("desk_write", token=self.token(subject), **(arguments or {"word": "hello"}))

    def url(self, result: Any) -> str:
        return str(result["_meta"]["onbehalf/approval"]["url"])

    def written(self) -> int:
        return sum(1 for name, _ in self.company.desk.seen if name == "desk_write")


@contextmanager
def approval_town(directory: Path, *, by: str = "manager", lifetime: int = 900) -> Iterator[Town]:
    """All of it, serving."""
    port = free_port()
    issuer = f"http://127.0.0.1:{port}"
    with company(directory) as made:
        places = (made.issuer.url, issuer)
        made.edit(*places)
        made.edit("tenant: acme, ", f"tenant: acme, login: {{client_id: {CLIENT}}}, ")
        made.edit("limits: {", f"approvals: {{lifetime_seconds: {lifetime}}}\n  limits: {{")
        made.edit("scopes: [desk.write]", "scopes: [tickets.write]")
        made.edit("scopes: [notes.read]", "scopes: [reviews.read]")
        (made.directory / "people.yaml").write_text(PEOPLE.replace("@ISSUER@", issuer))
        (made.directory / "policies" / "own.cedar").write_text(POLICIES.replace("@BY@", by))
        with ExitStack() as house:
            command = (
                sys.executable, "-m", "onbehalf.demo.issuer", "--port", str(port),
                "--resource", f"{made.gateway}/mcp", "--client", CLIENT, f"{made.gateway}/approvals/back",
            )  # fmt: skip
            _start_part(house, command, directory)
            house.enter_context(made.serving())
            yield Town(company=made, issuer=issuer)


class Browser:
    """A browser without a screen or a script: keeps cookies, follows links and sends forms, as told."""

    def __init__(self) -> None:
        self.http = httpx2.Client(follow_redirects=False, timeout=10, trust_env=False)

    def get(self, url: str) -> httpx2.Response:
        """Open an address; redirects are followed."""
        answer = self.http.get(url)
        while answer.is_redirect:
            answer = self.http.get(urljoin(str(answer.url), answer.headers["location"]))
        return answer

    def login(self, url: str, subject: str) -> httpx2.Response:
        """Open an approval's address, log in as somebody, and get where that leads."""
        page = self.get(url)
        link = re.search(r'href="(/approvals/login[^"]+)"', page.text)
        assert link, page.text
        at_issuer = self.get(urljoin(url, unescape(link[1])))
        return self.pick(at_issuer, subject)

    def pick(self, at_issuer: httpx2.Response, subject: str) -> httpx2.Response:
        name = re.search(r'name="login" value="([^"]+)"', at_issuer.text)
        assert name, at_issuer.text
        sent = self.http.post(urljoin(str(at_issuer.url), "authorize"), data={"login": name[1], "subject": subject})
        assert sent.is_redirect, sent.text
        return self.get(sent.headers["location"])

    def say(self, page: httpx2.Response, word: str, **changes: Any) -> httpx2.Response:
        """Press a button of an approval's page. `changes` are other headers, or another `token`."""
        token = re.search(r'name="token" value="([^"]+)"', page.text)
        assert token, page.text
        parts = urlsplit(str(page.url))
        headers = {"origin": f"{parts.scheme}://{parts.netloc}", **changes.pop("headers", {})}
        form = {"say": word, "token": token[1], **changes}
        answer = self.http.post(str(page.url), data=form, headers={k: v for k, v in headers.items() if v is not None})
        return self.get(urljoin(str(page.url), answer.headers["location"])) if answer.is_redirect else answer
