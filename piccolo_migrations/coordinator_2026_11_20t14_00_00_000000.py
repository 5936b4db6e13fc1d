"""Jobs, enterprises, AI interviews and their log."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from coordinator.store.engine import ENGINE

ID = "2026-11-20T14:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "jobs, enterprises, AI interviews and their log"

# `number` breaks ties of `created_at`, so that lists are stable. What callers send as JSON is kept
# as JSON text (not JSONB): their numbers and the order of their members stay as they came.
STATEMENTS = (
    """
    CREATE TABLE enterprises (
        id VARCHAR(64) COLLATE "C" PRIMARY KEY,
        name VARCHAR(200) NOT NULL
    )
    """,
    """
    CREATE TABLE jobs (
        id VARCHAR(64) COLLATE "C" PRIMARY KEY,
        number BIGSERIAL NOT NULL UNIQUE,
        enterprise_id VARCHAR(64) COLLATE "C" NOT NULL REFERENCES enterprises (id),
        title VARCHAR(200) NOT NULL,
        description TEXT,
        requirements TEXT,
        skills JSON NOT NULL DEFAULT '[]',
        salary_min BIGINT,
        salary_max BIGINT,
        location VARCHAR(200),
        created_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
        updated_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
    )
    """,
    "CREATE INDEX jobs_by_age ON jobs (created_at DESC, number DESC)",
    "CREATE INDEX jobs_of_enterprise ON jobs (enterprise_id)",
    """
    CREATE TABLE interviews (
        id VARCHAR(64) COLLATE "C" PRIMARY KEY,
        number BIGSERIAL NOT NULL UNIQUE,
        external_user_id VARCHAR(255) COLLATE "C" NOT NULL,
        job_id VARCHAR(64) COLLATE "C" NOT NULL REFERENCES jobs (id),
        status VARCHAR(20) NOT NULL DEFAULT 'IN_PROGRESS'
            CHECK (status IN ('IN_PROGRESS', 'COMPLETED', 'CANCELLED')),
        outline JSON NOT NULL DEFAULT '[]',
        current_index BIGINT NOT NULL DEFAULT 0,
        answers JSON NOT NULL DEFAULT '[]',
        report JSON NOT NULL DEFAULT '{}',
        resume_id VARCHAR(255),
        created_by VARCHAR(100) COLLATE "C" NOT NULL,
        updated_by VARCHAR(100) COLLATE "C" NOT NULL,
        fingerprint VARCHAR(64) COLLATE "C" NOT NULL,
        idempotency_key VARCHAR(255) COLLATE "C",
        body_digest VARCHAR(64) COLLATE "C",
        created_at TIMESTAMPTZ NOT NULL,
        updated_at TIMESTAMPTZ NOT NULL,
        last_seq BIGINT NOT NULL
    ) WITH (fillfactor = 80)
    """,
    "CREATE INDEX interviews_by_age ON interviews (created_at DESC, number DESC)",
    "CREATE INDEX interviews_of_user ON interviews (external_user_id)",
    "CREATE INDEX interviews_of_job ON interviews (job_id)",
    "CREATE INDEX interviews_by_call ON interviews (fingerprint, created_at)",
    """
    CREATE UNIQUE INDEX interviews_by_idempotency_key ON interviews (created_by, idempotency_key)
        WHERE idempotency_key IS NOT NULL
    """,
    """
    CREATE TABLE interview_events (
        interview_id VARCHAR(64) COLLATE "C" NOT NULL,
        seq BIGINT NOT NULL,
        type VARCHAR(30) NOT NULL,
        at TIMESTAMPTZ NOT NULL,
        payload JSON NOT NULL,
        PRIMARY KEY (interview_id, seq)
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
