"""Each form against what its makers publish: OCSF's schema, CloudEvents' schema and SDK, OTLP's protobuf."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema_rs
import orjson
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from google.protobuf import json_format
from hypothesis import given, settings
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from explain import viewed
from node_peers import ran
from onbehalf.explain.views import View, json_line, read_json_line
from onbehalf.explain.views_cloudevents import cloudevent
from onbehalf.explain.views_ocsf import CLASS_UID, VERSION, ocsf
from onbehalf.explain.views_otel import export
from onbehalf.explain.views_said import said

VIEWS = viewed.company()


@cache
def api_activity() -> jsonschema_rs.Validator:
    """OCSF 1.8.0's own schema of class 6003 with the profile, closed: what it does not know is refused."""
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=VERSION))
    name = schema.lookup_class_name_from_uid(class_uid=CLASS_UID)
    return jsonschema_rs.validator_for(schema.get_class_schema(class_name=name, profiles=["security_control"]))


@pytest.mark.parametrize("which", VIEWS)
def test_ocsf_events_are_valid_by_the_published_schema(which: str) -> None:
    api_activity().validate(orjson.loads(orjson.dumps(ocsf(VIEWS[which], version="0.1.0"))))


@given(view=viewed.views())
@settings(max_examples=100, deadline=None)
def test_ocsf_events_of_any_record_are_valid_by_the_published_schema(view: View) -> None:
    api_activity().validate(orjson.loads(orjson.dumps(ocsf(view, version="0.1.0"))))


def test_the_published_schema_of_ocsf_can_refuse() -> None:
    event = ocsf(VIEWS["done"], version="0.1.0")
    for changed in ({**event, "nonsense": 1}, {**event, "activity_id": 17}, {**event, "actor": {}}):
        assert not api_activity().is_valid(changed)


def test_ocsf_names_of_activities_and_dispositions_are_those_of_their_numbers() -> None:
    classes = get_ocsf_schema(version=VERSION)["classes"]["api_activity"]["attributes"]
    for view in VIEWS.values():
        event: Any = ocsf(view, version="0.1.0")
        caption = classes["activity_id"]["enum"][str(event["activity_id"])]["caption"]
        assert caption in (event["activity_name"], "Other")
        assert str(event["type_uid"]) == f"6003{event['activity_id']:02}"
    numbers = {name: (event["action_id"], event["disposition_id"]) for name, event in _ocsf()}
    assert numbers["done"] == numbers["intent"] == (1, 1)
    assert numbers["denial"] == numbers["refused"] == (2, 2)
    assert classes["disposition_id"]["enum"]["2"]["caption"] == "Blocked"


def _ocsf() -> list[tuple[str, Any]]:
    return [(name, ocsf(view, version="0.1.0")) for name, view in VIEWS.items()]


def test_cloudevents_are_valid_by_the_published_schema_and_a_spoiled_one_is_not() -> None:
    events = [cloudevent(view) for view in VIEWS.values()]
    spoiled = [{**events[0], "time": "yesterday"}, {**events[0], "id": ""}, {**events[0], "source": "a b"}]
    told = ran("cloudevents.mjs", {"events": [*events, *spoiled]})
    assert told["valid"] == [True] * len(events) + [False] * len(spoiled)


@pytest.mark.parametrize("which", VIEWS)
def test_cloudevents_own_sdk_takes_the_event_with_its_data(which: str) -> None:
    event = cloudevent(VIEWS[which])
    headers = {"content-type": "application/cloudevents+json"}
    taken = from_http_event(HTTPMessage(headers=headers, body=orjson.dumps(event)))
    assert (taken.get_id(), taken.get_source(), taken.get_type()) == (event["id"], event["source"], event["type"])
    data: Any = taken.get_data()
    assert json_line(read_json_line(orjson.dumps(data, option=orjson.OPT_SORT_KEYS))) == json_line(VIEWS[which])


@given(view=viewed.views())
@settings(max_examples=100, deadline=None)
def test_attributes_of_cloudevents_have_names_and_characters_that_are_allowed(view: View) -> None:
    for name, value in cloudevent(view).items():
        if name != "data":
            assert name.isascii()
            assert name.isalnum()
            assert isinstance(value, str)
            assert value
            assert value.isprintable()


@given(view=viewed.views())
@settings(max_examples=100, deadline=None)
def test_an_otlp_request_is_read_by_the_published_protobuf_and_says_the_same(view: View) -> None:
    sent = export([view], version="0.1.0", resource={"service.instance.id": "one"})
    request = json_format.Parse(json.dumps(sent), ExportLogsServiceRequest())
    (record,) = request.resource_logs[0].scope_logs[0].log_records
    assert record.time_unix_nano == view.leaf.at * 10**9
    assert json_line(read_json_line(record.body.string_value.encode())) == json_line(view)
    told = {each.key: each.value for each in record.attributes}
    assert told["onbehalf.log.index"].int_value == view.index
    assert ("user.id" in told) == bool(said(view).person)
    resource = {each.key: each.value.string_value for each in request.resource_logs[0].resource.attributes}
    assert resource["service.name"] == "onbehalf"
