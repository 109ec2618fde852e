"""`onbehalf audit export-log` and `export`: the record for people outside, also while the gateway runs."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import orjson
import typer

from onbehalf.build_ledger import ledger_store, reading_heads
from onbehalf.build_witnesses import read_policy
from onbehalf.cli.explain import opened
from onbehalf.cli.reading import Purpose, delivered, noted
from onbehalf.cli.screen import AsJson, ConfigFile, console, print_json, quoted
from onbehalf.config import Settings
from onbehalf.doors import policies_kept
from onbehalf.doors.clock_system import now
from onbehalf.doors.engine_cedar_files import policies_in
from onbehalf.doors.ledger_evidence import Asked, Exported, Place
from onbehalf.doors.ledger_evidence import export as write_bundle
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.doors.ledger_signing import HeadSigning, SignedTiles
from onbehalf.doors.ledger_tiles import LedgerTiles
from onbehalf.doors.ledger_tiles import export_log as write_log
from onbehalf.doors.ledger_witness import Ahead
from onbehalf.doors.signer_file import FileSigner
from onbehalf.errors import ConfigInvalid, LedgerCorrupt, OnbehalfError
from onbehalf.explain.controls import CONTROLS
from onbehalf.explain.reading import Read
from onbehalf.explain.sample import MOST
from onbehalf.model import Json, digest
from onbehalf.places import Paths, load_settings, paths, trust_domain
from onbehalf.verifier.check import check
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.report import Report, Verdict

__all__ = ["controls", "export", "export_log", "place_of"]

_MAX_NOTE = 262_144
_MAX_SEED = 200
_SAMPLE = 25
_WAIT_SECONDS = 20.0
_TRIES, _PAUSE_S = 10, 0.2
_MAX_KEYS = 65_536
_FACT = re.compile(r"[a-z][a-z0-9_]{0,63}")
_PUBLIC = ("kty", "crv", "x", "kid", "use", "alg")
_FINE = (Verdict.verified, Verdict.erased, Verdict.unknown)


def export_log(
    directory: Annotated[Path, typer.Argument(help="Where to; made if missing. Full tiles there are kept.")],
    config: ConfigFile = Path("onbehalf.yaml"),
) -> None:
    """Write the log as static files (C2SP tlog-tiles), to be served or kept elsewhere.

    The files are checkpoint, tile/<L>/<N> and tile/entries/<N>. Leaves are commitments: no payload
    is written. Run it again to add what is new; the checkpoint comes last.

    Example: onbehalf audit export-log /srv/www/log
    """
    settings = load_settings(config)
    places = paths(config, settings)
    source = LedgerTiles(ledger_store(places, settings))
    try:
        with _signing(places, settings, opened(config)) as sign:
            size = write_log(SignedTiles(source, sign) if sign is not None else source, directory)
    finally:
        source.close()
    console().print(f"The log of {size} records is in {quoted(str(directory))}.")


def controls(as_json: AsJson = False) -> None:
    """Name the controls that `onbehalf audit export --control` knows, and what the record shows of each.

    Clauses are named, not quoted: a pointer for somebody who knows the standard.
    """
    if as_json:
        return print_json({name: asdict(each) for name, each in CONTROLS.items()})
    for name, each in CONTROLS.items():
        console().print(f"[bold]{quoted(name)}[/bold]  {quoted(each.clause)}: {quoted(each.title)}", soft_wrap=True)
        console().print(f"    {quoted(each.shows)} Not shown: {quoted(each.not_shown)}", soft_wrap=True)


def export(
    out: Annotated[Path, typer.Argument(help="The zip file to write.", metavar="OUT.zip")],
    config: ConfigFile = Path("onbehalf.yaml"),
    start: Annotated[str, typer.Option("--from", help="A time (UTC), such as 2026-11-01, or a record's number.")] = "0",
    end: Annotated[str, typer.Option("--to", help="The same, not included; by default all up to now.")] = "",
    open_: Annotated[str, typer.Option("--open", help="`none`, `all`, or facts by name: tool,decision.")] = "none",
    tool: Annotated[str, typer.Option(help="Open only what is about this tool.")] = "",
    person: Annotated[str, typer.Option(help="Open only what is about this person's calls.")] = "",
    control: Annotated[str, typer.Option(help="Evidence for a control of `onbehalf audit controls`.")] = "",
    sample: Annotated[int, typer.Option(help="Open so many calls in full, chosen by a seed.", min=0)] = 0,
    seed: Annotated[str, typer.Option(help="The auditor's word, to choose the sample by.")] = "",
    since: Annotated[Path | None, typer.Option(help="A kept checkpoint, to prove nothing was taken back.")] = None,
    witness: Annotated[list[str] | None, typer.Option(help="Address of a witness to cosign; also several.")] = None,
    unwitnessed: Annotated[bool, typer.Option(help="Do not ask the witnesses of `gateway.witnesses`.")] = False,
    purpose: Purpose = "",
) -> None:  # fmt: skip
    """Write evidence for an auditor: one file that anybody can check offline.

    It holds every leaf of the range with proofs, what you open of them with its salts, keys, and
    the policies. Leaves are never left out, whatever is asked for: --tool and --person only narrow
    down what is opened. The witnesses of `gateway.witnesses` cosign its newest head, or no bundle
    is written. The bundle is checked before this ends. That it is made goes on record first, and so
    stands in it.

    A sample is chosen by the auditor's --seed, or without one by the signed head and its cosignatures,
    so nobody picks the calls; the verifier chooses them anew. --control takes a sample of 25, and says what of the
    record is evidence for that control.

    Example: onbehalf audit export --from 2026-11-01 --to 2026-12-01 --open all november.zip
    Example: onbehalf audit export --from 2026-11-01 --control soc2-cc6.1 --seed "our word" q4.zip
    """
    asked = replace(_asked(start, end, open_, tool, person, since), witnesses=tuple(witness or ()))
    if control or sample or seed:
        asked = _sampled(asked, control, sample, seed)
    settings = load_settings(config)
    places = paths(config, settings)
    opens = asked.everything or bool(asked.open)
    found = policies_in(places.policies) if opens else b""
    opened(config).close()  # nothing is said on record of a bundle that cannot be made
    _note(asked, places, settings, purpose)
    reader = opened(config)
    with _signing(places, settings, reader) as sign:
        if settings.gateway.witnesses is not None and not unwitnessed:
            log = reader.keys.vkeys if reader.keys is not None else ()
            asked = replace(asked, policy=read_policy(settings.gateway.witnesses, config.resolve().parent, log=log))
        write = partial(
            write_bundle, reader, out, keys=_keys(config, settings),
            policies={digest(found): found} if found else {}, kept=partial(policies_kept.find, places.kept),
            sign=sign.line if sign is not None else None, heads=sign.heads if sign is not None else None,
        )  # fmt: skip
        done = _written(write, asked)
        key = "\n".join(reader.keys.vkeys) if reader.keys is not None else reader.verifier.vkey
    try:
        report = check(out, key=key, kept=asked.since.encode())
    except Unusable as error:
        raise LedgerCorrupt(f"the bundle that was written cannot be checked: {error}") from error
    _print(out, done, report)
    raise typer.Exit(0 if report.verdict in _FINE else 1)


def _written(write: Callable[..., Exported], asked: Asked) -> Exported:
    """The bundle, begun again where gateways had a later head cosigned than it has, or a standby has to follow: then
    with the newest one that they had cosigned, if it has all that was there at first."""
    for _ in range(_TRIES):
        try:
            return write(asked=asked)
        except Ahead as error:
            asked = replace(asked, covering=asked.covering or error.asked)
            time.sleep(_PAUSE_S)
    return write(asked=asked)


def _note(asked: Asked, places: Paths, settings: Settings, purpose: str) -> None:
    """Have it on record that a bundle is made, before the head of the bundle is taken, if that is possible in time."""
    place, number = asked.start
    start = number if place == "index" else None
    read = Read(command="audit export", start=start, filters={**asked.words}, purpose=purpose)
    name = noted(places, read)
    try:
        there = delivered(name, places, settings, wait=_WAIT_SECONDS)
    except OnbehalfError:  # such as a damaged record, of which a bundle is evidence all the same
        there = False
    if not there:
        text = "That this bundle was made is not on record yet, and so not in it: it waits for a gateway that serves."
        console(stderr=True).print(text)


@contextlib.contextmanager
def _signing(places: Paths, settings: Settings, reader: LedgerReader) -> Iterator[HeadSigning | None]:
    """What signs heads with the log's second key, where there is one, until both are closed."""
    try:
        if reader.keys is None or reader.keys.heads is None:
            yield None
            return
        heads = reading_heads(places, settings, reader.verifier)
        try:
            yield HeadSigning(heads, reader.keys.heads, clock=now)
        finally:
            heads.close()
    finally:
        reader.close()


