"""The catalog's migrations: numbered, frozen once merged, applied by `migrate`."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from catalog.database import open_engine

ADVISORY_LOCK = 7_265_550_001
"""PostgreSQL's lock for one migration at a time."""


def migrate(url: str) -> None:
    """Bring the database up to the newest migration; safe when several processes start at once.

    One transaction under one lock: the second process finds the work done.
    """
    engine = open_engine(url).execution_options(tallylog_write=True)
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                lock = text("SELECT pg_advisory_xact_lock(:lock)")
                connection.execute(lock, {"lock": ADVISORY_LOCK})
            command.upgrade(configuration(connection), "head")
    finally:
        engine.dispose()


def configuration(connection: Connection) -> Config:
    """Alembic's configuration for migrations over this connection."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
