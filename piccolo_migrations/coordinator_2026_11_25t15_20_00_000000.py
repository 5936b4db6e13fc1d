"""What each node reports of itself."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from coordinator.store.engine import ENGINE

ID = "2026-11-25T15:20:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "what each node reports of itself"

# One row per node, written every two seconds: room is left in each page, so that the next version
# of a row fits beside the last one and no index is touched.
STATEMENTS = (
    """
    CREATE TABLE node_reports (
        node_epoch VARCHAR(32) COLLATE "C" PRIMARY KEY,
        name VARCHAR(100) NOT NULL,
        reported_at TIMESTAMPTZ NOT NULL,
        report JSON NOT NULL,
        history JSON NOT NULL
    ) WITH (fillfactor = 50)
    """,
)


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="coordinator", description=DESCRIPTION)

    async def make_table() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(make_table)
    return manager
