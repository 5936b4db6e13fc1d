"""`deploy/`: each file tried as far as it can be without its engine.

There is no container engine here: Dockerfile and compose.yaml are parsed, and not run.
"""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from coordinator.settings import Settings
from tests.rolling import is_installed, rolling_restart

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


@pytest.mark.timeout(400)
@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
async def test_a_rolling_restart_refuses_nobody_loses_no_event_and_nobody_leaves(
    proxy: str,
) -> None:
    if not is_installed(proxy):
        pytest.skip(f"{proxy} is not installed (apt-get install {proxy})")

    verdict = await rolling_restart(proxy, guests=20)

    assert verdict.is_clean, verdict
    assert verdict.moves >= 20, "everybody was sent away at least once"
    assert verdict.joins > 50


def declared() -> set[str]:
    """The names of all series that nodes tell."""
    source = (ROOT / "coordinator/metrics.py").read_text()
    names = set(re.findall(r'"(coordinator_[a-z_]+)"', source))
    return names | {f"{name}_{part}" for name in names for part in ("bucket", "count", "sum")}


@pytest.mark.parametrize("path", ["prometheus/alerts.yml", "grafana/coordinator.json"])
def test_what_is_watched_is_what_nodes_tell(path: str) -> None:
    named = set(re.findall(r"\bcoordinator_[a-z_]+", (DEPLOY / path).read_text()))

    assert len(named) > 5
    assert named <= declared()


def test_the_alert_rules_are_rules() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (apt-get install prometheus)")

    done = subprocess.run(
        ["promtool", "check", "config", str(DEPLOY / "prometheus/prometheus.yml")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "rules found" in done.stdout


def test_every_panel_of_the_dashboard_asks_something() -> None:
    dashboard = json.loads((DEPLOY / "grafana/coordinator.json").read_text())

    assert dashboard["title"] == "Coordinator"
    assert all(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_containers_are_given_settings_that_there_are() -> None:
    compose = yaml.safe_load((DEPLOY / "docker/compose.yaml").read_text())
    environment = compose["services"]["node"]["environment"]
    given = {name: re.sub(r"\$\{[^}]*\}", "x" * 43 + "=", value) for name, value in
             environment.items()}  # fmt: skip
    given["PUBLIC_BASE_URL"] = "http://localhost:8080"

    settings = Settings.from_env(given)

    assert settings.identity_proof == "required"
    source = (ROOT / "coordinator/settings.py").read_text()
    assert all(f'"{name}"' in source for name in given)
    for service in compose["services"].values():
        assert "image" in service or (ROOT / service["build"]["dockerfile"]).is_file()


def test_the_dockerfile_copies_what_is_there_and_installs_by_hash() -> None:
    lines = (DEPLOY / "docker/Dockerfile").read_text().replace("\\\n", " ").splitlines()
    copies = [line.split() for line in lines if line.startswith("COPY ") and "--from" not in line]
    copied = [words[1] for words in copies]

    assert all((ROOT / path).exists() for path in copied)
    assert any("--require-hashes" in line for line in lines)
    assert any(line.startswith("USER ") for line in lines)


def test_the_unit_drains_and_outlives_no_drain() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their capitals
    unit.read(DEPLOY / "systemd/coordinator.service")
    service = unit["Service"]

    assert float(service["TimeoutStopSec"]) >= Settings("", "", ()).drain_seconds + 5
    assert "coordinator serve" in service["ExecStart"]
    assert service["KillMode"] == "mixed"


def test_the_nodes_of_the_unit_can_be_inspected_from_outside_of_it() -> None:
    """Its user and its `/tmp` are its own: nobody else finds a socket there."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "systemd/coordinator.service")
    service = unit["Service"]

    folder = f"/run/{service['RuntimeDirectory']}"
    assert service["Environment"] == f"XDG_RUNTIME_DIR={folder}"
    assert f"XDG_RUNTIME_DIR={folder} coordinator inspect" in (
        ROOT / "docs/operations.md"
    ).read_text()
    assert service["RuntimeDirectoryMode"] == "0700"


def test_docker_is_sent_nothing_that_git_ignores() -> None:
    """`make run` leaves secrets, sockets and other users' folders in `.coordinator`."""
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    kept_back = {line.removeprefix("**/") for line in
                 (DEPLOY / "docker/Dockerfile.dockerignore").read_text().splitlines()}  # fmt: skip

    assert ignored - kept_back == set()
