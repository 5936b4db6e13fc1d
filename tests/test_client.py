"""The JavaScript client: its form, its decisions in virtual time, a model that tries to break it.

The tests themselves are JavaScript (`tests/client/*.test.mjs`), run by Node's own test runner.
"""

from __future__ import annotations

import pytest

from tests.node_runtime import install_packages, needs_node, run_tests

pytestmark = needs_node


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    install_packages()


@pytest.mark.timeout(200)
def test_the_module_is_small_old_enough_in_syntax_and_typed() -> None:
    run_tests("form.test.mjs", timeout=180)


def test_every_row_of_the_contracts_table_holds() -> None:
    run_tests("table.test.mjs")


@pytest.mark.timeout(200)
def test_no_schedule_of_server_network_and_device_breaks_it() -> None:
    run_tests("model.test.mjs", timeout=180)
