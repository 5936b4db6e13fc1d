"""Piccolo's configuration, for its commands: `piccolo migrations …`, `piccolo sql_shell run`.

The coordinator itself connects through `coordinator.store.database`; `coordinator migrate` is the
way to bring a database to the newest schema.
"""

import os

from piccolo.conf.apps import AppRegistry

from coordinator.store.engine import Engine

DB = Engine(config={"dsn": os.environ.get("DATABASE_URL", "postgresql:///coordinator")})

APP_REGISTRY = AppRegistry(apps=["coordinator.store.piccolo_app"])
