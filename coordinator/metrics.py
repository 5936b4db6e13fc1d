"""What a node counts: Prometheus metrics, each defined once."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

CONNECTIONS = Gauge("coordinator_live_connections", "Live websocket connections on this node")
ROOMS = Gauge("coordinator_live_rooms", "Feeds (rooms, interviews) open on this node")
EVENTS = Counter("coordinator_events_total", "Events committed by this node", ["type"])
DELIVERIES = Counter("coordinator_deliveries_total", "Events written to connections")
DELIVERY_SECONDS = Histogram(
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
HTTP_REQUESTS = Counter(
    "coordinator_http_requests_total", "HTTP requests answered", ["method", "status"]
)
HTTP_SECONDS = Histogram("coordinator_http_request_seconds", "Time to answer an HTTP request")
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
