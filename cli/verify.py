"""`tallylog verify`: whether what is stored agrees with itself and with the log."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from clickhouse_connect.driver import Client
from rich.console import Console
from rich.progress import Progress as Bar
from rich.table import Table

from clickhouse.client import connect
from clickhouse.queries import query
from clickhouse.views import UnknownView
from console.conservation import Gaps
from console.progress import Progress
from console.settings import Settings
from console.store import Store
from stream_workers.settings import WorkerSettings
from stream_workers.store import NO_ANSWER, NotOwner
from verification import ledger, once, states
from verification import repair as repairing
from verification.states import Scope

EVENTS_A_SHARD = 5_000_000
LOOK_S = 30.0
"""Conservation takes two looks, some seconds apart."""
POLL_S = 0.1
SHOWN_MAX = 20


class Report(NamedTuple):
    """What a verification found.

    gaps      Conservation, as the log and the store tell it; None: not known, `trouble` says why.
    repaired  How many differences of states there were before they were made anew.
    """

    events: int
    states: list[states.Difference]
    ledger: list[ledger.Flaw]
    repeated: list[once.Repeated]
    gaps: Gaps | None
    trouble: str | None
    repaired: int = 0

    @property
    def lost(self) -> dict[str, int]:
        """By source topic, or "store": events that were read and never counted, rows amiss."""
        if self.gaps is None:
            return {}
        found = {**self.gaps.events, "store": self.gaps.rows}
        return {place: count for place, count in found.items() if count}

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong, as far as could be looked."""
        return not (self.states or self.ledger or self.repeated or self.lost)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "whole": self.whole,
            "events": self.events,
            "states": [
                {
                    **each.key._asdict(),
                    "span": each.key.span.isoformat(),
                    "stored": each.stored._asdict(),
                    "made_of_rows": each.made._asdict(),
                }
                for each in self.states
            ],
            "ledger": [each._asdict() for each in self.ledger],
            "repeated": [each._asdict() for each in self.repeated],
            "conservation": None
            if self.gaps is None
            else {"events": dict(self.gaps.events), "rows": self.gaps.rows},
            "trouble": self.trouble,
            "repaired": self.repaired,
        }


def run(*, repair: bool, sample: int, as_json: bool, out: Console, err: Console) -> int:
    """Verify, print what was found, and say the exit status."""
    try:
        with Bar(console=err, transient=True) as bar:
            report = asyncio.run(
                verify(Settings(), WorkerSettings(), mend=repair, sample=sample, bar=bar)
            )
    except repairing.Unrepairable as error:
        err.print(f"Not repaired: {error}", style="red", markup=False)
        return 1
    except (*NO_ANSWER, NotOwner, TimeoutError, UnknownView) as error:
        err.print(f"Could not verify: {error}", style="red", markup=False)
        return 2
    if as_json:
        out.print_json(data=report.document(), default=str)
    else:
        show(report, out)
    return 0 if report.whole else 1


async def verify(
    settings: Settings, workers: WorkerSettings, *, mend: bool, sample: int, bar: Bar
) -> Report:
    """Check everything, or (`sample` > 0) the states of so many customers; mend what may be.

    Raises what the client of ClickHouse raises, and repair.Unrepairable.
    """
    looking = asyncio.create_task(_conservation(settings))
    try:
        found = await asyncio.to_thread(_look, settings.clickhouse_url, workers, mend, sample, bar)
        gaps, trouble = await looking
    finally:
        looking.cancel()
    return found._replace(gaps=gaps, trouble=trouble)


def _look(url: str, workers: WorkerSettings, mend: bool, sample: int, bar: Bar) -> Report:
    client = connect(url)
    try:
        events = int(client.query(query("rows_stored")).result_rows[0][0])
        shards = 1 + events // EVENTS_A_SHARD
        differing = _states(client, shards, sample, bar)
        flaws = ledger.flaws(client)
        repeated: list[once.Repeated] = []
        if not sample:
            for shard in bar.track(range(shards), description="Ids that count twice"):
                repeated += once.repeated(client, shards, shard, workers.horizon_ms)
        repaired = 0
        if mend and differing:
            repairing.repair(client, differing, flaws)
            repaired = len(differing)
            named = [(each.key.account, each.key.external_customer_id) for each in differing]
            differing = states.differences(client, Scope.of(named))
        return Report(events, differing, flaws, repeated, None, None, repaired)
    finally:
        client.close()


def _states(client: Client, shards: int, sample: int, bar: Bar) -> list[states.Difference]:
    scopes = (
        [states.sample(client, sample)]
        if sample
        else [Scope(shards, shard) for shard in range(shards)]
    )
    found: list[states.Difference] = []
    for scope in bar.track(scopes, description="States against rows"):
        found += states.differences(client, scope)
    return found


async def _conservation(settings: Settings) -> tuple[Gaps | None, str | None]:
    """What two looks agree on; or None, and why it isn't known."""
    progress = Progress(settings, Store(settings.clickhouse_url))
    running = asyncio.create_task(progress.run())
    first: Gaps | None = None
    try:
        async with asyncio.timeout(LOOK_S):
            while True:
                gaps = progress.conservation.gaps
                first = first or gaps
                if gaps is not None and first is not None and gaps.at != first.at:
                    return gaps, None
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        return None, progress.trouble or "what was received is not counted yet: ask again later"
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def show(report: Report, out: Console) -> None:
    """Print a report for people."""
    table = Table(title=f"Verification of {report.events:,} rows")
    for column in ("check", "result"):
        table.add_column(column)
    gap = "not known: " + (report.trouble or "") if report.gaps is None else ""
    for name, found in (
        ("states are what their rows make", len(report.states)),
        ("every block is stored, once and whole", len(report.ledger)),
        ("no event counts twice", len(report.repeated)),
        ("all that was received became a row", len(report.lost)),
    ):
        unknown = gap if name.startswith("all that") else ""
        table.add_row(name, unknown or ("[green]yes" if not found else f"[red]no: {found:,}"))
    out.print(table)
    lines = list(_lines(report))
    for line in lines[:SHOWN_MAX]:
        out.print(line, markup=False)
    if len(lines) > SHOWN_MAX:
        out.print(f"… and {len(lines) - SHOWN_MAX:,} more: --json shows all")
    if report.repaired:
        out.print(f"{report.repaired:,} states were made anew from their rows.")
    elif report.states:
        out.print("`tallylog verify --repair` makes the states anew from their rows.")


def _lines(report: Report) -> Iterator[str]:
    for each in report.states:
        key = each.key
        parts = [
            f"{name} {stored} instead of {made}"
            for name, stored, made in zip(each.stored._fields, each.stored, each.made, strict=True)
            if stored != made
        ]
        yield (
            f"{key.account} {key.feature_id} {key.external_customer_id} {key.span:%Y-%m-%d %H:%M}"
            f" {key.group_key}: {', '.join(parts) or 'other distinct values'}"
        )
    for flaw in report.ledger:
        yield f"block partition {flaw.block_partition}: {flaw.kind}: {flaw.detail}"
    for again in report.repeated:
        yield (
            f"{again.account} {again.event_id} counts {again.times} times, for"
            f" {', '.join(again.customers)}"
        )
    for place, count in report.lost.items():
        yield f"{place}: {count:+,} events"
