"""`onbehalf.yaml` as frozen values, parsed once.

Every key states its unit, default and danger here, and the JSON Schema (`onbehalf init --schema`) is
made from these classes. An unknown key is fatal and the error lists the known ones. Reading files is a
door's work: this file turns text into `Settings` and knows no path's content.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import yaml
from msgspec import Struct

from onbehalf.config_broker import BrokerClient, BrokerLogin, BrokerSettings
from onbehalf.config_directory import ClaimsSettings, DirectorySettings, FeedSettings, ScimSettings, TenantClaim
from onbehalf.config_introspection import IntrospectionSettings
from onbehalf.config_ledger import LedgerSettings, PostgresLedgerSettings
from onbehalf.config_proof import CertificateSettings, DpopSettings
from onbehalf.config_services import ServicesSettings, WorkloadSettings
from onbehalf.config_settings import (
    TENANT_CLAIM,
    ApprovalSettings,
    GatewaySettings,
    IssuerSettings,
    Limits,
    LoginSettings,
    Settings,
    broker_issuer,
    login_rule,
    token_issuers,
)
from onbehalf.config_signals import PollSettings, StreamSettings, VerificationSettings
from onbehalf.config_sinks import FileSink, HttpSink, OtlpSink, ParquetSink, PushSink, StdoutSink, SyslogSink
from onbehalf.config_sound import sound
from onbehalf.config_state import PostgresState, StateSettings
from onbehalf.config_tls import TlsSettings
from onbehalf.config_upstreams import (
    AccountSettings,
    AuthorizationSettings,
    DryRunSettings,
    EntitySettings,
    ExchangeSettings,
    FurtherSettings,
    HierarchySettings,
    LookupSettings,
    McpUpstream,
    OpenapiToolSettings,
    OpenapiUpstream,
    ParameterSettings,
    PostgresUpstream,
    RowsSettings,
    SqlUpstream,
    ToolSettings,
)
from onbehalf.config_witnesses import WitnessesSettings
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Json

__all__ = [
    "TENANT_CLAIM",
    "ApprovalSettings",
    "BrokerClient",
    "BrokerLogin",
    "BrokerSettings",
    "DryRunSettings",
    "EntitySettings",
    "GatewaySettings",
    "HierarchySettings",
    "IntrospectionSettings",
    "IssuerSettings",
    "Limits",
    "LoginSettings",
    "LookupSettings",
    "McpUpstream",
    "OpenapiToolSettings",
    "OpenapiUpstream",
    "ParameterSettings",
    "PostgresUpstream",
    "RowsSettings",
    "ServicesSettings",
    "Settings",
    "SqlUpstream",
    "TenantClaim",
    "ToolSettings",
    "WitnessesSettings",
    "WorkloadSettings",
    "broker_issuer",
    "json_schema", "login_rule",
    "parse",
    "row_attributes",
    "token_issuers",
]  # fmt: skip


class _UniqueLoader(yaml.SafeLoader):
    """YAML without duplicate keys: the second of two `tenant:` lines must not win silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key `{key}` stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def load_yaml(text: str, *, what: str) -> Json:
    """The value of one YAML document. Raises ConfigInvalid naming the line."""
    try:
        loaded: Json = yaml.load(text, _UniqueLoader)  # noqa: S506  # _UniqueLoader is a SafeLoader
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        raise ConfigInvalid(f"{what} is not YAML: {error}", hint="mend the line it names") from error
    return loaded


def parse(text: str) -> Settings:
    """Settings from the text of `onbehalf.yaml`. Raises ConfigInvalid, listing the known keys for an unknown one."""
    value = load_yaml(text, what="onbehalf.yaml")
    try:
        settings = msgspec.convert(value, Settings)
    except msgspec.ValidationError as error:
        raise ConfigInvalid(_explained(str(error)), hint="docs/config.md describes every key") from error
    return sound(settings)


def row_attributes(rows: RowsSettings | EntitySettings) -> dict[str, tuple[str, str]]:
    """`attributes` taken apart: attribute to (field, kind). Raises ConfigInvalid."""
    parts = {attribute: text.split() for attribute, text in rows.attributes.items()}
    for attribute, words in parts.items():
        if len(words) not in (1, 2):
            raise ConfigInvalid(
                f"attribute `{attribute}` must read `field` or `field Kind`", hint="such as `subject_id User`"
            )
    return {attribute: (words[0], words[1] if len(words) == 2 else "String") for attribute, words in parts.items()}


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of `onbehalf.yaml`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Settings)}


