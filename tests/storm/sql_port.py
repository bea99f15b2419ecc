"""What hostile queries at the SQL port cost those who send events, as figures of the page."""

import asyncio
import statistics

from benchmarks.analysts import ACCOUNTS, TARGET, Found, measure
from tests.storm.figures import Figure

ROUNDS, SECONDS, PER_S, ANALYSTS = 5, 20, 50, 50


def beside_analysts() -> list[Figure]:
    """Measure it on a Tallylog of its own; some minutes."""
    return figures(asyncio.run(measure(ROUNDS, SECONDS, PER_S, ANALYSTS)))


def figures(found: Found) -> list[Figure]:
    """The 99th percentiles beside analysts, as multiples of those without."""
    told = f"{ANALYSTS} analysts of {len(ACCOUNTS)} accounts with hostile queries"
    return [
        Figure(
            "SQL port",
            f"{told}: p99 of {PER_S} single events a second from sending to {until}",
            f"{TARGET:g} times that without them",
            f"{ratio:.2f} ({_ms(found.beside, number)} ms, {_ms(found.without, number)} ms"
            f" without; {_ms(found.loop, number)} ms beside a loop of the lowest priority)",
            ratio <= TARGET,
        )
        for number, (until, ratio) in enumerate(
            zip(("202", "counted"), found.ratios(), strict=True)
        )
    ]


def _ms(rounds: list[tuple[float, float]], number: int) -> str:
    """The median of the rounds."""
    return f"{1000 * statistics.median(each[number] for each in rounds):,.0f}"
