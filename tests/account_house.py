"""People's own accounts at an upstream: how one is connected, by a browser without a screen."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from html import unescape
from typing import Any

from broker_house import Asking, BrokerHouse, Browser, Visit


@dataclass(kw_only=True)
class AccountTown:
    """A gateway, an upstream whose `tool` needs an account, and the upstream's own authorization server."""

    house: BrokerHouse
    accounts: str
    tool: str

    def token(self, person: str = "alice-at-login") -> str:
        asking = Asking(changes={"scope": "desk.write"})
        return str(self.house.redeemed(asking, self.house.code(asking, account=person)).json()["access_token"])

    def call(self, token: str) -> Any:
        return self.house.company.call(self.tool, token=token)

    def asked(self, token: str) -> str:
        """The link of a call that waits."""
        return str(self.call(token)["_meta"]["onbehalf/connect"]["url"])

    def opened(self, browser: Browser, url: str, person: str = "alice-at-login") -> Visit:
        """The page of a connection, for somebody who logs in first where they are asked."""
        page = browser.get(url)
        link = re.search(r'href="(/approvals/login[^"]+)"', page.text)
        if link is None:
            return page
        return self.house.logged_in(browser, browser.get(self.house.at + unescape(link[1])), person)

    def connected(
        self, url: str, *, browser: Browser | None = None, account: str = "alice-there", person: str = "alice-at-login"
    ) -> Visit:
        """The whole way of a person who connects their account."""
        browser = browser or Browser()
        page = self.opened(browser, url, person)
        page = browser.post(url, {"token": page.field("token"), "say": "yes"})
        login, self.house.login = self.house.login, self.accounts
        try:
            return self.house.logged_in(browser, page, account)
        finally:
            self.house.login = login

    def kept(self, *changes: str) -> Any:
        """What the vault's table says of whose logins there are, after `changes` by another hand."""
        with closing(sqlite3.connect(self.house.company.directory / "data" / "vault.db")) as base, base:
            for change in changes:
                base.execute(change)
            return base.execute("SELECT tenant, person, upstream FROM account").fetchall()
