"""The holes other gateways fell into, each with the tests here that would see it. The list is checked to be true."""

from __future__ import annotations

import ast
import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from house import POLICIES, SCHEMA, TOOLS, house, request
from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.doors.ledger_keys import open_ledger_keys
from onbehalf.doors.signer_file import FileSigner
from onbehalf.errors import PolicyInvalid
from onbehalf.gateway import Offer, Standing
from onbehalf.model import Presented, UnixTime
from onbehalf.validate import route
from validate.policy_house import bundle_at

HERE = Path(__file__).parent
HOLES: dict[str, tuple[str, ...]] = {
    "any valid upstream token was used for a user": (
        "ports/test_upstream_contract.py::test_a_token_for_another_audience_or_another_call_is_never_sent",
        "ports/test_signer_contract.py::test_each_grant_names_its_own_audience",
    ),
    "an auth exception became an empty principal": (
        "ports/test_callers_contract.py::test_what_proves_nobody_is_an_error_and_never_an_empty_caller",
        "test_gateway.py::test_what_is_refused_with_an_error_was_never_sent",
    ),
    "missing, invalid and expired tokens became one": (
        "identify/test_compact.py::test_no_token_is_refused",
        "identify/test_verify.py::test_an_expired_token_is_refused_after_30_s_of_tolerance",
        "identify/test_verify.py::test_a_token_signed_with_another_key_is_refused",
    ),
    "a token for another resource was accepted; `aud` ignored": (
        "identify/test_verify.py::test_a_token_for_another_resource_is_refused",
        "identify/test_verify.py::test_a_token_without_a_well_formed_audience_is_refused",
    ),
    "the user's bearer was forwarded upstream": (
        "doors/test_upstream_mcp.py::test_a_call_carries_what_2026_asks_for_and_nothing_else",
        "test_gateway.py::test_no_token_text_reaches_the_record_or_the_reply",
        "test_exchange.py::test_the_persons_token_is_in_no_byte_that_an_upstream_gets_nor_in_any_file",
    ),
    "a person's token was sent to whatever token endpoint, or what was exchanged came back here or to another": (
        "doors/test_issuer_exchange.py::test_of_two_issuers_each_sees_its_own_peoples_tokens_only",
        "doors/test_issuer_exchange.py::test_a_redirect_of_the_token_endpoint_is_not_followed",
        "doors/test_upstream_exchange.py::test_the_same_token_come_back_in_any_spelling_is_refused",
        "doors/test_upstream_exchange.py::test_nobody_ever_gets_what_was_given_for_another",
        "act/test_exchange.py::test_whatever_is_answered_is_refused_or_good",
    ),
    "client-sent identity headers reached the backend": (
        "doors/test_inbound_http.py::test_client_sent_identity_headers_never_reach_the_house",
    ),
    "no rules meant allow": (
        "doors/test_engine_cedar.py::test_no_directory_and_no_policy_are_refused",
        "validate/test_decide.py::test_nothing_is_allowed_when_any_leg_fails",
    ),
    "an erroring deny rule was skipped": (
        "doors/test_engine_cedar.py::test_fact_1_a_forbid_that_errors_is_skipped_by_cedar_and_denied_here",
    ),
    "a tool without scopes was open to all": ("test_holes.py::test_a_tool_without_scopes_still_needs_a_policy",),
    "arguments documented for policy never reached the engine": (
        "test_holes.py::test_a_policy_that_asks_for_what_is_never_given_is_refused_at_load",
    ),
    "truncated bodies slipped past a deny rule": (
        "doors/test_inbound_bytes.py::test_a_truncated_body_is_dropped_and_nothing_is_called",
    ),
    "tools/list was the same for everybody, or list and call used different rules": (
        "doors/test_inbound_clients.py::test_the_tool_list_is_the_persons_own",
        "test_gateway.py::test_listing_and_calling_ask_by_the_same_rules",
    ),
    "a session opened under one policy was replayed under another": (
        "doors/test_inbound_legacy.py::test_a_session_ends_with_its_persons_access_and_each_request_asks_again",
    ),
    "session ids used as proof of identity": (
        "doors/test_inbound_legacy.py::test_a_session_id_without_a_good_token_is_nothing",
        "doors/test_inbound_legacy.py::test_a_session_replayed_by_another_subject_client_or_issuer_does_not_exist",
    ),
    "SSRF through metadata, key and server URLs, redirects": (
        "doors/test_issuer_fetch.py::test_a_redirect_is_not_followed",
        "doors/test_issuer_fetch.py::test_a_jwks_uri_that_is_no_https_url_is_refused",
        "doors/test_issuer_http.py::test_a_token_of_an_unknown_issuer_or_algorithm_is_refused_without_a_fetch",
        "doors/test_upstream_mcp.py::test_an_unsafe_url_is_refused",
    ),
    "arguments unescaped on their way": (
        "demo/test_demo_files.py::test_the_statement_runs_and_filters_as_told",
        "doors/test_upstream_sql.py::test_a_statement_that_is_not_one_plain_select_is_refused_at_open",
    ),
    "authorization on the request URL instead of the routed path": (
        "doors/test_inbound_http.py::test_the_routed_path_counts_and_not_the_request_url",
    ),
    "Host and Origin unchecked": (
        "doors/test_inbound_bytes.py::test_a_rebound_or_absent_host_is_misdirected",
        "doors/test_inbound_http.py::test_a_foreign_origin_is_forbidden_and_allowed_ones_pass",
    ),
    "default shared keys": ("test_holes.py::test_every_house_makes_keys_of_its_own",),
    "admin pages authenticated but not authorized": (
        "doors/test_inbound_admin.py::test_the_admin_port_only_reads_and_serves_nothing_else",
    ),
    "X-Forwarded-For believed": ("doors/test_inbound_http.py::test_a_forwarded_host_cannot_stand_in_for_the_host",),
    "limiters, audit and policy that fail open": (
        "doors/test_inbound_http.py::test_one_call_too_many_is_told_to_come_back",
        "ports/test_ledger_contract.py::test_what_cannot_be_made_durable_is_an_error_and_stays_one",
        "test_gateway.py::test_what_was_done_but_cannot_be_recorded_is_not_released",
    ),
    "a claim that people can change made somebody else of them (nOAuth)": (
        "doors/test_directory_claims.py::test_one_person_cannot_take_over_the_name_of_another",
        "doors/test_directory_claims.py::test_one_login_is_one_person",
    ),
    "groups that did not fit into a token were taken for none": (
        "validate/test_claims_people.py::test_groups_that_are_too_many_for_a_token_are_not_taken_for_none",
    ),
    "one client's consent, or none, let another client in (confused deputy)": (
        "test_broker.py::test_the_page_names_client_scopes_and_where_it_leads_before_the_login_is_asked_anything",
        "test_broker.py::test_consent_phishing_a_yes_that_another_browser_or_site_sends_is_none",
        "test_broker.py::test_a_yes_is_taken_once",
    ),
    "a login begun by one browser ended in another": (
        "test_broker.py::test_code_injection_a_login_that_comes_back_to_another_browser_ends_there",
        "test_broker.py::test_mix_up_an_answer_that_names_another_issuer_is_refused_before_its_code_is_used",
    ),
    "redirect addresses were compared by prefix, or errors redirected to anywhere": (
        "test_broker.py::test_redirect_tricks_an_address_that_is_not_exactly_the_clients_is_never_answered",
        "test_broker.py::test_a_bad_request_is_shown_and_the_client_told_only_by_a_person_who_follows_the_link",
    ),
    "an issuer's odd metadata turned the check for PKCE off": (
        "doors/test_issuer_login.py::test_pkce_downgrade_an_issuer_that_takes_no_s256_is_not_asked",
    ),
    "one issuer's key was believed under another's name for having the same id": (
        "doors/test_issuer_attacks.py::test_issuer_confusion_two_issuers_with_one_key_id_never_speak_for_each_other",
    ),
    "a client id that is a URL made the server fetch from inside": (
        "test_broker_clients.py::test_ssrf_an_id_that_leads_into_the_house_is_not_fetched",
        "test_broker_clients.py::test_what_a_clients_server_answers_is_bounded_and_never_followed",
    ),
    "an attacker's account at another system became a victim's, or a victim's an attacker's": (
        "test_connect_accounts.py::test_the_link_is_its_persons_own_whoever_opens_it",
        "test_connect_accounts.py::test_an_answer_that_comes_to_another_browser_or_twice_connects_nothing",
        "doors/test_vault_sqlite.py::test_what_is_moved_to_another_owner_does_not_open",
    ),
    "a refresh made a revoked login young again": (
        "test_broker.py::test_a_login_from_before_a_person_was_stopped_is_worth_nothing_for_good",
        "test_broker.py::test_refresh_replay_ends_the_login_for_thief_and_owner",
    ),
    "a bound token was taken as a bearer token, or a bearer token under DPoP (downgrade)": (
        "test_proof.py::test_a_bound_token_sent_as_a_bearer_is_refused_with_its_proof_and_without",
        "test_proof.py::test_a_bearer_token_sent_under_dpop_is_refused_whether_it_is_known_or_not",
        "test_proof.py::test_two_proofs_no_proof_and_two_schemes_are_refused",
        "test_proof.py::test_a_token_bound_to_a_certificate_is_refused_under_dpop",
        "identify/test_proof.py::test_a_token_that_is_bound_in_an_unknown_way_or_twice_proves_nobody",
    ),
    "a proof was checked for the first request of a kept token only": (
        "doors/test_issuer_proof.py::test_a_kept_token_needs_its_proof_every_time_and_only_then_gives_its_caller",
        "test_proof.py::test_each_request_of_an_older_session_is_proven_and_ending_it_too",
    ),
    "whoever found a bound refresh token could use it, or end its owner's login": (
        "test_broker_proof.py::test_a_public_clients_refresh_token_is_bound_to_its_key_and_who_found_it_cannot_end_the_login",
    ),
    "a proof was compared with the Host that the client sent": (
        "test_proof.py::test_the_host_that_a_client_names_does_not_change_what_a_proof_is_for",
    ),
    "a client's certificate was believed from a header that anybody could send": (
        "test_proof.py::test_a_certificate_that_the_proxy_did_not_write_is_refused_whatever_the_token",
        "test_proof.py::test_two_certificates_or_two_secrets_are_refused",
    ),
    "an opaque or broken token was shown to an issuer that it is not of": (
        "doors/test_issuer_introspection.py::test_a_token_is_shown_to_the_one_issuer_whose_prefix_it_has_and_to_nobody_else",
        "identify/test_introspected.py::test_whatever_begins_like_a_jwt_is_not_shown_to_anybody_however_broken_it_is",
    ),
    "an introspected token was taken though it was for another resource": (
        "identify/test_introspected.py::test_the_claims_of_an_answer_are_under_the_rules_of_a_signed_token",
    ),
    "a machine's token used an account, a change or an approval of the person who is called like it": (
        "test_services.py::test_a_service_that_is_called_like_a_person_shares_nothing_with_them",
        "test_services.py::test_nobody_approves_for_a_service_and_it_has_no_account_anywhere",
        "test_services.py::test_a_program_calls_with_client_credentials_of_a_real_server",
    ),
    "a rule for everybody was a rule for machines, too": (
        "doors/test_engine_services.py::test_a_permit_that_does_not_say_service_lets_no_service_through",
    ),
    "ids resolved without asking for the tenant again": (
        "test_gateway.py::test_a_lookup_that_finds_another_resource_allows_nothing",
        "doors/test_engine_cedar.py::test_a_row_of_another_tenant_is_denied_even_by_a_bundle_that_permits_all",
    ),
}


