"""`onbehalf audit erase` and `audit hold`: what is said of a person is erased, or may not be.

A running gateway carries out what is asked for here; where none runs, the command does.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from onbehalf.build_ledger import erasing_alone, erasing_keys, ledger_store
from onbehalf.cli.screen import AsJson, ConfigFile, console, plain, print_json, user
from onbehalf.config_settings import Settings
from onbehalf.doors.clock_system import now
from onbehalf.doors.directory_tell import tell
from onbehalf.doors.ledger_erasable import Kind, Span
from onbehalf.doors.ledger_erase import old_span, size_of, span_of, without_own_key
from onbehalf.doors.ledger_requests import Request, Requests
from onbehalf.doors.ledger_sealing import SubjectSealing
from onbehalf.doors.ledger_store import LedgerStore
from onbehalf.errors import ConfigInvalid, DirectoryUnavailable, ErasureRefused, LedgerUnavailable
from onbehalf.explain.erasure import login_name
from onbehalf.model import Json
from onbehalf.places import Paths, load_settings, log_origin, paths

__all__ = ["erase", "hold"]

hold = typer.Typer(help="Legal holds: nothing about a person is erased while one stands.", no_args_is_help=True)

_SUBJECT = re.compile(r"[^/\s]+/(service/)?[^/\s]+")
_WAIT_SECONDS = 60.0
_DAY = 86_400
_MAX_WORDS = 500
_GATEWAY = "the gateway does it while it runs, or when it starts; its log says what is in the way"
_PENDING = "mend what is in the way, then: onbehalf audit erase --pending"

Subject = Annotated[str, typer.Argument(help="Who, as the record names them: TENANT/PERSON.", metavar="TENANT/PERSON")]
Login = Annotated[
    list[str] | None,
    typer.Option(help='A login of theirs that the directory does not know: "ISSUER SUBJECT"; also several.'),
]


@dataclass(frozen=True, slots=True)
class _House:
    """What a command works on."""

    settings: Settings
    places: Paths
    origin: str
    store: LedgerStore
    sealing: SubjectSealing
    requests: Requests

    def labels(self, subject: str, logins: list[str]) -> list[bytes]:
        """By what everything of theirs is found: under their id, and under logins from before they were known."""
        names = [subject] if subject else []
        for each in logins:
            issuer, _, name = each.partition(" ")
            if not issuer or not name:
                raise ConfigInvalid(f"`{each}` is no login", hint='--login "https://login.example alice@example.com"')
            names.append(login_name(issuer, name))
        tenant, _, person = subject.partition("/")
        with suppress(DirectoryUnavailable):
            found = tell(self.places.directory, tenant, person) if person else None
            names += [login_name(*each) for each in found.logins] if found is not None and found.id == person else []
        return [self.sealing.wrapping.label(each) for each in dict.fromkeys(names)]

    def ask(self, kind: Kind, said: Mapping[str, Json], *, hold: list[bytes] | None = None) -> Request:
        """Ask for something and wait until it is carried out. Raises ErasureRefused, LedgerUnavailable."""
        whole = {**said, "by": user(), "at": int(now()), "from": size_of(self.store)}
        asked = self.requests.ask(kind, whole, hold=hold or ())
        self._until_done(lambda _: self.requests.find(asked.id).state in ("done", "refused"))
        found = self.requests.find(asked.id)
        if found.state == "refused":
            raise ErasureRefused(str(found.result.get("why")), hint="nothing was erased")
        return found

    def finish(self) -> None:
        """Carry out all that is asked for. Raises LedgerUnavailable."""
        shared = self.settings.gateway.ledger.postgres is not None  # else a gateway does the rest at its start
        self._until_done(lambda rounds: (rounds > 0 or not shared) and not self.requests.pending())

    def _until_done(self, is_so: Callable[[int], bool]) -> None:
        """Carry out what is asked for until `is_so`, which is told how often that was done."""
        until, rounds = time.monotonic() + _WAIT_SECONDS, 0
        while not is_so(rounds):
            try:
                asyncio.run(self._carry_out())
                rounds += 1
            except LedgerUnavailable as error:
                if time.monotonic() > until:
                    hint = _GATEWAY if self.settings.gateway.ledger.postgres is None else _PENDING
                    raise LedgerUnavailable(
                        f"it is asked for, and not carried out yet: {error.message}", hint=hint
                    ) from error
                time.sleep(0.2)

    async def _carry_out(self) -> None:
        """As the gateway would. Raises LedgerUnavailable while another process does."""
        async with erasing_alone(self.places, self.settings, origin=self.origin) as erasing:
            await erasing.begin()
            await erasing.carry_out()


@dataclass(frozen=True, slots=True)
class _Plan:
    """What would be erased. `note` is what it does not reach."""

    kind: Kind
    span: Span
    said: dict[str, Json]
    what: str
    note: str = ""


def erase(
    subject: Annotated[str, typer.Option(help="Whose records: TENANT/PERSON, as the record names them.")] = "",
    before: Annotated[str, typer.Option(help="Or everybody's, from before a time (UTC), such as 2020-01-01.")] = "",
    basis: Annotated[str, typer.Option(help="On which legal basis. It goes on record: name nobody in it.")] = "",
    login: Login = None,
    pending: Annotated[bool, typer.Option("--pending", help="Finish what was asked for before, and cut off.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: ConfigFile = Path("onbehalf.yaml"),
    as_json: AsJson = False,
) -> None:
    """Erase what the record says of a person, or of times that need not be kept any longer.

    Their keys are destroyed, so that nothing opens what was sealed with them; or, with --before,
    payloads are deleted. Leaves stay: the record verifies, and an `erased` record tells how many,
    when, on which basis. It cannot be undone. A legal hold blocks it (onbehalf audit hold).
    What the record says of them in others' records stays.

    Example: onbehalf audit erase --subject acme/alice --basis "GDPR art. 17(1)(a)"
    """
    if pending and not (subject or login or before or basis):
        _house(config).finish()
        console().print("Nothing is left to be carried out.")
        return
    if pending or bool(subject or login) == bool(before):
        raise ConfigInvalid("say whose records, or from before when", hint="--subject TENANT/PERSON, or --before DATE")
    _require_words(basis, "--basis", 'say why it is lawful: --basis "GDPR art. 17(1)(a)"')
    if as_json and not yes:
        raise ConfigInvalid("with --json nobody is asked", hint="look first without it, then add --yes")
    house = _house(config)
    plan = _too_old(house, before) if before else _of_person(house, subject, login or [])
    if plan.span.count == 0:
        raise ErasureRefused(f"there is no payload {plan.what}", hint="`onbehalf audit list` shows who is on record")
    if not as_json:
        _show(plan)
    if not yes:
        typer.confirm("Erase them for good?", abort=True)
    result = house.ask(plan.kind, {**plan.said, "basis": basis.strip()}).result
    if as_json:
        print_json({"erased": dict(result)})
        return
    console().print(f"{result['count']} payloads are erased. Record {result['leaf']} says so; the log still verifies.")


@hold.command("add")
def add(
    subject: Subject,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why. It goes on record.")] = "",
    login: Login = None,
    config: ConfigFile = Path("onbehalf.yaml"),
) -> None:
    """Let nothing about this person be erased, from now on, until it is lifted.

    Example: onbehalf audit hold add acme/alice --reason "case 4711"
    """
    _require_words(reason, "--reason", 'say why: --reason "case 4711"')
    house = _house(config)
    labels = house.labels(_subject(subject), login or [])
    found = house.ask("hold", {"whom": subject, "reason": reason.strip()}, hold=labels)
    console().print(
        plain(f"Hold {found.number} on {subject} stands. Record {found.result['leaf']} says so."), markup=False
    )


@hold.command("list")
def list_(config: ConfigFile = Path("onbehalf.yaml"), as_json: AsJson = False) -> None:
    """Print the legal holds that stand.

    Example: onbehalf audit hold list --json
    """
    found = _house(config).requests.holds()
    if as_json:
        told: list[Json] = [
            {"number": each.number, "whom": each.whom, "reason": each.reason, "by": each.by, "at": each.at}
            for each in found
        ]
        print_json({"holds": told})
        return
    for each in found:
        at = datetime.fromtimestamp(each.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        console().print(plain(f"{each.number}  {each.whom}  since {at} by {each.by}: {each.reason}"), markup=False)
    if not found:
        console().print("No legal hold stands.")


@hold.command("lift")
def lift(
    number: Annotated[int, typer.Argument(help="Its number in `onbehalf audit hold list`.")],
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why. It goes on record.")] = "",
    config: ConfigFile = Path("onbehalf.yaml"),
) -> None:
    """Lift a legal hold. What it held may be erased then, and is not by itself.

    Example: onbehalf audit hold lift 3 --reason "case 4711 closed"
    """
    _require_words(reason, "--reason", 'say why: --reason "case 4711 closed"')
    house = _house(config)
    found = next((each for each in house.requests.holds() if each.number == number), None)
    if found is None:
        raise ConfigInvalid(f"there is no hold {number}", hint="`onbehalf audit hold list` lists those that stand")
    done = house.ask("lift", {"number": number, "whom": found.whom, "reason": reason.strip()})
    console().print(plain(f"The hold on {found.whom} is lifted. Record {done.result['leaf']} says so."), markup=False)


def _house(config: Path) -> _House:
    settings = load_settings(config)
    places, origin = paths(config, settings), log_origin(settings)
    sealing = erasing_keys(places, settings, origin=origin)
    store = ledger_store(places, settings, primary=True)
    return _House(settings, places, origin, store, sealing, Requests(sealing.store, sealing.wrapping))


def _subject(text: str) -> str:
    if not _SUBJECT.fullmatch(text) or not text.isprintable():
        raise ConfigInvalid(f"`{text}` names nobody", hint="TENANT/PERSON, such as acme/alice")
    return text


def _require_words(text: str, option: str, hint: str) -> None:
    if not text.strip() or len(text) > _MAX_WORDS or not text.isprintable():
        raise ConfigInvalid(f"{option} has 1 to {_MAX_WORDS} characters on one line", hint=hint)


def _time(text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
        found = int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError) as error:
        raise ConfigInvalid(f"`{text}` is no time", hint="such as 2020-01-01") from error
    if not 0 < found <= now() - _DAY:
        raise ConfigInvalid(f"`{text}` is not a day ago", hint="what is younger is never too old to be kept")
    return found


def _of_person(house: _House, subject: str, logins: list[str]) -> _Plan:
    labels = house.labels(_subject(subject) if subject else "", logins)
    if house.requests.held(labels):
        raise ErasureRefused("a legal hold stands", hint="`onbehalf audit hold list` shows it; nothing was erased")
    span = span_of(house.store, sorted(house.requests.keys(labels)))
    older = without_own_key(house.store)
    note = f"{older} records of calls are older than people's own keys: only --before reaches them." if older else ""
    whom = subject or ", ".join(logins)
    return _Plan("erase", span, {"labels": [each.hex() for each in labels]}, f"of {whom}", note)


def _too_old(house: _House, before: str) -> _Plan:
    at = _time(before)
    return _Plan("retain", old_span(house.store, house.requests, at), {"before": at}, f"from before {before}")


def _show(plan: _Plan) -> None:
    screen, span = console(), plan.span
    screen.print(plain(f"{span.count} payloads {plan.what}, in records {span.first} to {span.last}."), markup=False)
    if plan.note:
        screen.print(plan.note)
