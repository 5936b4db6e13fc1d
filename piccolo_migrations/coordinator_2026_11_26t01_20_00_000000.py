"""How often somebody was erased from a room or an interview: nodes that have it open notice."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from coordinator.store.engine import ENGINE

ID = "2026-11-26T01:20:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "erasures of rooms and interviews"

STATEMENTS = (
    "ALTER TABLE interview_rooms ADD COLUMN erasures INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE interviews ADD COLUMN erasures INTEGER NOT NULL DEFAULT 0",
)


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="coordinator", description=DESCRIPTION)

    async def add_columns() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(add_columns)
    return manager
