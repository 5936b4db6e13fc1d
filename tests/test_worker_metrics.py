"""One answer for all workers, valid for Prometheus, each sample said once."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from coordinator.worker_metrics import merged

ONE = b"""# HELP events_total Events
# TYPE events_total counter
events_total{type="a b"} 1.0
# HELP open Open
# TYPE open gauge
open 5.0
"""
OTHER = b"""# HELP events_total Events
# TYPE events_total counter
events_total{type="a b"} 2.0
# HELP open Open
# TYPE open gauge
open 7.0
"""


def test_a_process_alone_answers_as_it_is() -> None:
    assert merged({"1": ONE}) == ONE


def test_the_samples_of_two_workers_stand_side_by_side() -> None:
    text = merged({"1": ONE, "2": OTHER}).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}

    assert [(s.labels, s.value) for s in families["events"].samples] == [
        ({"worker": "1", "type": "a b"}, 1.0),
        ({"worker": "2", "type": "a b"}, 2.0),
    ]
    assert [s.value for s in families["open"].samples] == [5.0, 7.0]