def _asked(start: str, end: str, open_: str, tool: str, person: str, since: Path | None) -> Asked:
    names = frozenset[str]() if open_ in ("none", "all") else frozenset(open_.split(","))
    if not all(map(_FACT.fullmatch, names)):
        raise ConfigInvalid(f"`{open_}` names no facts", hint="none, all, or names such as tool,decision,outcome")
    if (tool or person) and open_ == "none":
        raise ConfigInvalid("--tool and --person choose what is opened, and --open is none", hint="say --open all")
    note = ""
    if since is not None:
        try:
            with since.open("rb") as file:
                note = file.read(_MAX_NOTE).decode("utf-8")
        except (OSError, UnicodeError) as error:
            raise ConfigInvalid(f"`{since}` cannot be read: {error}", hint="give a checkpoint in a file") from error
    words = {"from": start, "to": end, "open": open_, "tool": tool, "person": person}
    return Asked(
        start=place_of(start), end=place_of(end) if end else None, open=names, everything=open_ == "all", tool=tool,
        person=person, since=note, words={name: word for name, word in words.items() if word},
    )  # fmt: skip


def _sampled(asked: Asked, control: str, count: int, seed: str) -> Asked:
    if control and control not in CONTROLS:
        raise ConfigInvalid(f"`{control}` is no control here", hint="`onbehalf audit controls` names them")
    if asked.tool or asked.person or asked.open:
        raise ConfigInvalid("a sample is opened in full, of whatever the seed chooses", hint="leave out --open, --tool")
    count = count or (_SAMPLE if control else 0)
    if not 1 <= count <= MOST or not seed.isprintable() or len(seed) > _MAX_SEED:
        raise ConfigInvalid(
            f"a sample has 1 to {MOST} calls, and a printable seed of at most {_MAX_SEED} characters",
            hint="such as --sample 25",
        )
    words = {**asked.words, "open": "all", "sample": str(count), "seed": seed, "control": control}
    words = {name: word for name, word in words.items() if word}
    return replace(asked, everything=True, sample=count, seed=seed, control=control, words=words)


