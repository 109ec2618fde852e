"""People's own accounts without a browser: renewal, its end, and who may connect what."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import pytest

from act.test_bearer import jwt_of
from onbehalf import connecting
from onbehalf.connecting import Account, Connecting, ConnectionDead, Owner
from onbehalf.doors.upstream_authorization import AuthorizationFailed
from onbehalf.doors.vault_accounts import Meant, VaultAuthorizer
from onbehalf.errors import ConnectionUnknown, VaultUnavailable
from onbehalf.model import AuditEntry, Caller, Digest, Entity, Person, Receipt, ToolCall, UnixTime
from replacing import replace
from validate.policy_house import BOB, DANA, NOW, caller, person, tool, tool_call

MEANT = {"code": Meant(gateway="https://g.example/mcp", wanted={"https://code.example"})}
OWNER = Owner(tenant="acme", person="dana", upstream="code")


class Vault:
    def __init__(self) -> None:
        self.accounts: dict[Owner, Account] = {}
        self.claims: dict[Owner, UnixTime] = {}

    async def find(self, owner: Owner) -> Account | None:
        await asyncio.sleep(0)
        return self.accounts.get(owner)

    async def keep(self, owner: Owner, account: Account) -> None:
        self.accounts[owner] = account
        self.claims.pop(owner, None)

    async def renewing(self, owner: Owner, *, now: UnixTime, until: UnixTime) -> bool:
        await asyncio.sleep(0)
        if owner not in self.accounts or self.claims.get(owner, 0) > now:
            return False
        self.claims[owner] = until
        return True

    async def drop(self, owner: Owner) -> bool:
        return self.accounts.pop(owner, None) is not None


class Accounts:
    title = "Code"

    def __init__(self) -> None:
        self.renewals: list[str] = []
        self.fails: Exception | None = None

    async def renewed(self, account: Account, *, now: UnixTime) -> Account:
        await asyncio.sleep(0.01)
        if self.fails is not None:
            raise self.fails
        self.renewals.append(account.refresh)
        number = len(self.renewals)
        return Account(access=f"access-{number}", refresh=f"refresh-{number}", until=now + 3600)


class Ledger:
    def __init__(self) -> None:
        self.kinds: list[str] = []

    async def append(self, entry: AuditEntry) -> Receipt:
        self.kinds.append(entry.kind)
        assert "access" not in str(entry.facts)
        return Receipt(index=0, leaf=Digest("sha256:0"))

    def follow(self, entry: AuditEntry) -> None:
        raise AssertionError


class Directory:
    async def person(self, caller: Caller) -> Person:
        known = person(DANA if caller.subject == "dana" else BOB, tenant=caller.tenant)
        return replace(known, ref=replace(known.ref, id=f"{caller.tenant}/{caller.subject}"))

    async def people(self, tenant: str, ids: Iterable[str]) -> Sequence[Entity]:
        raise AssertionError


class House:
    def __init__(self) -> None:
        self.now, self.vault, self.accounts, self.ledger = int(NOW), Vault(), Accounts(), Ledger()
        ids = iter(f"id-{number}" for number in range(100))
        self.connecting = Connecting(
            clock=lambda: UnixTime(self.now), fresh=lambda: next(ids), vault=self.vault, directory=Directory(),
            ledger=self.ledger, url="https://g.example/connect/", issuers=frozenset({CALLER.evidence.issuer}),
            accounts={"code": self.accounts},
        )  # fmt: skip


CALLER = replace(caller(), subject="dana", tenant="acme")


def call(who: Caller = CALLER) -> ToolCall:
    made = tool_call(person(DANA))
    return replace(made, tool=replace(tool(), upstream="code"), caller=who)


def test_a_call_of_another_upstream_needs_no_account() -> None:
    house = House()
    made = call()
    assert asyncio.run(house.connecting.needed(replace(made, tool=replace(made.tool, upstream="notes")))) is None
    waiting = asyncio.run(house.connecting.needed(made))
    assert waiting is not None
    assert waiting.url == "https://g.example/connect/id-0"


def test_who_cannot_log_in_to_the_pages_is_told_so_and_given_no_link() -> None:
    house = House()
    evidence = replace(CALLER.evidence, issuer="https://elsewhere.example")
    waiting = asyncio.run(house.connecting.needed(call(replace(CALLER, evidence=evidence))))
    assert waiting is not None
    assert waiting.url == ""
    assert "cannot be connected here" in waiting.message


@pytest.mark.parametrize("changes", [{"subject": "bob"}, {"tenant": "globex"}])
def test_a_connection_is_looked_at_by_its_own_person_only_and_for_a_quarter_of_an_hour(changes: dict[str, str]) -> None:
    house = House()
    asyncio.run(house.connecting.needed(call()))
    assert asyncio.run(house.connecting.look(CALLER, "id-0")).owner == OWNER
    with pytest.raises(ConnectionUnknown):
        asyncio.run(house.connecting.look(replace(CALLER, **changes), "id-0"))
    with pytest.raises(ConnectionUnknown):
        asyncio.run(house.connecting.connected(replace(CALLER, **changes), "id-0", Account(access="mine")))
    assert house.vault.accounts == {}
    house.now += 901
    with pytest.raises(ConnectionUnknown):
        asyncio.run(house.connecting.look(CALLER, "id-0"))


def test_a_connection_is_made_once_and_on_record_first() -> None:
    house = House()
    asyncio.run(house.connecting.needed(call()))
    asyncio.run(house.connecting.connected(CALLER, "id-0", Account(access="mine")))
    assert house.ledger.kinds == ["connected"]
    assert house.vault.accounts == {OWNER: Account(access="mine")}
    assert asyncio.run(house.connecting.needed(call())) is None
    with pytest.raises(ConnectionUnknown):
        asyncio.run(house.connecting.connected(CALLER, "id-0", Account(access="other")))


def test_calls_at_once_renew_a_token_once() -> None:
    house = House()
    house.vault.accounts[OWNER] = Account(access="old", refresh="refresh-0", until=house.now + 30)

    async def many() -> list[str]:
        return list(await asyncio.gather(*(house.connecting.bearer(call()) for _ in range(20))))

    assert set(asyncio.run(many())) == {"access-1"}
    assert house.accounts.renewals == ["refresh-0"]
    assert house.vault.accounts[OWNER].refresh == "refresh-1"


def two_gateways(monkeypatch: pytest.MonkeyPatch) -> tuple[House, House]:
    """Which share a vault and what is behind it."""
    monkeypatch.setattr(connecting, "_LOOK_AGAIN_S", 0.005)
    here, there = House(), House()
    there.vault = there.connecting.vault = here.vault
    there.accounts, there.connecting.accounts = here.accounts, here.connecting.accounts
    here.vault.accounts[OWNER] = Account(access="old", refresh="refresh-0", until=here.now + 30)
    return here, there


def test_of_two_gateways_that_would_renew_a_login_one_does_and_the_other_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = two_gateways(monkeypatch)

    async def many() -> list[str]:
        return list(await asyncio.gather(*(house.connecting.bearer(call()) for house in (here, there) * 5)))

    assert set(asyncio.run(many())) == {"access-1"}
    assert here.accounts.renewals == ["refresh-0"]


def test_a_login_that_another_gateway_renews_and_is_not_done_with_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = two_gateways(monkeypatch)
    here.vault.claims[OWNER] = UnixTime(here.now + 60)  # that gateway ended in the middle
    with pytest.raises(VaultUnavailable, match="another gateway renews"):
        asyncio.run(there.connecting.bearer(call()))
    there.now += 60
    assert asyncio.run(there.connecting.bearer(call())) == "access-1"


def test_a_token_that_was_refused_while_another_gateway_renews_it_is_left_to_that_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = two_gateways(monkeypatch)

    async def both() -> str:
        renewing = asyncio.create_task(here.connecting.bearer(call()))
        while not here.vault.claims:
            await asyncio.sleep(0)
        await there.connecting.refused(call())
        return await renewing

    assert asyncio.run(both()) == "access-1"
    assert here.vault.accounts[OWNER].refresh == "refresh-1"


def test_a_renewal_that_fails_leaves_it_to_whoever_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = two_gateways(monkeypatch)
    here.accounts.fails = AuthorizationFailed("it is down")
    with pytest.raises(AuthorizationFailed):
        asyncio.run(here.connecting.bearer(call()))
    here.accounts.fails = None
    assert asyncio.run(there.connecting.bearer(call())) == "access-1"


def test_a_login_that_is_dead_is_forgotten_on_record_and_asked_for_anew() -> None:
    house = House()
    house.vault.accounts[OWNER] = Account(access="old", refresh="refresh-0", until=house.now)
    house.accounts.fails = ConnectionDead()
    with pytest.raises(AuthorizationFailed, match="connected anew"):
        asyncio.run(VaultAuthorizer(house.connecting, MEANT).bearer(call()))
    assert house.ledger.kinds == ["disconnected"]
    waiting = asyncio.run(house.connecting.needed(call()))
    assert waiting is not None
    assert waiting.url


@pytest.mark.parametrize("aud", ["https://g.example/mcp", "https://other.example"])
def test_a_kept_token_that_is_not_for_the_upstream_is_not_used_and_is_had_anew(aud: str) -> None:
    house = House()
    house.vault.accounts[OWNER] = Account(access=jwt_of(aud=aud), refresh="refresh-0")
    authorizer = VaultAuthorizer(house.connecting, MEANT)
    with pytest.raises(AuthorizationFailed) as caught:
        asyncio.run(authorizer.bearer(call()))
    assert caught.value.code == "upstream_token_unfit"
    assert asyncio.run(authorizer.bearer(call())) == "access-1"


def test_a_server_that_is_down_ends_no_login() -> None:
    house = House()
    house.vault.accounts[OWNER] = Account(access="old", refresh="refresh-0", until=house.now)
    house.accounts.fails = AuthorizationFailed("it is down")
    with pytest.raises(AuthorizationFailed):
        asyncio.run(house.connecting.bearer(call()))
    house.accounts.fails = None
    assert asyncio.run(house.connecting.bearer(call())) == "access-1"


def test_a_token_without_renewal_that_is_over_or_refused_is_forgotten() -> None:
    house = House()
    house.vault.accounts[OWNER] = Account(access="old", until=house.now)
    with pytest.raises(ConnectionDead):
        asyncio.run(house.connecting.bearer(call()))
    house.vault.accounts[OWNER] = Account(access="lasting")
    assert asyncio.run(house.connecting.bearer(call())) == "lasting"
    asyncio.run(house.connecting.refused(call()))
    assert house.vault.accounts == {}
    assert house.ledger.kinds == ["disconnected", "disconnected"]
