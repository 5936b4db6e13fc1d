"""What Piccolo's own commands read: where the tables and the migrations are."""

from pathlib import Path

from piccolo.conf.apps import AppConfig, table_finder

import piccolo_migrations

APP_CONFIG = AppConfig(
    app_name="coordinator",
    migrations_folder_path=str(Path(next(iter(piccolo_migrations.__path__)))),
    table_classes=table_finder(modules=["coordinator.store.tables"]),
)