def place_of(text: str) -> Place:
    """Where a range begins or ends: a record's number, or a time. Raises ConfigInvalid."""
    if re.fullmatch(r"[0-9]{1,15}", text):
        return "index", int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigInvalid(f"`{text}` is no time", hint="such as 2026-11-01, or a record's number") from error
    return "time", int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())


def _keys(config: Path, settings: Settings) -> dict[str, Json]:
    """The public keys that an auditor may need: for call tokens, and backends' for receipts."""
    places, base = paths(config, settings), config.resolve().parent
    keys: dict[str, Json] = {}
    if (places.keys / "calls.keys").exists():
        signer = FileSigner(places.keys, issuer=trust_domain(settings))
        keys["calls"], keys["calls_states"] = signer.jwks(), [each.told() for each in signer.keys.states()]
    receipts: dict[str, Json] = {}
    for name, upstream in settings.upstreams.items():
        if place := getattr(upstream, "receipt_keys", ""):
            receipts[name] = _public(base / place)
    return {**keys, "receipts": receipts} if receipts else keys


def _public(place: Path) -> Json:
    """A JWK Set, without any member that could be secret. Raises ConfigInvalid."""
    try:
        with place.open("rb") as file:
            keys = orjson.loads(file.read(_MAX_KEYS))["keys"]
        return {"keys": [{name: each[name] for name in _PUBLIC if name in each} for each in keys]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigInvalid(f"`receipt_keys` cannot be read from `{place}`", hint="give a JWK Set in a file") from error


def _print(out: Path, done: Exported, report: Report) -> None:
    screen = console()
    if report.verdict not in _FINE:
        screen.print("[bold red]The bundle does not verify[/bold red]: the record is damaged.")
        screen.print(quoted(report.as_text()))
        return
    open_, unknown = len(done.summary.open), len(done.summary.unknown)
    screen.print(f"{quoted(str(out))}: leaves {done.start} to {done.end}, not included, of {done.size}; it verifies.")
    screen.print(f"{report.opened} facts opened, {done.erased} leaves erased, {open_} calls open, {unknown} unknown.")
    screen.print("The auditor runs: onbehalf-verify FILE --key, with the line of log.pub, which you give them apart.")
