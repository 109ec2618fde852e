"""Views on their way: a run of records that follow each other, as lines or as one body.

A batch says which records it holds and under which signed head they were read, so that whoever receives it can tell
that none is missing. Must not send.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import orjson

from onbehalf.explain.views import View, json_line
from onbehalf.explain.views_cef import cef
from onbehalf.explain.views_cloudevents import cloudevent
from onbehalf.explain.views_ocsf import ocsf
from onbehalf.explain.views_otel import export, log_record
from onbehalf.explain.views_set import claims
from onbehalf.model import Json

__all__ = ["Batch", "Form", "batch_mark", "cloudevents_batch", "lines", "narrowed", "otlp_request"]

_Name = Literal["json", "cloudevents", "ocsf", "otel", "set", "cef"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The records `first` up to but not including `end`, all of them, read under the signed head `checkpoint`."""

    log: str
    first: int
    end: int
    checkpoint: str
    views: tuple[View, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """In which form views leave. `issuer` is who Security Event Tokens are by, `version` the gateway's."""

    name: _Name
    issuer: str
    version: str

    def line(self, view: View) -> bytes:
        """One view as one line, without its end."""
        if self.name == "json":
            return json_line(view)
        if self.name == "cef":
            return cef(view, version=self.version).encode()
        return orjson.dumps(self._event(view))

    def _event(self, view: View) -> dict[str, Json]:
        if self.name == "cloudevents":
            return cloudevent(view)
        if self.name == "ocsf":
            return ocsf(view, version=self.version)
        return log_record(view) if self.name == "otel" else claims(view, issuer=self.issuer)


def lines(batch: Batch, form: Form) -> list[bytes]:
    """Every view as a line, and at the end the batch's mark."""
    return [*(form.line(each) for each in batch.views), batch_mark(batch, form)]


def batch_mark(batch: Batch, form: Form) -> bytes:
    """One line that says which records stood before it, and the signed head they are under."""
    if form.name == "cef":
        note = base64.b64encode(batch.checkpoint.encode()).decode().replace("=", "\\=")
        head = f"CEF:0|onbehalf|gateway|{form.version}|batch|batch of records|0|"
        return f"{head}cn1={batch.first} cn1Label=first cn2={batch.end} cn2Label=end msg={note}".encode()
    told: dict[str, Json] = {
        "checkpoint": batch.checkpoint, "end": batch.end, "first": batch.first, "log": batch.log,
    }  # fmt: skip
    return orjson.dumps({"batch": told})


def cloudevents_batch(batch: Batch) -> bytes:
    """The batch in CloudEvents' JSON batch format."""
    return orjson.dumps([cloudevent(each) for each in batch.views])


def otlp_request(batch: Batch, *, version: str) -> bytes:
    """The batch as an ExportLogsServiceRequest in JSON; its range and head are attributes of the resource."""
    resource: dict[str, Json] = {
        "onbehalf.batch.end": batch.end, "onbehalf.batch.first": batch.first,
        "onbehalf.log.checkpoint": batch.checkpoint, "onbehalf.log.origin": batch.log,
    }  # fmt: skip
    return orjson.dumps(export(batch.views, version=version, resource=resource))


def narrowed(view: View) -> View:
    """The same record with none of its facts told: for who cannot take a long one. Its leaf stays whole."""
    names: Sequence[str] = () if view.erased else sorted(view.leaf.facts)
    return replace(view, facts={}, about={}, withheld=tuple(names))
