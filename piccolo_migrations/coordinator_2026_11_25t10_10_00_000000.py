"""An index by which old interviews are found; built beside nodes that serve."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from coordinator.store.engine import ENGINE

ID = "2026-11-25T10:10:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "final interviews by their age"


async def forwards() -> MigrationManager:
    manager = MigrationManager(
        migration_id=ID, app_name="coordinator", description=DESCRIPTION, wrap_in_transaction=False
    )

    async def build() -> None:
        await ENGINE.run_ddl(
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS interviews_final"
            " ON interviews (updated_at, id) WHERE status <> 'IN_PROGRESS'"
        )

    manager.add_raw(build)
    return manager
