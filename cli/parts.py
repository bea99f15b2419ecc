"""The parts of Tallylog, each as a process of its own: `python -m cli.parts packer`.

`tallylog up` starts them by this module rather than by the command line's, and each imports what it
needs and no more: five processes start at once.
"""

import argparse
import faulthandler
import logging
import signal
import sys
from collections.abc import Sequence

from schemas.settings import Places


def gateway(port: int, workers: int) -> None:
    """The ingest gateway alone."""
    from ingest_gateway.app import run
    from ingest_gateway.settings import Settings

    _log()
    run(Settings(), port, workers)


def console(port: int) -> None:
    """The console's API alone."""
    from cli.serve import run_console

    _log()
    run_console(port, Places().log_level)


def serve(port: int, workers: int) -> None:
    """Gateway and console behind one port."""
    from cli.serve import run

    _log()
    run(port, workers, Places().log_level)


def packer() -> None:
    """Source records in, blocks out."""
    from stream_workers.packer import run
    from stream_workers.settings import PackerSettings

    _log()
    run(PackerSettings())


def counter() -> None:
    """Blocks in, counted rows out."""
    from stream_workers.counter import run
    from stream_workers.settings import WorkerSettings

    _log()
    run(WorkerSettings())


def _log() -> None:
    faulthandler.register(signal.SIGUSR1)  # kill -USR1: where every thread is, on stderr
    logging.basicConfig(
        level=Places().log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


def main(arguments: Sequence[str]) -> None:
    """Run one of the parts that `tallylog up` starts."""
    parser = argparse.ArgumentParser(prog="python -m cli.parts")
    commands = parser.add_subparsers(required=True)
    serving = commands.add_parser("serve")
    serving.add_argument("--port", type=int, required=True)
    serving.add_argument("--workers", type=int, default=1)
    serving.set_defaults(part=serve)
    for part in (packer, counter):
        commands.add_parser(part.__name__).set_defaults(part=part)
    chosen = vars(parser.parse_args(arguments))
    chosen.pop("part")(**chosen)


if __name__ == "__main__":
    main(sys.argv[1:])
