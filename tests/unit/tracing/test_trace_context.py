"""What counts as a W3C trace context, and what is passed on of it."""

from __future__ import annotations

import pytest

from joblet.trace_context import SpanPlace, TraceContext, as_metadata, as_variables, from_variables

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"00-{TRACE}-{SPAN}-02", False),
        (f"cc-{TRACE}-{SPAN}-01-what-a-later-version-adds", True),
    ],
)
def test_a_context_is_read(text: str, sampled: bool) -> None:
    assert TraceContext.parse(text) == TraceContext(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "text",
    [
        *("", "00", f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-1", f"00-{TRACE}-{SPAN}-01-more"),
        *(f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01\n00"),
        *(f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE[:-1]}-{SPAN}-01"),
    ],
)
def test_what_is_none_is_as_if_it_were_not_there(text: str) -> None:
    assert TraceContext.parse(text) is None
    assert from_variables({"TRACEPARENT": text}) is None


def test_it_is_passed_on_as_it_came() -> None:
    context = TraceContext(TRACE, SPAN, True, "vendor=1,other=2")
    variables = as_variables(context)
    assert variables == {"TRACEPARENT": f"00-{TRACE}-{SPAN}-01", "TRACESTATE": "vendor=1,other=2"}
    assert from_variables(variables) == context
    assert dict(as_metadata(context)) == {key.lower(): value for key, value in variables.items()}
    assert as_metadata(None) == ()


@pytest.mark.parametrize("state", ["x" * 513, "line\nbreak", "ümlaut"])
def test_a_state_that_nobody_may_pass_on_is_left_out(state: str) -> None:
    assert TraceContext.parse(f"00-{TRACE}-{SPAN}-01", state) == TraceContext(TRACE, SPAN, True)


@pytest.mark.parametrize("state", ["", "vendor=1, other=2"])
@pytest.mark.parametrize("above", ["", SPAN])
def test_a_place_on_record_is_read_back(state: str, above: str) -> None:
    place = SpanPlace(TraceContext(TRACE, SPAN, False, state), 7, above)
    assert SpanPlace.parse(str(place)) == place


def test_an_id_that_is_derived_is_the_same_each_time_and_no_other() -> None:
    place = SpanPlace(TraceContext(TRACE, SPAN, True), 7)
    assert place.derived("job-run-1") == SpanPlace.parse(str(place)).derived("job-run-1")
    assert len({place.derived(f"job-run-{n}").span_id for n in range(100)}) == 100
    assert place.derived("job-run-1").trace_id == TRACE
