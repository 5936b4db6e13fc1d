"""How many attended a room, once its people are no longer kept."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from coordinator.store.engine import ENGINE

ID = "2026-11-25T12:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "the number of those who attended a room outlives their rows"


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="coordinator", description=DESCRIPTION)

    async def add_columns() -> None:
        await ENGINE.run_ddl(
            "ALTER TABLE interview_rooms ADD COLUMN attended INTEGER"
        )

    manager.add_raw(add_columns)
    return manager
