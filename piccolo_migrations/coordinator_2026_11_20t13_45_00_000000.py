"""The pictures of mini-program codes."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from coordinator.store.engine import ENGINE

ID = "2026-11-20T13:45:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "the pictures of mini-program codes"

# `digest` finds the picture of the same order again, `name` is what the world asks for.
# A picture is compressed already: EXTERNAL keeps Postgres from trying again.
STATEMENTS = (
    """
    CREATE TABLE qr_images (
        digest VARCHAR(64) COLLATE "C" PRIMARY KEY,
        name VARCHAR(40) COLLATE "C" NOT NULL UNIQUE,
        image BYTEA NOT NULL,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )
    """,
    "ALTER TABLE qr_images ALTER COLUMN image SET STORAGE EXTERNAL",
)


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="coordinator", description=DESCRIPTION)

    async def make_tables() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(make_tables)
    return manager
