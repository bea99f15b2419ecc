"""What is stored of an event: bytes on disk, table by table."""

import time

from clickhouse_connect.driver import Client

QUIET_S = 1.0
WAIT_S = 120.0


def settle(client: Client) -> None:
    """Wait until the engine has merged what it wants to, for two minutes at most."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if not client.command("SELECT count() FROM system.merges"):
            return
        time.sleep(QUIET_S)


def bytes_per_event(client: Client) -> dict[str, float]:
    """Of each table, and of the ids alone: `events.event_id`."""
    settle(client)
    events = client.query("SELECT count() FROM events WHERE verdict != 'marker'").result_rows[0][0]
    tables = client.query(
        "SELECT table, sum(bytes_on_disk) FROM system.parts"
        " WHERE active AND database = currentDatabase() GROUP BY table"
        " HAVING table IN ('events', 'usage_states') ORDER BY table"
    ).result_rows
    ids = client.query(
        "SELECT sum(column_data_compressed_bytes) FROM system.parts_columns"
        " WHERE active AND database = currentDatabase() AND table = 'events'"
        " AND column = 'event_id'"
    ).result_rows[0][0]
    found = {table: size / events for table, size in tables}
    return found | {"events.event_id": ids / events}
