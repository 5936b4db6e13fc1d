"""Signing in at the console: codes, tickets, and sessions that were signed out."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from coordinator.store.engine import ENGINE

ID = "2026-11-25T15:10:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "signing in at the console: codes, tickets, and sessions that were signed out"

# Codes and tickets are kept as digests: who reads the table can sign in with nothing of it.
STATEMENTS = (
    """
    CREATE TABLE console_codes (
        digest VARCHAR(64) COLLATE "C" PRIMARY KEY,
        user_id INTEGER NOT NULL,
        is_reusable BOOLEAN NOT NULL,
        expires_at TIMESTAMPTZ NOT NULL
    )
    """,
    """
    CREATE TABLE console_tickets (
        digest VARCHAR(64) COLLATE "C" PRIMARY KEY,
        scan_digest VARCHAR(64) COLLATE "C" NOT NULL UNIQUE,
        match VARCHAR(2) COLLATE "C" NOT NULL,
        browser VARCHAR(200) NOT NULL,
        address VARCHAR(100) NOT NULL,
        user_id INTEGER,
        expires_at TIMESTAMPTZ NOT NULL
    )
    """,
    """
    CREATE TABLE revoked_sessions (
        jti VARCHAR(64) COLLATE "C" PRIMARY KEY,
        expires_at TIMESTAMPTZ NOT NULL
    )
    """,
)


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="coordinator", description=DESCRIPTION)

    async def make_tables() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(make_tables)
    return manager
