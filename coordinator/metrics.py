"""What a node counts: Prometheus metrics, each defined once."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class PlainCounter(Collector):
    """A counter for what happens thousands of times a second: an addition, without a lock.

    For one thread, the event loop's; it is read when `/metrics` is asked for.
    """

    def __init__(self, name: str, documentation: str) -> None:
        self.value = 0
        self._name, self._documentation = name, documentation
        REGISTRY.register(self)

    def inc(self, amount: int = 1) -> None:
        """Adds to it."""
        self.value += amount

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(self._name, self._documentation, value=self.value)


class PlainCounterByLabel(Collector):
    """The same for each value of its labels: `counter.values["participant_joined",] += 1`."""

    def __init__(self, name: str, documentation: str, *labels: str) -> None:
        self.values: defaultdict[tuple[str, ...], int] = defaultdict(int)
        self._name, self._documentation, self._labels = name, documentation, labels
        REGISTRY.register(self)

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for values, count in self.values.items():
            family.add_metric(values, count)
        yield family


class PlainHistogram(Collector):
    """A histogram without locks; `buckets` are the upper bounds, in rising order."""

    def __init__(self, name: str, documentation: str, buckets: Sequence[float]) -> None:
        self._name, self._documentation = name, documentation
        self._bounds = list(buckets)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0
        REGISTRY.register(self)

    def observe(self, value: float) -> None:
        """Counts a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterator[Metric]:
        total, buckets = 0, []
        bounds = [str(float(bound)) for bound in self._bounds]
        for bound, count in zip([*bounds, "+Inf"], self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        yield HistogramMetricFamily(
            self._name, self._documentation, buckets=buckets, sum_value=self._sum
        )


CONNECTIONS = Gauge("coordinator_live_connections", "Live websocket connections on this node")
ROOMS = Gauge("coordinator_live_rooms", "Feeds (rooms, interviews) open on this node")
EVENTS = PlainCounterByLabel("coordinator_events_total", "Events committed by this node", "type")
DELIVERIES = PlainCounter("coordinator_deliveries_total", "Events written to connections")
DELIVERY_SECONDS = PlainHistogram(
    "coordinator_delivery_seconds",
    "From commit to the write to the room's sockets",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
GAPS_REPAIRED = Counter(
    "coordinator_gaps_repaired_total", "Events read from the log because no message brought them"
)
SLOW_CONSUMERS = Counter(
    "coordinator_slow_consumers_total", "Connections closed as too slow (4101)"
)
PRESENCE_EXPIRED = Counter(
    "coordinator_presence_expired_total", "Participants who did not return within the grace"
)
BUS_IGNORED = Counter(
    "coordinator_bus_messages_ignored_total",
    "Messages on the bus that do not count, by reason",
    ["reason"],
)
REDIS_UP = Gauge("coordinator_redis_up", "1 while the bus carries this node's own probe")
HTTP_REQUESTS = PlainCounterByLabel(
    "coordinator_http_requests_total", "HTTP requests answered", "method", "status"
)
HTTP_SECONDS = PlainHistogram(
    "coordinator_http_request_seconds",
    "Time to answer an HTTP request",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
)
REFUSED_CONNECTIONS = Counter(
    "coordinator_refused_connections_total",
    "TCP connections not accepted: too many of this node or of one address",
    ["reason"],
)
TCP_CONNECTIONS = Gauge("coordinator_tcp_connections", "Open TCP connections of clients")
REFUSED_REQUESTS = Counter(
    "coordinator_refused_requests_total",
    "Requests that ended their connection before they were complete",
    ["reason"],
)
WEBHOOK_LAG = Gauge(
    "coordinator_webhook_lag_seconds",
    "Age of the oldest event that the endpoint lacks; told by the node that sends to it",
    ["endpoint"],
)
WEBHOOK_DELIVERIES = Counter(
    "coordinator_webhook_deliveries_total",
    "Tries to deliver an event, by what came of them",
    ["endpoint", "outcome"],
)
WEBHOOK_SECONDS = Histogram(
    "coordinator_webhook_seconds",
    "From commit to the first try to send the event",
    ["endpoint"],
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60, 600, 3600),
)
WEBHOOK_PARKED = Counter(
    "coordinator_webhook_parked_total", "Logs given up after three days", ["endpoint"]
)
WEBHOOK_DISABLED = Counter(
    "coordinator_webhook_disabled_total",
    "Endpoints disabled by their sender: gone (410) or failing (three days without any 2xx)",
    ["endpoint", "reason"],
)
