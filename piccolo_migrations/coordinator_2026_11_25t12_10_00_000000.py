"""Where guests came from, as a digest, where the seats of an address are counted."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from coordinator.store.engine import ENGINE

ID = "2026-11-25T12:10:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "a digest of where a guest came from"


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="coordinator", description=DESCRIPTION)

    async def add_columns() -> None:
        await ENGINE.run_ddl(
            'ALTER TABLE interview_participants ADD COLUMN joined_from VARCHAR(32) COLLATE "C"'
        )

    manager.add_raw(add_columns)
    return manager
