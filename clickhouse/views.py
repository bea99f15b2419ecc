"""The views' own SELECTs, over other rows than the ones that they were made for."""

from clickhouse_connect.driver import Client

STATES_VIEW = "usage_states_mv"


class UnknownView(Exception):
    """The view is not there, or not the one that the migrations made."""


def states_over(client: Client, rows: str) -> str:
    """The SELECT of the view behind `usage_states`, over rows of `events` given as a subquery.

    `rows` is SQL of ours, which may have parameters. Raises UnknownView.
    """
    found = client.query(
        "SELECT database, as_select FROM system.tables"
        " WHERE database = currentDatabase() AND name = {view:String}",
        {"view": STATES_VIEW},
    ).result_rows
    if not found:
        raise UnknownView(f"there is no {STATES_VIEW}: run `tallylog migrate`")
    database, select = found[0]
    source = f"FROM {database}.events"
    if select.count(source) != 1:
        raise UnknownView(f"{STATES_VIEW} does not read events once: was it changed by hand?")
    return str(select.replace(source, f"FROM ({rows}) AS events"))
