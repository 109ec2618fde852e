"""What the documents promise: every key is described, every example is taken by the code that would read it."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from onbehalf import (
    config,
    config_directory,
    config_ledger,
    config_proof,
    config_signals,
    config_sinks,
    config_state,
    config_tls,
    config_upstreams,
)  # fmt: skip
from onbehalf.build import sketched
from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.validate import people
from validate.policy_house import tool

ROOT = Path(__file__).parents[1]
STRUCTS = (
    config.GatewaySettings, config.Limits, config.IssuerSettings, config.TenantClaim, config.SqlUpstream,
    config.PostgresUpstream, config.McpUpstream, config.OpenapiUpstream, config.OpenapiToolSettings,
    config.ToolSettings, config.RowsSettings, config.LookupSettings,
    config.ParameterSettings, config.EntitySettings, config.HierarchySettings, config_upstreams.ExploreSettings,
    config_upstreams.ExploredSettings, config_upstreams.PageSettings, config.DryRunSettings, config.LoginSettings,
    config_upstreams.FurtherSettings, config_upstreams.AuthorizationSettings, config_upstreams.AccountSettings,
    config_upstreams.ExchangeSettings,
    config.ApprovalSettings, config.BrokerSettings, config.BrokerLogin, config.BrokerClient,
    config.IntrospectionSettings, config.ServicesSettings, config.WorkloadSettings, config_directory.DirectorySettings,
    config_directory.FeedSettings, config_directory.ScimSettings, config_directory.ClaimsSettings,
    config.WitnessesSettings, config_proof.DpopSettings, config_proof.CertificateSettings, config_tls.TlsSettings,
    config_state.StateSettings, config_state.PostgresState,
    config_signals.StreamSettings, config_signals.PollSettings, config_signals.VerificationSettings,
    config_sinks.FileSink, config_sinks.StdoutSink, config_sinks.SyslogSink, config_sinks.OtlpSink,
    config_sinks.HttpSink, config_sinks.ParquetSink, config_sinks.PushSink,
    config_ledger.LedgerSettings, config_ledger.PostgresLedgerSettings,
)  # fmt: skip
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_key_is_described_in_the_reference_with_its_true_default(struct: type[msgspec.Struct]) -> None:
    text = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for field in msgspec.structs.fields(struct):
        described = [row for row in rows if f"`{field.name}`" in row.split("|")[1]]
        assert described, f"docs/config.md does not describe `{field.name}`"
        if isinstance(field.default, int | float | str) and not isinstance(field.default, bool) and field.default:
            shown = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
            assert any(shown in row for row in described), f"`{field.name}` has the default {shown}"


def test_the_reference_describes_no_key_that_is_not_there() -> None:
    text = (ROOT / "docs" / "config.md").read_text(encoding="utf-8").partition("## people.yaml")[0]
    known = {field.name for struct in STRUCTS for field in msgspec.structs.fields(struct)}
    for row in re.findall(r"^\|([^|]+)\|", text, flags=re.MULTILINE):
        for name in re.findall(r"`([a-z_]+)`", row):
            assert name in known


def test_the_ten_lines_of_the_readme_are_a_configuration() -> None:
    (example,) = blocks(ROOT / "README.md", "yaml")
    assert len(example.strip().splitlines()) <= 11
    settings = config.parse(example)
    assert set(sketched(settings)) == {"tickets_list", "reviews_list"}


def test_the_settings_in_the_page_on_proofs_are_configurations_and_its_policy_is_one() -> None:
    page = ROOT / "docs" / "proof.md"
    examples = [config.parse(example) for example in blocks(page, "yaml")]
    assert [each.issuers[0].proof for each in examples] == ["dpop", "mtls", "mtls"]
    assert examples[1].gateway.tls is not None
    assert examples[2].gateway.certificates is not None
    for path in re.findall(r"`(test_11_\d+_)…`", page.read_text(encoding="utf-8")):
        files = [ROOT / "tests" / name for name in ("test_proof.py", "test_broker_proof.py")]
        assert f"def {path}" in "".join(file.read_text(encoding="utf-8") for file in files)


def test_the_example_of_people_is_a_directory() -> None:
    *_, example = blocks(ROOT / "docs" / "config.md", "yaml")
    assert people.parse(example).tenants["acme"].people["alice"].name == "Alice Ngo"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target


def test_no_user_is_told_to_install_the_name_that_is_somebody_elses() -> None:
    for document in DOCUMENTS:
        assert not re.search(r"pip install (?!-)\S*onbehalf(?!-gateway)", document.read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_in_the_documents_imports_what_there_is(document: Path) -> None:
    for block in blocks(document, "python"):
        for line in block.splitlines():
            if line.startswith(("from ", "import ")):
                exec(line, {})
        compile(block, str(document), "exec")


def test_the_example_of_the_broker_is_a_configuration() -> None:
    (example,) = blocks(ROOT / "docs" / "broker.md", "yaml")
    settings = config.parse(example)
    assert [each.issuer for each in settings.issuers] == ["https://gateway.example.com"]


def test_the_example_of_sinks_is_a_configuration() -> None:
    example, pushed = blocks(ROOT / "docs" / "audit-views.md", "yaml")
    head = "gateway: {resource: https://g.example/mcp}\nissuers: [{issuer: https://l.example, tenant: acme}]\n"
    head += "upstreams: {}\n"
    assert [*config.parse(head + example).sinks] == ["siem", "lake"]
    assert [*config.parse(head + pushed).sinks] == ["events"]


def test_the_example_of_an_api_of_another_domain_is_a_configuration() -> None:
    _, example, exchanging, accounts, server = blocks(ROOT / "docs" / "your-api.md", "yaml")
    head = "gateway: {resource: https://g.example/mcp}\nissuers: [{issuer: https://l.example, tenant: acme}]\n"
    settings = config.parse(head + example.replace("sha256:…", f"sha256:{'0' * 64}"))
    assert settings.upstreams["partner"].authorization.grant == "jwt-bearer"  # type: ignore[union-attr]
    own = exchanging.replace("sha256:…", f"sha256:{'0' * 64}")
    settings = config.parse(f"gateway: {{resource: https://g.example/mcp}}\n{own}")
    assert settings.upstreams["orders"].exchange.scope == "orders.read"  # type: ignore[union-attr]
    settings = config.parse(head + accounts.replace("sha256:…", f"sha256:{'0' * 64}"))
    assert settings.upstreams["code"].account.title == "Code"  # type: ignore[union-attr]
    settings = config.parse(head + server.replace("sha256:…", f"sha256:{'0' * 64}"))
    assert settings.upstreams["code"].account.title == "Code"  # type: ignore[union-attr]


def test_the_example_of_opaque_tokens_is_an_issuer() -> None:
    example, *_ = blocks(ROOT / "docs" / "issuers.md", "yaml")
    settings = config.parse(f"gateway: {{resource: https://g.example/mcp}}\nupstreams: {{}}\n{example}")
    introspection = settings.issuers[0].introspection
    assert introspection is not None
    assert (introspection.kept_seconds, introspection.signed) == (30, False)


def test_the_examples_of_services_are_a_configuration_and_policies(tmp_path: Path) -> None:
    issuers, workloads = blocks(ROOT / "docs" / "workloads.md", "yaml")
    settings = config.parse(f"gateway: {{resource: https://g.example/mcp}}\nupstreams: {{}}\n{issuers}{workloads}")
    assert settings.issuers[0].services == config.ServicesSettings(told_by="sub")
    assert settings.workloads[0].scopes == ("notes.read",)
    (schema,) = blocks(ROOT / "docs" / "workloads.md", "cedarschema")
    (policy,) = blocks(ROOT / "docs" / "workloads.md", "cedar")
    types = "entity Review { tenant: Tenant, status: String };\nentity Ticket { tenant: Tenant };\n"
    (tmp_path / "a.cedarschema").write_text(types + schema)
    (tmp_path / "a.cedar").write_text(policy)
    CedarEngine.load(tmp_path, tools=[tool("export", "exportReviews", None)])
