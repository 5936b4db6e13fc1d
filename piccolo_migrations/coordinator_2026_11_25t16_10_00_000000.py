"""Indexes by which rooms are found whose time has passed; built beside nodes that serve."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from coordinator.store.engine import ENGINE

ID = "2026-11-25T16:10:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "active rooms by how long their host is absent, and by how long they are empty"

STATEMENTS = (
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS interview_rooms_host_absent"
    " ON interview_rooms (host_absent_since)"
    " WHERE status = 'active' AND host_absent_since IS NOT NULL",
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS interview_rooms_empty"
    " ON interview_rooms (empty_since) WHERE status = 'active' AND empty_since IS NOT NULL",
)


async def forwards() -> MigrationManager:
    manager = MigrationManager(
        migration_id=ID, app_name="coordinator", description=DESCRIPTION, wrap_in_transaction=False
    )

    async def build() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(build)
    return manager
