"""Webhooks: who is told, and how far each log has been told to it."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from coordinator.store.engine import ENGINE

ID = "2026-11-25T14:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "webhooks, and how far each log has been told"

# `webhook_feeds` has rows only for logs of which something was sent or tried: of all others the
# position follows from `rooms_since` and `interviews_since` (null = not wanted).
# What fails is found by two partial indexes.
# `writes_report`: nodes of the version before do not know it and leave it false.
STATEMENTS = (
    """
    CREATE TABLE webhooks (
        id VARCHAR(32) COLLATE "C" PRIMARY KEY,
        name VARCHAR(100) COLLATE "C" NOT NULL UNIQUE,
        url VARCHAR(2000) NOT NULL,
        events JSON,
        enterprise_id VARCHAR(64) COLLATE "C",
        secret VARCHAR(400) NOT NULL,
        old_secret VARCHAR(400),
        old_secret_until TIMESTAMPTZ,
        created_by VARCHAR(100) NOT NULL,
        created_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
        rooms_since TIMESTAMPTZ,
        interviews_since TIMESTAMPTZ,
        disabled_at TIMESTAMPTZ,
        disabled_reason VARCHAR(20),
        failing_since TIMESTAMPTZ,
        behind_since TIMESTAMPTZ,
        last_answer VARCHAR(200),
        last_answer_at TIMESTAMPTZ,
        holder VARCHAR(32) COLLATE "C",
        generation BIGINT NOT NULL DEFAULT 0,
        epochs JSON NOT NULL DEFAULT '[]',
        lease_until TIMESTAMPTZ
    ) WITH (fillfactor = 50)
    """,
    """
    CREATE TABLE webhook_feeds (
        webhook_id VARCHAR(32) COLLATE "C" NOT NULL,
        kind VARCHAR(10) COLLATE "C" NOT NULL,
        feed_id VARCHAR(100) COLLATE "C" NOT NULL,
        position BIGINT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        retry_at TIMESTAMPTZ,
        failing_since TIMESTAMPTZ,
        parked_at TIMESTAMPTZ,
        last_answer VARCHAR(200),
        PRIMARY KEY (webhook_id, kind, feed_id)
    ) WITH (fillfactor = 80)
    """,
    """
    CREATE INDEX webhook_feeds_due ON webhook_feeds (webhook_id, retry_at)
        WHERE retry_at IS NOT NULL
    """,
    """
    CREATE INDEX webhook_feeds_failing ON webhook_feeds (webhook_id, failing_since)
        WHERE failing_since IS NOT NULL
    """,
    "ALTER TABLE interview_events ADD COLUMN writes_report BOOLEAN NOT NULL DEFAULT false",
)


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="coordinator", description=DESCRIPTION)

    async def make_tables() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(make_tables)
    return manager
