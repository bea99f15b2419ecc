"""The catalog's migrations: numbered, frozen once merged, applied by `migrate`."""

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from catalog.database import open_engine

if TYPE_CHECKING:
    from alembic.config import Config

ADVISORY_LOCK = 7_265_550_001
"""PostgreSQL's lock for one migration at a time."""


def migrate(url: str) -> None:
    """Bring the database up to the newest migration; safe when several processes start at once.

    One transaction under one lock: the second process finds the work done.
    """
    engine = open_engine(url).execution_options(tallylog_write=True)
    try:
        if not _is_current(engine):
            _upgrade(engine)
    finally:
        engine.dispose()


def newest() -> str:
    """The number of the newest migration."""
    names = (file.name for file in files("catalog.migrations.versions").iterdir())
    return max(name.partition("_")[0] for name in names if name[:4].isdigit())


def _is_current(engine: Engine) -> bool:
    """Whether there is nothing to do: told without Alembic, which takes a while to load."""
    try:
        with engine.connect() as connection:
            found = connection.execute(text("SELECT version_num FROM alembic_version"))
            return found.scalars().all() == [newest()]
    except DBAPIError:  # no such table yet; or nobody answers, and the upgrade will say so
        return False


def _upgrade(engine: Engine) -> None:
    from alembic import command

    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            lock = text("SELECT pg_advisory_xact_lock(:lock)")
            connection.execute(lock, {"lock": ADVISORY_LOCK})
        command.upgrade(configuration(connection), "head")


def configuration(connection: Connection) -> "Config":
    """Alembic's configuration for migrations over this connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
