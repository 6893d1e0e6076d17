"""What this process measures of itself: requests by the template of their route, and what the kernel knows of it.

Knows `prometheus_client`. Does not know routes or who asks. Never a path, a UID or a name: what no route serves counts
as "-", and so does a method that is none.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS_S = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)


class Meter:
    """One process's own figures. Safe to use from many threads."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the series, for OpenMetrics alone
        self.registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "countersign_http_requests",
            "Requests answered, by route template, method and class of status; '-' is what no route serves.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._duration = Histogram(
            "countersign_http_request_duration_seconds",
            "Seconds until a request's answer begins, by route template and method.",
            ("route", "method"),
            registry=self.registry,
            buckets=_BUCKETS_S,
        )

    def served(self, route: str, method: str, status: int, duration_s: float) -> None:
        """Count one request."""
        method = method if method in _METHODS else "-"
        self._requests.labels(route, method, f"{status // 100}xx").inc()
        self._duration.labels(route, method).observe(duration_s)
