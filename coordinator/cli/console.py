"""`coordinator console [user_001]`: a link that signs somebody in at the console."""

from __future__ import annotations

from coordinator.domain.people import Staff
from coordinator.services.console import sign_in_link
from coordinator.settings import Settings
from coordinator.store.console import ConsoleSessions
from coordinator.store.database import Database


async def print_link(settings: Settings, database: Database, staff: Staff) -> None:
    """Prints the bare link on stdout: good once, within 2 minutes."""
    print(await sign_in_link(ConsoleSessions(database), staff, base_url=settings.base_url))
