"""Piccolo's configuration, for its commands: `piccolo migrations …`, `piccolo sql_shell run`.

They connect to `DATABASE_URL`. The coordinator itself connects by `coordinator.store.database`, and
`coordinator migrate` is the way to bring a database to the newest schema.
"""

from piccolo.conf.apps import AppRegistry

from coordinator.store.engine import ENGINE

DB = ENGINE

APP_REGISTRY = AppRegistry(apps=["coordinator.store.piccolo_app"])
