"""Piccolo's configuration, for its commands: `piccolo migrations …`, `piccolo sql_shell run`.

The coordinator itself connects through `coordinator.store.database`; `coordinator migrate` is the
way to bring a database to the newest schema.
"""

import os

from piccolo.conf.apps import AppRegistry

from coordinator.postgres_url import parse_postgres_url
from coordinator.store.connect import Connector
from coordinator.store.engine import Engine

_TARGET = parse_postgres_url(os.environ.get("DATABASE_URL", "postgresql:///coordinator"))

DB = Engine(Connector(_TARGET), {})

APP_REGISTRY = AppRegistry(apps=["coordinator.store.piccolo_app"])
