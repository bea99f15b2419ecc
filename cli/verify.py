"""`tallylog verify`: whether what is stored agrees with itself and with the log."""

import asyncio
from contextlib import suppress

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as Bar
from rich.table import Table

from cli.report import NOTHING, Report, unknown
from clickhouse.client import connect
from clickhouse.views import UnknownView
from console.conservation import Gaps
from console.progress import Progress
from console.settings import Settings
from console.store import Store
from stream_workers.settings import WorkerSettings
from stream_workers.store import NO_ANSWER
from verification.checks import Checks, Found
from verification.ledger import BEHIND

LOOK_S = 30.0
"""Conservation takes two looks, some seconds apart."""
POLL_S = 0.1
SHOWN_MAX = 20


def run(*, repair: bool, sample: int, as_json: bool, out: Console, err: Console) -> int:
    """Verify, print what was found, and say the exit status."""
    with Bar(console=err, transient=True) as bar:
        report = asyncio.run(
            verify(Settings(), WorkerSettings(), mend=repair, sample=sample, bar=bar)
        )
    if as_json:
        out.print_json(data=report.document(), default=str)
    elif report.found is NOTHING:
        err.print(f"Could not verify: {report.trouble}", style="red", markup=False)
    else:
        show(report, out)
    return report.status


async def verify(
    settings: Settings, workers: WorkerSettings, *, mend: bool, sample: int, bar: Bar
) -> Report:
    """Check everything, or (`sample` > 0) the states of so many customers; mend what may be."""
    looking = asyncio.create_task(_conservation(settings))
    try:
        found = await asyncio.to_thread(_look, settings.clickhouse_url, workers, mend, sample, bar)
        gaps, trouble = await looking
        if trouble is not None and found.repaired:
            gaps, trouble = await _conservation(settings)
    except (*NO_ANSWER, TimeoutError, UnknownView) as error:
        return Report(NOTHING, None, str(error))
    finally:
        looking.cancel()
    return Report(found, gaps, trouble)


def _look(url: str, workers: WorkerSettings, mend: bool, sample: int, bar: Bar) -> Found:
    client = connect(url)
    try:
        checks = Checks(
            client,
            workers.horizon_ms,
            sample,
            lambda scopes, what: bar.track(scopes, description=what),
        )
        found = checks.look()
        return checks.mend(found) if mend else found
    finally:
        client.close()


async def _conservation(settings: Settings) -> tuple[Gaps | None, str | None]:
    """What two looks agree on, and why something of it isn't known."""
    progress = Progress(settings, Store(settings.clickhouse_url))
    running = asyncio.create_task(progress.run())
    first: Gaps | None = None
    try:
        async with asyncio.timeout(LOOK_S):
            while True:
                gaps = progress.conservation.gaps
                first = first or gaps
                if gaps is not None and first is not None and gaps.at != first.at:
                    return gaps, unknown(gaps)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        return None, progress.trouble or "what was received is not counted yet: ask again later"
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def show(report: Report, out: Console) -> None:
    """Print a report for people."""
    found = report.found
    table = Table(title=f"Verification of {found.events:,} rows")
    for column in ("check", "result"):
        table.add_column(column)
    for name, wrong, trouble in (
        ("states are what their rows make", len(found.states), None),
        ("every block is stored, once and whole", len(found.ledger), None),
        ("no event counts twice", len(found.repeated), None),
        ("all that was received became a row", len(report.lost), report.trouble),
    ):
        known = "[green]yes" if trouble is None else f"not known: {escape(trouble)}"
        table.add_row(name, f"[red]no: {wrong:,}" if wrong else known)
    out.print(table)
    lines = list(report.lines())
    for line in lines[:SHOWN_MAX]:
        out.print(line, markup=False)
    if len(lines) > SHOWN_MAX:
        out.print(f"… and {len(lines) - SHOWN_MAX:,} more: --json shows all")
    if found.repaired:
        out.print(f"{found.repaired:,} states and blocks' ends were made anew from their rows.")
    if found.unrepaired is not None:
        out.print(f"Not repaired: {found.unrepaired}", style="red", markup=False)
    elif found.states or any(flaw.kind == BEHIND for flaw in found.ledger):
        out.print("`tallylog verify --repair` makes the states anew from their rows.")
