"""`onbehalf keys`: the gateway's signing keys, and their rotation with overlap."""

from __future__ import annotations

from pathlib import Path

import typer

from onbehalf.app import load_settings, paths, trust_domain
from onbehalf.cli.screen import AsJson, ConfigFile, console, print_json
from onbehalf.doors.clock_system import now
from onbehalf.doors.signer_file import FileSigner

__all__ = ["app"]

app = typer.Typer(help="Show and rotate the keys that sign call tokens.", no_args_is_help=True)


@app.command("show")
def show(config: ConfigFile = Path("onbehalf.yaml"), as_json: AsJson = False) -> None:
    """Print the public keys, as `/.well-known/jwks.json` serves them, and the record's public key."""
    signer, log_pub = _signer(config)
    if as_json:
        print_json({"jwks": dict(signer.jwks()), "log": log_pub})
        return
    screen = console()
    for name, kid in zip(("next", "current", "previous"), signer.kids, strict=False):
        screen.print(f"{name:<9} {kid or '-'}")
    screen.print(f"record    {log_pub or '(no record yet)'}", markup=False)


@app.command("rotate")
def rotate(config: ConfigFile = Path("onbehalf.yaml")) -> None:
    """Let the next key sign from now on, keep publishing the one before, and make a new next key.

    The next key has been published all along, so backends know it already. A running gateway takes it over on SIGHUP.
    """
    signer, _ = _signer(config)
    signer.rotate(now())
    console().print("Rotated. Now let the gateway take it over: kill -HUP <its process id>")


def _signer(config: Path) -> tuple[FileSigner, str]:
    settings = load_settings(config)
    places = paths(config, settings)
    log_pub = places.keys / "log.pub"
    public = log_pub.read_text(encoding="utf-8").strip() if log_pub.exists() else ""
    return FileSigner.open(places.keys, issuer=trust_domain(settings), now=now()), public
