"""Counts for Prometheus, on a registry of the house's own. No label holds a person, an argument or a token.

Trust: none is asked for; labels come from configuration and from the fixed codes of errors.py.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

__all__ = ["PrometheusMeter"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BOUNDS = (*(repr(float(seconds)) for seconds in _SECONDS), "+Inf")


class PrometheusMeter:
    """The Meter port. What every call counts is counted in plain numbers, for the library takes three locks a call;
    so `decided` and `acted` are called, and a scrape is answered, in one thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._decided = _Decisions()
        self._acted = _Acts()
        registry.register(self._decided)
        self._refusals = Counter(
            "onbehalf_refusals", "Requests refused at the door, by code.", ("code",), registry=registry
        )
        registry.register(self._acted)
        self._problems = Gauge(
            "onbehalf_problems", "Parts that could not be taken over or reached; the log says which.", registry=registry
        )
        self._brought = Counter(
            "onbehalf_client_checkpoints",
            "Checkpoints that clients brought back, by what they say: split is a second history.",
            ("verdict",),
            registry=registry,
        )

    def watch_problems(self, count: Callable[[], int]) -> None:
        """Show how many parts are not as they should be, asked for at each scrape."""
        self._problems.set_function(count)

    def brought(self, verdict: str) -> None:
        """One checkpoint that a client brought back was looked at, or dropped."""
        self._brought.labels(verdict).inc()

    def decided(self, *, tool: str, decision: str, code: str) -> None:
        """One call decided."""
        self._decided.count((tool, decision, code))

    def acted(self, *, upstream: str, outcome: str, seconds: float) -> None:
        """One call done or failed upstream."""
        self._acted.count((upstream, outcome), seconds)

    def refused(self, *, code: str) -> None:
        """One request refused at the door."""
        self._refusals.labels(code).inc()


class _Decisions(Collector):
    """A counter as the library's own, in numbers without locks."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str], int] = {}
        self._since: dict[tuple[str, str, str], float] = {}

    def count(self, labels: tuple[str, str, str]) -> None:
        count = self._counts.get(labels)
        if count is None:
            count, self._since[labels] = 0, time.time()
        self._counts[labels] = count + 1

    def describe(self) -> Iterable[CounterMetricFamily]:
        return [
            CounterMetricFamily(
                "onbehalf_decisions",
                "Tool calls decided, by tool and decision.",
                labels=("tool", "decision", "code"),
            )
        ]

    def collect(self) -> Iterable[CounterMetricFamily]:
        (family,) = self.describe()
        created = _shows_created()
        for labels, count in self._counts.items():
            family.add_metric(labels, count, created=self._since[labels] if created else None)
        return [family]


class _Acts(Collector):
    """A histogram as the library's own, in numbers without locks."""

    def __init__(self) -> None:
        self._acts: dict[tuple[str, str], tuple[list[int], float]] = {}
        """How many took up to each of `_SECONDS` and no less, then those that took longer; and since when."""
        self._sums: dict[tuple[str, str], float] = {}

    def count(self, labels: tuple[str, str], seconds: float) -> None:
        known = self._acts.get(labels)
        if known is None:
            known = self._acts[labels] = ([0] * (len(_SECONDS) + 1), time.time())
            self._sums[labels] = 0.0
        known[0][bisect_left(_SECONDS, seconds)] += 1
        self._sums[labels] += seconds

    def describe(self) -> Iterable[HistogramMetricFamily]:
        return [
            HistogramMetricFamily(
                "onbehalf_upstream_seconds", "Time an upstream took, by outcome.", labels=("upstream", "outcome")
            )
        ]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        (family,) = self.describe()
        created = _shows_created()
        for labels, (counts, since) in self._acts.items():
            buckets = [*zip(_BOUNDS, accumulate(counts), strict=True)]
            family.add_metric(labels, buckets, self._sums[labels])
            if created:
                upstream, outcome = labels
                family.add_sample(f"{family.name}_created", {"upstream": upstream, "outcome": outcome}, since)
        return [family]


def _shows_created() -> bool:
    """Whether the library says of counters since when they count, which its own settings can turn off."""
    (family,) = Counter("probe", "probe", registry=None).collect()
    return len(family.samples) > 1
