"""Phone numbers are kept encrypted."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from coordinator.store.engine import ENGINE

ID = "2026-11-25T13:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "phone numbers encrypted at rest, beside the column of the versions before"


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="coordinator", description=DESCRIPTION)

    async def add_column() -> None:
        await ENGINE.run_ddl("ALTER TABLE users ADD COLUMN phone_encrypted VARCHAR(200)")

    manager.add_raw(add_column)
    return manager
