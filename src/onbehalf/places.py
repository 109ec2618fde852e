"""What a command knows of a gateway before any of it is built: its settings, its names, and where its files lie.

Must not open anything but the settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from onbehalf import config
from onbehalf.config import Settings
from onbehalf.errors import ConfigInvalid

__all__ = ["VERSION", "Paths", "load_settings", "log_origin", "make_data", "paths", "trust_domain"]

VERSION = "0.1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where the parts of one gateway lie; relative settings are relative to the configuration file."""

    config: Path
    data: Path
    policies: Path
    people: Path

    @property
    def keys(self) -> Path:
        """Signing and sealing keys."""
        return self.data / "keys"

    @property
    def kept(self) -> Path:
        """Every policy bundle that was in force."""
        return self.data / "policies"

    @property
    def ledger(self) -> Path:
        """The record."""
        return self.data / "ledger.db"

    @property
    def replica(self) -> Path:
        """Which replica of a shared record this folder's last run was."""
        return self.data / "replica.json"

    @property
    def eraser(self) -> Path:
        """Which replica of a shared record the last command was that erased, from this folder."""
        return self.data / "eraser.json"

    @property
    def heads(self) -> Path:
        """Heads of the record that were cosigned."""
        return self.data / "heads.db"

    @property
    def spool(self) -> Path:
        """What other processes want on the record."""
        return self.data / "spool"

    @property
    def directory(self) -> Path:
        """The directory database, made from `people`."""
        return self.data / "directory.db"

    @property
    def scim(self) -> Path:
        """What identity providers pushed."""
        return self.data / "scim.db"

    @property
    def approvals(self) -> Path:
        """What people were asked to approve."""
        return self.data / "approvals.db"

    @property
    def broker(self) -> Path:
        """Grants and clients of the sign-in broker."""
        return self.data / "broker.db"

    @property
    def proofs(self) -> Path:
        """Which proofs of clients were used."""
        return self.data / "proofs.db"

    @property
    def vault(self) -> Path:
        """People's own logins at upstreams."""
        return self.data / "vault.db"

    @property
    def revocations(self) -> Path:
        """Who is stopped."""
        return self.data / "revocations.db"

    @property
    def once(self) -> Path:
        """Which writing calls were begun and done."""
        return self.data / "once.db"


def load_settings(path: Path) -> Settings:
    """The settings in a file. Raises ConfigInvalid."""
    try:
        return config.parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"`{path}` cannot be read: {error}", hint="`onbehalf init` writes one") from error


def paths(path: Path, settings: Settings) -> Paths:
    """Where the parts lie."""
    base, gateway = path.resolve().parent, settings.gateway
    return Paths(config=path, data=base / gateway.data, policies=base / gateway.policies, people=base / gateway.people)


def trust_domain(settings: Settings) -> str:
    """The issuer name in call tokens."""
    resource = urlsplit(settings.gateway.resource)
    return settings.gateway.trust_domain or f"{resource.scheme}://{resource.netloc}"


def log_origin(settings: Settings) -> str:
    """The name of the record in its checkpoints (C2SP: a URL without scheme)."""
    return settings.gateway.log_origin or f"{urlsplit(trust_domain(settings)).netloc}/ledger"


def make_data(places: Paths) -> None:
    """The folder of the data, made where there is none. Raises ConfigInvalid."""
    try:
        places.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigInvalid(f"`{places.data}` cannot be made: {error.strerror}", hint="`data` names another") from error
