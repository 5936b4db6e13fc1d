"""The deployment of a run as its operators see it: a role with a password, another Redis that a
name may lead to by mistake, and a schema with which PostgreSQL's disk and clock can be troubled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import asyncpg

from coordinator.standins.servers import EmbeddedPostgres, EmbeddedRedis
from coordinator.store.outages import is_outage
from tests.chaos.plan import Past
from tests.chaos.verdict import NOTHING_WITHDRAWN, Withdrawn
from tests.harness.cluster import Cluster, steady_ports
from tests.harness.patience import patient

ROLE, PASSWORD = "app", "first"
SPARE_PORTS = 2
OPERATOR_SECONDS = 20.0

TROUBLE = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.trouble (is_full boolean NOT NULL, behind interval NOT NULL);
INSERT INTO chaos.trouble VALUES (false, '0');
CREATE FUNCTION chaos.refuses() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF (SELECT is_full FROM chaos.trouble) THEN
        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON room_events
    FOR EACH ROW EXECUTE FUNCTION chaos.refuses();
CREATE TRIGGER full_disk BEFORE INSERT ON connections
    FOR EACH ROW EXECUTE FUNCTION chaos.refuses();
CREATE FUNCTION chaos.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    'SELECT pg_catalog.clock_timestamp() - behind FROM chaos.trouble';
CREATE FUNCTION chaos.now() RETURNS timestamptz LANGUAGE sql STABLE AS
    'SELECT pg_catalog.now() - behind FROM chaos.trouble';
GRANT USAGE ON SCHEMA chaos TO app;
GRANT SELECT ON chaos.trouble TO app;
ALTER ROLE app IN DATABASE coordinator SET search_path = chaos, pg_catalog, public;
"""
"""Nodes find this schema's clock before PostgreSQL's own, by the search path of their role."""


class GuardedPostgres(EmbeddedPostgres):
    """Over TCP the nodes' role needs its password; the operator, `postgres`, needs none."""

    def _write(self, name: str, text: str) -> None:
        if name == "pg_hba.conf":
            text = f"host all {ROLE} 127.0.0.1/32 scram-sha-256\n{text}"
        super()._write(name, text)


class Operator:
    """What is done to PostgreSQL in SQL, from outside the product."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self._postgres = postgres

    async def connect(self, database: str = "coordinator") -> Any:
        """A session, as soon as the server lets one in."""
        deadline = time.monotonic() + patient(OPERATOR_SECONDS)
        while True:
            try:
                return await asyncpg.connect(
                    self._postgres.database_url(database), timeout=patient(5)
                )
            except (OSError, TimeoutError, asyncpg.PostgresError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)

    async def does(self, *statements: str, database: str = "coordinator") -> None:
        """Each in a transaction of its own; again where a lock or another fault was in the way."""
        for statement in statements:
            await self._until_done(statement, database)

    async def _until_done(self, statement: str, database: str) -> None:
        deadline = time.monotonic() + patient(OPERATOR_SECONDS)
        while True:
            session = await self.connect(database)
            try:
                await session.execute("SET lock_timeout = '2s'")
                await session.execute(statement)
                return
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                is_hindered = isinstance(error, asyncpg.LockNotAvailableError)
                if not (is_hindered or is_outage(error)) or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)
            finally:
                session.terminate()

    async def shuts_out(self, *statements: str) -> None:
        """Changes who may log in, and ends the sessions of those who did."""
        ends = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'"
        await self.does(*statements, ends, database="postgres")


class Site(Cluster):
    """A cluster whose nodes log in as `app`, with a second Redis that knows nothing of the first.

    Attributes:
        promotions: when each standby had been promoted (wall clock), where there are any.
    """

    def __init__(self, *, nodes: int, grace: float, **settings: str) -> None:
        self.spare_ports = steady_ports(2 + nodes + SPARE_PORTS)[-SPARE_PORTS:]
        super().__init__(nodes=nodes, grace=grace, **settings)
        self.promotions: list[float] = []
        self.postgres = self.make_postgres()
        self.other_redis = EmbeddedRedis(self.folder / "other-redis", port=self.spare_ports[0])

    def make_postgres(self) -> EmbeddedPostgres:
        """Not started yet."""
        return GuardedPostgres(
            self.folder / "postgres", port=self.postgres.port, options=("fsync=off",)
        )

    @property
    def operator(self) -> Operator:
        """Of the server that takes writes now."""
        return Operator(self.postgres)

    async def make_role(self) -> None:
        """The nodes' own, with a password; the database is its own."""
        await self.operator.does(
            f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'",
            f"ALTER DATABASE coordinator OWNER TO {ROLE}",
        )

    async def fill_database(self) -> None:
        await self.make_role()
        await super().fill_database()
        await self.operator.does(TROUBLE)

    def database_url(self, port: int) -> str:
        return f"postgresql://{ROLE}:{PASSWORD}@127.0.0.1:{port}/coordinator"

    async def withdrawn(self, past: Sequence[Past]) -> Withdrawn:
        """What the faults may have taken out of the logs: nothing."""
        return NOTHING_WITHDRAWN

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        await asyncio.to_thread(self.other_redis.stop)