@pytest.mark.parametrize("hole", HOLES)
def test_every_hole_has_a_test_that_is_there(hole: str) -> None:
    for name in HOLES[hole]:
        path, _, function = name.partition("::")
        tree = ast.parse((HERE / path).read_text(encoding="utf-8"))
        known = {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert function in known, f"{hole}: {name} is gone"


def test_a_tool_without_scopes_still_needs_a_policy(tmp_path: Path) -> None:
    """Erin has no position, and only those with one may use tickets. The tool asks for no scope."""
    gateway, doors = house(tmp_path)
    plain = replace(TOOLS[1], scopes=frozenset())
    offer = Offer(tool=plain, check=route.prepare(plain.schema), upstream=doors)
    standing = Standing(engine=gateway.standing().engine, offers={plain.name: offer})
    without = replace(gateway, standing=lambda: standing)
    reply = asyncio.run(without.call(Presented(token="erin"), request(plain.name, ticket_id="T1")))
    assert reply.denial == "not_permitted"
    assert doors.sent == []


@pytest.mark.parametrize("condition", ["context.arguments.amount < 100", 'context.groups.contains("hr")'])
def test_a_policy_that_asks_for_what_is_never_given_is_refused_at_load(tmp_path: Path, condition: str) -> None:
    wishful = f'@id("w") @doc("d") @remedy("r") forbid(principal, action, resource) unless {{ {condition} }};'
    with pytest.raises(PolicyInvalid, match="context"):
        CedarEngine.load(bundle_at(tmp_path, POLICIES + wishful, SCHEMA), tools=TOOLS)


def test_every_house_makes_keys_of_its_own(tmp_path: Path) -> None:
    signers = [FileSigner.open(tmp_path / name, issuer="https://g.example", now=UnixTime(1)) for name in "ab"]
    assert set(signers[0].kids).isdisjoint(signers[1].kids)
    logs = [open_ledger_keys(tmp_path / name, origin="g.example/log").signer.verifier.vkey for name in "ab"]
    assert logs[0] != logs[1]
