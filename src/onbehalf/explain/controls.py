"""Which controls an auditor may ask about, and what of the record is evidence for them.

A pointer for somebody who knows the standard: the clauses are named, not quoted, and nothing here says that a control
is met. Must not choose or open records.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CONTROLS", "Control", "told"]

_WIDTH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A control by its clause, what the record shows of it by which kinds of records, and what it cannot show."""

    clause: str
    title: str
    shows: str
    kinds: tuple[str, ...]
    not_shown: str


_CALLS = ("intent", "outcome", "denial", "asked", "approval", "unknown")
_CHANGES = ("policy_change", "directory_change", "config_change", "key_change", "start")

CONTROLS: Mapping[str, Control] = {
    "soc2-cc6.1": Control(
        clause="SOC 2, CC6.1", title="Logical access to information is restricted", kinds=_CALLS,
        shows="Each call of a tool was decided for one proven person, under a named bundle of policies, before it was "
        "done; refused calls are on record with the reason.",
        not_shown="Access that does not go through the gateway.",
    ),
    "soc2-cc6.3": Control(
        clause="SOC 2, CC6.3", title="Access is granted and taken away by role, with least privilege",
        kinds=(*_CALLS, *_CHANGES),
        shows="Which policies allowed each call, and when policies and people's places changed; calls after a change "
        "were decided under it.",
        not_shown="Whether roles were given for a good reason.",
    ),
    "soc2-cc7.2": Control(
        clause="SOC 2, CC7.2", title="The system is watched for what is not as usual",
        kinds=("denial", "unknown", "outcome", "revocation", "start", "admin_read"),
        shows="Denials by reason, calls of unknown end, revocations and starts, with their times; and when the record "
        "was read, by which account on the host.",
        not_shown="That somebody understood what they saw.",
    ),
    "iso27001-a5.15": Control(
        clause="ISO/IEC 27001:2022, A.5.15", title="Access control", kinds=_CALLS,
        shows="The rules by which access was decided, by digest and in full, and each decision made by them.",
        not_shown="Rules for systems that are not behind the gateway.",
    ),
    "iso27001-a5.28": Control(
        clause="ISO/IEC 27001:2022, A.5.28", title="Collection of evidence", kinds=_CALLS,
        shows="Records in a signed tree, in an order that cannot be changed unseen, checked offline by the verifier.",
        not_shown="That the clock was right: order is proven, times are the gateway's word.",
    ),
    "iso27001-a8.15": Control(
        clause="ISO/IEC 27001:2022, A.8.15", title="Logging", kinds=(*_CALLS, *_CHANGES),
        shows="Every call with who, through which client, what, on what and how it ended; no call without a record.",
        not_shown="Logs of the backends themselves.",
    ),
    "nist-ac-3": Control(
        clause="NIST SP 800-53, AC-3", title="Access enforcement", kinds=_CALLS,
        shows="Decisions made on the server, deny by default, with the policies that determined them.",
        not_shown="Enforcement within backends.",
    ),
    "nist-au-10": Control(
        clause="NIST SP 800-53, AU-10", title="Non-repudiation", kinds=_CALLS,
        shows="Which issuer vouched for which subject by which key, the call token bound to the record, and backends' "
        "signed receipts where they give them.",
        not_shown="That the person, and nobody with their login, was at the client.",
    ),
    "nist-au-12": Control(
        clause="NIST SP 800-53, AU-12", title="Audit record generation", kinds=(*_CALLS, *_CHANGES),
        shows="Records of all kinds over the range, numbered without a hole.",
        not_shown="That a gateway which is bypassed would have made one.",
    ),
    "hipaa-164.312b": Control(
        clause="45 CFR 164.312(b)", title="Audit controls", kinds=_CALLS,
        shows="Activity in systems behind the gateway: each call, and which rows went on to whom.",
        not_shown="Activity in these systems by other ways.",
    ),
    "pci-dss-10.2": Control(
        clause="PCI DSS 4.0.1, 10.2", title="Audit logs of access are there", kinds=(*_CALLS, *_CHANGES, "admin_read"),
        shows="User, type of event, time, success or failure, origin and what was affected, for each call; and which "
        "account on the host read the record by which command.",
        not_shown="Access to the gateway's own machine, and to the record's files by other means.",
    ),
    "eu-ai-act-12": Control(
        clause="Regulation (EU) 2024/1689, article 12", title="Record-keeping", kinds=_CALLS,
        shows="What a model asked for through the gateway, automatically recorded over its life.",
        not_shown="What the model was told, or said to people.",
    ),
    "gdpr-17": Control(
        clause="Regulation (EU) 2016/679 (GDPR), article 17", title="Right to erasure", kinds=("erased", "legal_hold"),
        shows="When what the record said of somebody was erased, how much of it, on which basis and by whom, and which "
        "holds stood; leaves are never taken out.",
        not_shown="Whose it was, copies that were made before, and what other systems keep.",
    ),
}  # fmt: skip


def told(control: Control, kinds: Mapping[str, int], sample: int) -> str:
    """What goes into a bundle about a control: `kinds` are how many records of each kind its range has."""
    counts = [f"  {kind:<18}{kinds.get(kind, 0):>12,}" for kind in control.kinds]
    parts = [
        f"{control.clause}: {control.title}", f"What the record shows. {control.shows}",
        f"What it cannot show. {control.not_shown}",
        f"Of the range, {sample} calls are opened in full, chosen by the seed that the manifest names; all others are "
        "here as leaves. A bundle with more of them opened can be asked for.",
        "Nothing in this file is proven: it says where to look. Whether the control is met is the auditor's to say.",
    ]  # fmt: skip
    paragraphs = [textwrap.fill(part, _WIDTH) for part in parts]
    paragraphs.insert(2, "Records of the range, by kind:\n\n" + "\n".join(counts))
    return "\n\n".join(paragraphs) + "\n"