_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`(?: - at `(?P<path>[^`]*)`)?")


def _explained(message: str) -> str:
    """msgspec's message, with the known keys where a key is unknown."""
    found = _UNKNOWN.search(message)
    if found is None:
        return message[:1].lower() + message[1:]
    path = found["path"] or "$"
    known = sorted({key for struct in _structs_at(path) for key in _keys(struct)})
    return f"unknown key `{found['key']}` at `{path}`; known keys are {', '.join(f'`{key}`' for key in known)}"


def _keys(struct: type[Struct]) -> list[str]:
    tag = [struct.__struct_config__.tag_field] if struct.__struct_config__.tag_field else []
    return [*struct.__struct_fields__, *tag]


_PLACES: tuple[tuple[str, tuple[type[Struct], ...]], ...] = (
    (r"\$", (Settings,)),
    (r"\$\.gateway", (GatewaySettings,)),
    (r"\$\.gateway\.ledger", (LedgerSettings,)),
    (r"\$\.gateway\.ledger\.postgres", (PostgresLedgerSettings,)),
    (r"\$\.gateway\.limits", (Limits,)),
    (r"\$\.gateway\.approvals", (ApprovalSettings,)),
    (r"\$\.gateway\.dpop", (DpopSettings,)),
    (r"\$\.gateway\.certificates", (CertificateSettings,)),
    (r"\$\.gateway\.tls", (TlsSettings,)),
    (r"\$\.gateway\.state", (StateSettings,)),
    (r"\$\.gateway\.state\.postgres", (PostgresState,)),
    (r"\$\.gateway\.witnesses", (WitnessesSettings,)),
    (r"\$\.broker", (BrokerSettings,)),
    (r"\$\.broker\.login", (BrokerLogin,)),
    (r"\$\.broker\.login\.tenant", (TenantClaim,)),
    (r"\$\.broker\.clients\[(\d+|\.\.\.)\]", (BrokerClient,)),
    (r"\$\.directory", (DirectorySettings,)),
    (r"\$\.directory\.feeds\[(\d+|\.\.\.)\]", (FeedSettings,)),
    (r"\$\.directory\.scim\[(\d+|\.\.\.)\]", (ScimSettings,)),
    (r"\$\.directory\.claims\[(\d+|\.\.\.)\]", (ClaimsSettings,)),
    (r"\$\.signals\[(\d+|\.\.\.)\]", (StreamSettings,)),
    (r"\$\.signals.*\.poll", (PollSettings,)),
    (r"\$\.signals.*\.verification", (VerificationSettings,)),
    (r"\$\.issuers\[\d+\]|\$\.issuers\[\.\.\.\]", (IssuerSettings,)),
    (r"\$\.issuers.*\.tenant", (TenantClaim,)),
    (r"\$\.issuers.*\.introspection", (IntrospectionSettings,)),
    (r"\$\.issuers.*\.services", (ServicesSettings,)),
    (r"\$\.workloads\[(\d+|\.\.\.)\]", (WorkloadSettings,)),
    (r"\$\.upstreams\[\.\.\.\]", (SqlUpstream, PostgresUpstream, McpUpstream, OpenapiUpstream)),
    (r"\$\.upstreams.*\.tools\[\.\.\.\]", (OpenapiToolSettings,)),
    (r"\$\.sinks\[\.\.\.\]", (FileSink, StdoutSink, SyslogSink, OtlpSink, HttpSink, PushSink, ParquetSink)),
    (r"\$\.upstreams.*\.rows", (RowsSettings,)),
    (r"\$\.upstreams.*\.entities\[\.\.\.\]", (EntitySettings,)),
    (r"\$\.upstreams.*\.hierarchies\[\d+\]|\$\.upstreams.*\.hierarchies\[\.\.\.\]", (HierarchySettings,)),
    (r"\$\.upstreams.*\.resource", (LookupSettings,)),
    (r"\$\.upstreams.*\.dry_run", (DryRunSettings,)),
    (r"\$\.upstreams.*\.further", (FurtherSettings,)),
    (r"\$\.upstreams.*\.authorization", (AuthorizationSettings,)),
    (r"\$\.upstreams.*\.exchange", (ExchangeSettings,)),
    (r"\$\.upstreams.*\.account", (AccountSettings,)),
    (r"\$\.upstreams.*\.bound\[\.\.\.\]", (ParameterSettings,)),
)


def _structs_at(path: str) -> tuple[type[Struct], ...]:
    return next((structs for pattern, structs in _PLACES if re.fullmatch(pattern, path)), ())
