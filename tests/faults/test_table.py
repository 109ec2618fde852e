"""The faults that the record must survive, each with the tests that try it, or the reason why none does.

docs/faults.md tells the same to people. That every test named here is there is checked.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults.mutants import mutants

TESTS = Path(__file__).parents[1]
DOCUMENT = TESTS.parent / "docs" / "faults.md"


@dataclass(frozen=True, slots=True)
class Fault:
    """`tests` try it; `left` says what of it is not tried, and why."""

    what: str
    tests: tuple[str, ...] = ()
    left: str = ""


FAULTS: dict[int, Fault] = {
    1: Fault(
        "kill -9 at random times under load",
        (
            "faults/test_kills.py::test_a_gateway_that_is_killed_at_random_moments_under_load_agrees_with_what_was_seen",
            "faults/test_kills.py::test_a_ledger_that_is_killed_at_random_moments_under_load_agrees_with_what_was_seen",
            "test_crash.py::test_killed_at_random_moments_nothing_is_off_the_record",
            "doors/test_ledger_crash.py::test_killed_at_random_moments_nothing_is_off_the_record",
        ),
        "a thousand kills are `make soak`; a plain run has some",
    ),
    2: Fault(
        "kill at every named step",
        (
            "faults/test_kills.py::test_a_gateway_that_is_killed_at_each_step_of_a_call_agrees_with_what_was_seen",
            "faults/test_kills.py::test_a_ledger_that_is_killed_at_each_step_agrees_with_what_was_seen",
        ),
        "there is no step `publish`: tiles are read from the ledger and kept nowhere",
    ),
    3: Fault(
        "SIGSTOP at a step, then resumed",
        ("faults/test_kills.py::test_a_process_that_is_stopped_at_a_step_and_resumed_keeps_the_ledger_to_itself",),
        "no lease runs out: the kernel keeps the lock as long as the process is there, so 60 s show no more than 2",
    ),
    4: Fault(
        "torn write at every byte of the last frame",
        (
            "faults/test_damage.py::test_a_write_ahead_log_torn_or_garbled_at_any_byte_of_its_last_frame_keeps_all_before",
            "doors/test_ledger_settled.py::test_a_log_cut_anywhere_in_its_last_commit_ends_with_the_commit_before",
            "faults/test_power_loss.py::test_a_ledger_that_is_begun_written_checkpointed_and_closed_survives_every_loss_of_power",
        ),
        "every byte in the long form, a share in a plain run; pages of the file itself are torn in item 8",
    ),
    5: Fault(
        "EIO on the n-th sync",
        (
            "faults/test_disk_errors.py::test_when_the_nth_sync_fails_nothing_more_is_taken_and_nothing_acknowledged_is_gone",
            "faults/test_disk_errors.py::test_a_failed_sync_of_the_folder_is_no_error_of_sqlites_and_need_be_none",
            "faults/test_power_loss.py::test_what_a_failed_sync_left_in_memory_is_settled_before_anything_is_built_on_it",
        ),
    ),
    6: Fault(
        "ENOSPC on the n-th write, quota, read-only",
        (
            "faults/test_disk_errors.py::test_when_the_nth_write_fails_nothing_more_is_taken_and_nothing_acknowledged_is_gone",
            "faults/test_disk_errors.py::test_a_disk_that_is_really_full_refuses_and_with_room_made_goes_on",
            "doors/test_ledger_crash.py::test_file_that_cannot_grow_refuses_now_and_later",
        ),
        "quota and read-only are tried as the errors that they give; nothing is remounted",
    ),
    7: Fault(
        "unsynced writes lost",
        ("faults/test_power_loss.py::test_all_that_was_not_synced_is_lost_and_nothing_that_was_acknowledged",),
    ),
    8: Fault(
        "writes reordered: every disk that a loss of power can leave",
        (
            "faults/test_power_loss.py::test_a_ledger_that_is_begun_written_checkpointed_and_closed_survives_every_loss_of_power",
            "faults/test_power_loss.py::test_a_ledger_that_was_killed_and_recovered_survives_every_loss_of_power",
            "faults/test_power_loss.py::test_the_disks_are_what_the_recorder_says_they_are",
        ),
    ),
    9: Fault(
        "bit flip in leaf, tile, head, checkpoint, write-ahead log, payload, key file",
        (
            "faults/test_damage.py::test_each_flipped_bit_of_a_column_is_found_at_its_place",
            "faults/test_damage.py::test_a_flipped_bit_anywhere_in_the_files_is_found_or_changes_nothing",
            "faults/test_damage.py::test_a_flipped_bit_of_a_tile_is_found_by_whoever_holds_it_against_the_checkpoint",
            "faults/test_damage.py::test_a_flipped_bit_of_a_key_file_is_found",
            "faults/test_damage.py::test_a_byte_changed_in_any_commit_of_the_write_ahead_log_but_the_last_is_refused",
            "doors/test_ledger_settled.py::test_each_changed_byte_of_the_head_is_refused_and_nothing_is_written",
            "verifier/test_receipts.py::test_a_checkpoint_is_read_and_each_changed_byte_of_it_refused",
            "verifier/test_check.py::test_a_flipped_bit_anywhere_in_a_file_is_found_in_that_file",
        ),
        "a byte changed in the last commit of a write-ahead log looks like a loss of power",
    ),
    10: Fault(
        "tail cut, row deleted, rows swapped, whole file put back",
        (
            "doors/test_ledger_sqlite.py::test_damage_is_found_and_located",
            "faults/test_damage.py::test_a_file_put_back_to_an_old_backup_is_believed_without_a_copy_and_caught_with_one",
            "faults/test_damage.py::test_a_file_put_back_is_caught_by_a_witness_and_so_is_one_that_went_on_from_there",
        ),
        "a whole file put back is believed where nobody kept a checkpoint, and the test asserts that it is",
    ),
    11: Fault(
        "restored from a backup, then continued",
        (
            "faults/test_damage.py::test_a_backup_that_is_taken_while_the_gateway_writes_is_a_beginning_of_the_record",
            "faults/test_damage.py::test_a_file_put_back_is_caught_by_a_witness_and_so_is_one_that_went_on_from_there",
        ),
        "not there: a new log that names the old one; it goes on under the same key, and a witness refuses it",
    ),
    12: Fault(
        "PostgreSQL killed inside COMMIT, failover",
        (
            "doors/test_ledger_postgres_faults.py::test_the_database_killed_under_load_loses_nothing_that_was_answered",
            "doors/test_ledger_postgres_faults.py::test_killed_at_each_step_of_a_commit_nothing_is_off_the_record",
            "doors/test_ledger_postgres_faults.py::test_after_a_failover_to_a_synchronous_standby_all_that_was_answered_is_there",
            "doors/test_ledger_postgres.py::test_a_commit_without_answer_is_looked_for_and_done_exactly_once",
            "doors/test_ledger_postgres.py::test_a_session_that_is_ended_at_any_step_loses_and_doubles_nothing",
            "doors/test_ledger_postgres.py::test_a_commit_that_did_not_wait_for_its_standby_is_no_record",
            "doors/test_ledger_postgres_faults.py::test_killed_at_random_moments_four_replicas_lose_and_double_nothing",
        ),
        "an asynchronous standby may lose commits; replicas that saw them stop",
    ),
    13: Fault(
        "two sequencers, the lock lying",
        (
            "doors/test_ledger_postgres.py::test_two_that_believe_they_hold_the_lock_cannot_both_append",
            "doors/test_ledger_postgres.py::test_a_log_that_did_not_only_grow_ends_a_replica_before_it_signs_again",
            "doors/test_ledger_postgres_faults.py::test_a_replica_stopped_with_the_head_in_its_hands_holds_nobody_up_and_signs_nothing_later",
        ),
        "in SQLite there is one writer, by a lock of the kernel",
    ),
    14: Fault(
        "clock jumps, backwards, frozen",
        ("faults/test_stops.py::test_clocks_that_jump_run_backwards_or_stand_still_change_no_order",),
    ),
    15: Fault(
        "queue full, slow disk, writer dead",
        (
            "faults/test_stops.py::test_when_the_writer_dies_whoever_waits_and_whoever_comes_is_refused",
            "faults/test_stops.py::test_a_slow_disk_makes_callers_wait_and_loses_nobody",
            "faults/test_stops.py::test_a_disk_that_hangs_costs_a_caller_its_own_time_limit_and_no_more",
            "doors/test_ledger_sqlite.py::test_full_queue_refuses_at_once",
        ),
    ),
    16: Fault(
        "witness slow, lying, forked, down",
        (
            "witness/test_witness.py::test_whatever_is_asked_all_that_is_cosigned_is_one_history",
            "witness/test_witness.py::test_a_witness_that_is_no_witness_is_said",
            "witness/test_witness.py::test_nothing_is_cosigned_that_could_not_be_kept",
            "doors/test_witness_quorum.py::test_a_witness_that_is_down_or_holds_its_answer_back_is_no_quorum_and_calls_are_refused",
            "test_gateway_witnessed.py::test_without_a_quorum_nothing_is_sent_that_is_on_record_and_it_may_be_tried_again",
            "test_gateway_witnessed.py::test_where_a_witness_disowns_the_log_nothing_is_sent_then_or_later",
            "test_app_witnessed.py::test_data_put_back_to_an_old_backup_is_found_by_the_witness_and_the_house_stops",
            "doors/test_ledger_postgres_witnessed.py::test_a_replica_that_was_overtaken_asks_again_within_its_round",
            "doors/test_ledger_postgres_witnessed.py::test_a_witness_that_disowns_the_log_stops_every_replica_that_is_there",
            "test_replicas_witnessed.py::test_a_gateway_that_is_killed_while_a_call_waits_for_witnesses_has_sent_nothing",
            "test_replicas_witnessed.py::test_a_record_that_was_put_back_is_disowned_and_no_gateway_that_is_there_does_anything_more",
        ),
    ),
    17: Fault(
        "keys rotated under load, signing key gone",
        (
            "doors/test_signer_file.py::test_every_token_is_believed_its_whole_life_whatever_rotates",
            "doors/test_signer_file.py::test_a_rotation_that_fails_on_disk_changes_nothing",
            "test_gateway.py::test_what_is_refused_with_a_reply_is_on_record",
            "doors/test_ledger_handover.py::test_a_change_that_was_killed_at_any_step_is_finished_by_the_next_start_or_run",
            "doors/test_ledger_postgres_handover.py::test_a_change_that_was_killed_at_any_step_is_finished_by_the_next_start_or_run",
            "doors/test_ledger_postgres_handover.py::test_no_old_key_is_given_up_for_a_change_that_a_standby_may_not_have",
            "test_replicas_handover.py::test_a_gateway_that_runs_on_with_the_former_keys_writes_nothing_says_why_and_serves_again_with_the_new_ones",
        ),
        "the log's own keys are changed while all gateways of the record are stopped; no HSM is supported",
    ),
    18: Fault(
        "backend: timeout after effect, delivered twice, another call's reply, wrong receipt, none",
        (
            "doors/test_upstream_mcp.py::test_a_connection_lost_on_the_way_leaves_a_write_unknown",
            "doors/test_upstream_mcp.py::test_garbage_is_a_failure_and_of_a_write_the_effect_is_unknown",
            "test_gateway_once.py::test_what_may_have_had_an_effect_is_not_sent_again",
            "explain/test_backend_receipt.py::test_a_receipt_of_something_else_is_refused",
            "verifier/test_receipts.py::test_a_receipt_of_something_else_is_refused",
        ),
    ),
    19: Fault(
        "client gone at each phase, cancel, re-issue",
        (
            "test_gateway.py::test_a_call_cancelled_while_the_upstream_hangs_is_closed_and_a_write_is_not_known",
            "doors/test_inbound_http.py::test_a_client_that_goes_away_cancels_its_call",
            "doors/test_ledger_sqlite.py::test_an_intent_whose_caller_was_cancelled_before_it_was_durable_is_closed_as_not_sent",
            "test_gateway_once.py::test_the_same_call_sent_again_is_done_once_and_said_to_be",
        ),
    ),
    20: Fault(
        "upgrade, downgrade, mixed versions",
        ("explain/test_leaf.py::test_a_later_leaf_version_is_refused",),
        "there is no earlier release yet whose data could be read",
    ),
    21: Fault(
        "schema fuzz of every record",
        (
            "explain/test_leaf.py::test_every_fact_opens_from_its_payload",
            "verifier/test_leaves.py::test_what_the_gateway_writes_is_read_alike_by_both",
            "verifier/test_leaves.py::test_any_other_spelling_is_refused",
            "test_model_json.py::test_every_value_has_the_spelling_of_rfc_8785_or_none",
            "test_strict_json.py::test_what_is_not_one_value_in_utf_8_is_refused",
        ),
    ),
    22: Fault(
        "log injection",
        (
            "cli/test_audit.py::test_control_characters_on_record_reach_no_terminal",
            "verifier/test_hostile.py::test_what_a_bundle_says_reaches_a_terminal_without_control_characters",
        ),
    ),
    23: Fault("a state machine against a reference log", ("faults/test_model.py::TestTheLedgerIsItsModel",)),
    24: Fault(
        "mutation testing of verifier and recovery",
        ("faults/test_table.py::test_mutants_are_small_faults_of_judged_code_only",),
        "`make mutants`; figures in docs/faults.md",
    ),
    25: Fault(
        "long run, with open files, memory and disk measured",
        ("faults/test_kills.py::test_what_grows_without_end_is_seen",),
        "`make soak`, as long as it is told to",
    ),
    26: Fault(
        "builds broken on purpose must be seen",
        (
            "faults/test_broken_builds.py::test_a_build_that_does_not_sync_is_seen_when_power_is_lost",
            "faults/test_broken_builds.py::test_a_build_that_builds_on_what_a_failed_sync_left_is_seen_when_power_is_lost",
            "faults/test_broken_builds.py::test_a_broken_build_is_seen_after_a_kill",
            "faults/test_broken_builds.py::test_a_broken_recovery_is_seen",
            "faults/test_broken_builds.py::test_the_build_that_is_not_broken_is_passed_at_all_of_these_steps",
            "faults/test_kills.py::test_a_gateway_that_sends_before_its_intent_is_durable_is_seen",
        ),
    ),
}


def test_the_table_is_whole() -> None:
    assert list(FAULTS) == list(range(1, 27))


@pytest.mark.parametrize("number", FAULTS)
def test_every_fault_has_tests_that_are_there_or_a_reason(number: int) -> None:
    fault = FAULTS[number]
    assert fault.tests or fault.left
    for name in fault.tests:
        path, _, function = name.partition("::")
        assert function in _names(TESTS / path), f"{number}: {name} is gone"


@pytest.mark.parametrize("number", FAULTS)
def test_the_document_has_a_row_for_every_fault(number: int) -> None:
    rows = re.findall(r"^\| (\d+) \|", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert rows.count(str(number)) == 1


def test_mutants_are_small_faults_of_judged_code_only() -> None:
    lines = ["LIMIT = 3", "", "", "def f(a: int) -> bool:", "    if not a < LIMIT:"]
    lines += ["        raise ValueError(f'{a} + 1')", "    return a == 1"]
    made = {(each.line, each.what) for each in mutants("\n".join(lines))}
    assert made == {
        (1, "3 to 4"), (5, "not left out"), (5, "Lt to LtE"), (6, "left out: raise ValueError(f'{a} + 1')"),
        (7, "None for: return a == 1"), (7, "Eq to NotEq"), (7, "1 to 2"),
    }  # fmt: skip


def _names(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined = {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
    return defined | {
        target.id
        for each in tree.body
        if isinstance(each, ast.Assign)
        for target in each.targets
        if isinstance(target, ast.Name)
    }
