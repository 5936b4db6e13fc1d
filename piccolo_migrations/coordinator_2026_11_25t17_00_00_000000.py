"""When a picture of a code was asked for last: those that nobody wants any more go."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from coordinator.store.engine import ENGINE

ID = "2026-11-25T17:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "when a picture of a code was asked for last"

STATEMENTS = (
    "ALTER TABLE qr_images ADD COLUMN asked_at TIMESTAMPTZ NOT NULL DEFAULT now()",
    "CREATE INDEX qr_images_by_last_use ON qr_images (asked_at)",
)


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="coordinator", description=DESCRIPTION)

    async def add_column() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(add_column)
    return manager
