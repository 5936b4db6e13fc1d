"""The floors of the house: what may import what, read from the imports themselves; and its names.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

import coordinator

ROOT = Path(coordinator.__file__).parent
FLOORS = {
    "domain": 0,
    "store": 1,
    "platforms": 1,
    "live": 2,
    "webhooks": 2,
    "services": 3,
    "web": 4,
    "standins": 6,
    "cli": 7,
}
TOP = 5
"""`node` and `server`, beside the folders."""
BESIDE = {
    "settings", "environment", "connection_url", "postgres_url", "redis_url", "logging", "metrics",
    "redis", "redis_connection", "redis_servers", "data_cipher", "keyed_hash", "worker_metrics",
}  # fmt: skip
"""Modules at the top that import nothing of the house but each other: any floor may use them."""


def imports(path: Path) -> set[str]:
    """The modules that a file imports, also inside its functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def floor_of(module: str) -> int | None:
    """The floor of `coordinator.web.rooms`; None for what is not of the house, or beside it."""
    parts = module.split(".")
    if parts[0] != "coordinator" or len(parts) == 1 or parts[1] in BESIDE:
        return None
    return FLOORS.get(parts[1], TOP) if (ROOT / parts[1]).is_dir() else TOP


def files() -> list[tuple[Path, str]]:
    return [
        (path, ".".join(("coordinator", *path.relative_to(ROOT).with_suffix("").parts)))
        for path in ROOT.rglob("*.py")
        if path != ROOT / "__init__.py"
    ]


def test_every_folder_has_its_floor() -> None:
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()}

    assert folders == FLOORS.keys()


def test_imports_go_downwards_only() -> None:
    wrong = []
    for path, module in files():
        own = floor_of(module)
        for imported in imports(path):
            other = floor_of(imported)
            if own is not None and other is not None and other > own:
                wrong.append(f"{module} imports {imported}")

    assert wrong == []


def test_store_and_platforms_do_not_know_each_other() -> None:
    wrong = [
        f"{module} imports {imported}"
        for path, module in files()
        for imported in imports(path)
        if {module.split(".")[1], [*imported.split("."), ""][1]} == {"store", "platforms"}
        and imported.startswith("coordinator.")
    ]

    assert wrong == []


def test_what_stands_beside_the_floors_imports_nothing_of_them() -> None:
    wrong = [
        f"{module} imports {imported}"
        for path, module in files()
        if module.split(".")[1] in BESIDE
        for imported in imports(path)
        if floor_of(imported) is not None
    ]

    assert wrong == []


def test_the_domain_imports_the_standard_library_alone() -> None:
    allowed = {*sys.stdlib_module_names, "coordinator"}
    wrong = [
        f"{path.name} imports {imported}"
        for path in (ROOT / "domain").glob("*.py")
        for imported in imports(path)
        if imported.split(".")[0] not in allowed
    ]

    assert wrong == []


def test_the_domain_never_waits() -> None:
    waiting = [
        f"{path.name}:{node.lineno}"
        for path in (ROOT / "domain").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
    ]

    assert waiting == []


def statements(path: Path) -> list[str]:
    """The texts of a file that begin as SQL does."""
    return [
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.match(r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH|CREATE|ALTER) ", node.value)
    ]


def test_only_the_store_speaks_sql() -> None:
    """And only it imports the driver."""
    others = [
        (path, module)
        for path, module in files()
        if not module.startswith("coordinator.store.") and module != "coordinator.standins.servers"
    ]
    imported = {module: imports(path) for path, module in others}

    assert {module: said for path, module in others if (said := statements(path))} == {}
    assert not [
        module
        for module, names in imported.items()
        if {name.split(".")[0] for name in names} & {"asyncpg", "piccolo"}
    ]


def test_no_two_classes_have_one_name() -> None:
    """Neither in the product, nor in its tests and load tests."""
    places = defaultdict(list)
    for folder in (ROOT, ROOT.parent / "tests", ROOT.parent / "loadtest"):
        for path in folder.rglob("*.py"):
            for name in re.findall(r"^class (\w+)[(:]", path.read_text(), re.MULTILINE):
                places[name].append(str(path.relative_to(ROOT.parent)))

    assert {name: found for name, found in places.items() if len(found) > 1} == {}
