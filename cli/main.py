"""The command `tallylog`."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.panel import Panel
from typer.core import TyperGroup

from cli import parts
from cli import up as up_command
from local_stack.errors import Interrupted, StackError
from schemas.settings import Places


class _Commands(TyperGroup):
    """The commands, of which `keys` is loaded where it is asked for: it brings the catalog along.

    So `tallylog up` starts the broker half a second earlier.
    """

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return [*super().list_commands(ctx), "keys"]

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        if cmd_name != "keys":
            return super().get_command(ctx, cmd_name)
        from cli import keys

        command = typer.main.get_command(keys.app)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=_Commands,
    help="Tallylog: usage metering, every event counted once.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

DataDir = Annotated[
    Path,
    typer.Option(help="Everything kept on this disk.", envvar="TALLYLOG_DATA_DIR"),
]
Port = Annotated[int, typer.Option(help="HTTP port of gateway and console.", min=1, max=65535)]
Workers = Annotated[int, typer.Option(help="Processes of each part.", min=1, max=64)]
ReadyFile = Annotated[Path | None, typer.Option(help="Written as JSON once everything answers.")]


@app.command()
def up(
    data_dir: DataDir = Path(".tallylog"),
    port: Port = 8080,
    workers: Workers = 1,
    ready_file: ReadyFile = None,
) -> None:
    """Start everything on this machine, and keep it running until Ctrl-C."""
    options = up_command.Options(data_dir, port, workers, ready_file)

    async def stay() -> None:
        async with up_command.running(options, out) as (ready, children):
            out.print(_welcome(ready))
            await children.wait()
            out.print("Stopping …")

    _run(stay())


def _welcome(ready: up_command.Ready) -> Panel:
    curl = (
        f"curl {ready.base_url}/v1/events -H 'x-api-key: {ready.api_key}' \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        """  -d '{"event_name":"api.calls","external_customer_id":"cust_1"}'"""
    )
    return Panel(
        f"API          {ready.base_url}\n"
        f"API key      {ready.api_key}\n"
        f"Kafka        {ready.kafka} (topic events.{ready.account})\n"
        f"ClickHouse   {ready.clickhouse_url}\n\n"
        f"Send an event:\n{curl}\n\nCtrl-C stops everything; data stays in {ready.data_dir}.",
        title="Tallylog is up",
        expand=False,
    )


@app.command()
def demo(
    data_dir: DataDir = Path(".tallylog"),
    port: Port = 8080,
    workers: Workers = 1,
    leave: Annotated[
        bool, typer.Option("--exit", help="End after the tables; status 0 only if all is right.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what came out as JSON, the rest to stderr.")
    ] = False,
) -> None:
    """Start everything, send events of every kind, and show what became of them."""
    from cli.demo.api import DemoFailed
    from cli.demo.play import play, unless_stopped

    console = err if as_json else out
    options = up_command.Options(data_dir, port, workers)

    async def stay() -> None:
        async with up_command.running(options, console) as (ready, children):
            if not leave and not as_json:
                console.print(_welcome(ready))
            try:
                outcome = await unless_stopped(play(ready, console), children)
            except DemoFailed as error:
                err.print(f"[red]{error}")
                raise typer.Exit(1) from None
            if as_json:
                out.print_json(data=outcome.document())
            else:
                outcome.show(console)
            if leave:
                raise typer.Exit(1 if outcome.wrong else 0)
            console.print(f"Still here: {ready.base_url}. Ctrl-C stops everything.")
            await children.wait()
            console.print("Stopping …")

    _run(stay())


@app.command()
def serve(port: Port = 8080, workers: Workers = 1) -> None:
    """Run gateway and console behind one port."""
    parts.serve(port, workers)


@app.command()
def gateway(port: Port = 8080, workers: Workers = 1) -> None:
    """Run the ingest gateway alone."""
    parts.gateway(port, workers)


@app.command()
def console(
    port: Annotated[
        int, typer.Option(help="HTTP port.", envvar="TALLYLOG_CONSOLE_PORT", min=1, max=65535)
    ] = 8081,
) -> None:
    """Run the console's API alone."""
    parts.console(port)


@app.command()
def packer() -> None:
    """Run a packer: source records in, blocks out."""
    parts.packer()


@app.command()
def counter() -> None:
    """Run a counter: blocks in, counted rows out."""
    parts.counter()


@app.command()
def kafka() -> None:
    """Run the local Kafka broker alone."""
    from local_stack.kafka import run_kafka
    from local_stack.settings import StackSettings

    _guard(lambda: run_kafka(StackSettings()))


@app.command()
def clickhouse() -> None:
    """Run the local ClickHouse engine alone."""
    from local_stack.clickhouse import run_clickhouse
    from local_stack.settings import StackSettings

    _guard(lambda: run_clickhouse(StackSettings()))


@app.command()
def reader(
    account: Annotated[str, typer.Argument(help="Whose events may be read.")],
    data_dir: DataDir = Path(".tallylog"),
    remove: Annotated[bool, typer.Option("--remove", help="Let it in no more.")] = False,
) -> None:
    """Give an account's reader a new password for the local ClickHouse engine, shown once."""
    from local_stack.readers import PREFIX, Readers
    from local_stack.settings import StackSettings

    readers = Readers(data_dir / "clickhouse")
    try:
        if not remove:
            out.print(f"user      {PREFIX}{account}\npassword  {readers.create(account)}")
            if not StackSettings().clickhouse_password:
                err.print("The operator has no password: set TALLYLOG_CLICKHOUSE_PASSWORD")
        elif not readers.remove(account):
            raise ValueError(f"{account!r} has no reader")
    except ValueError as error:
        err.print(f"[red]{error}")
        raise typer.Exit(1) from None


@app.command()
def migrate() -> None:
    """Bring the tables of ClickHouse and of the catalog up to date, and make the first key."""
    from catalog.bootstrap import bootstrap
    from clickhouse.migrator import migrate as migrate_clickhouse

    places = Places()
    for migration in migrate_clickhouse(places.clickhouse_url):
        out.print(f"ClickHouse: {migration.name}")
    made = bootstrap(places.catalog)
    out.print(f"Catalog: account {made.account}")
    if made.api_key is not None:
        out.print(f"API key, shown once: {made.api_key}")


@app.command()
def verify(
    repair: Annotated[
        bool, typer.Option("--repair", help="Make states that differ anew, from their rows.")
    ] = False,
    sample: Annotated[
        int, typer.Option(help="Look at the states of so many customers alone; 0: all.", min=0)
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Check that states equal rows, that no block or event is missing, and that none counts twice.

    Status 0: all is whole; 1: something isn't; 2: nothing was found, but not all could be asked.
    """
    from cli.verify import run

    raise typer.Exit(run(repair=repair, sample=sample, as_json=as_json, out=out, err=err))


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.run(work)
    except Interrupted:
        raise typer.Exit(130) from None
    except StackError as error:
        err.print(f"[red]{error}")
        raise typer.Exit(1) from None


def _guard(work: Callable[[], None]) -> None:
    try:
        work()
    except StackError as error:
        err.print(f"[red]{error}")
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
