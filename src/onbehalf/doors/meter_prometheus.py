"""Counts for Prometheus, on a registry of the house's own. No label holds a person, an argument or a token.

Trust: none is asked for; labels come from configuration and from the fixed codes of errors.py.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["PrometheusMeter"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class PrometheusMeter:
    """The Meter port. Label sets are kept, because looking one up by keywords is the dear part of counting."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._decisions = Counter(
            "onbehalf_decisions",
            "Tool calls decided, by tool and decision.",
            ("tool", "decision", "code"),
            registry=registry,
        )
        self._refusals = Counter(
            "onbehalf_refusals", "Requests refused at the door, by code.", ("code",), registry=registry
        )
        self._acts = Histogram(
            "onbehalf_upstream_seconds",
            "Time an upstream took, by outcome.",
            ("upstream", "outcome"),
            registry=registry,
            buckets=_SECONDS,
        )
        self._problems = Gauge(
            "onbehalf_problems", "Parts that could not be taken over or reached; the log says which.", registry=registry
        )
        self._brought = Counter(
            "onbehalf_client_checkpoints",
            "Checkpoints that clients brought back, by what they say: split is a second history.",
            ("verdict",),
            registry=registry,
        )
        self._decided: dict[tuple[str, str, str], Counter] = {}
        self._acted: dict[tuple[str, str], Histogram] = {}

    def watch_problems(self, count: Callable[[], int]) -> None:
        """Show how many parts are not as they should be, asked for at each scrape."""
        self._problems.set_function(count)

    def brought(self, verdict: str) -> None:
        """One checkpoint that a client brought back was looked at, or dropped."""
        self._brought.labels(verdict).inc()

    def decided(self, *, tool: str, decision: str, code: str) -> None:
        """One call decided."""
        key = (tool, decision, code)
        child = self._decided.get(key)
        if child is None:
            child = self._decided[key] = self._decisions.labels(*key)
        child.inc()

    def acted(self, *, upstream: str, outcome: str, seconds: float) -> None:
        """One call done or failed upstream."""
        key = (upstream, outcome)
        child = self._acted.get(key)
        if child is None:
            child = self._acted[key] = self._acts.labels(*key)
        child.observe(seconds)

    def refused(self, *, code: str) -> None:
        """One request refused at the door."""
        self._refusals.labels(code).inc()
