"""What a part loads when it starts: five processes start at once, and stay in memory."""

import subprocess
import sys

import pytest

SERVICES = "pandas alembic aiohttp jgo requests chdb typer IPython pytest".split()
PARTS = {
    "cli.main": "pandas alembic sqlalchemy clickhouse_connect pyarrow numpy jgo requests chdb",
    "cli.serve": " ".join(SERVICES),
    "ingest_gateway.app": " ".join([*SERVICES, "clickhouse_connect", "jinja2", "faust", "console"]),
    "stream_workers.packer": " ".join([*SERVICES, "clickhouse_connect", "faust", "jinja2"]),
    "local_stack.clickhouse": " ".join([*SERVICES[:-3], "sqlalchemy", "aiokafka", "pyarrow"]),
}
"""By module, what importing it must not import."""


@pytest.mark.parametrize("module", PARTS)
def test_a_part_does_not_load_what_it_does_not_need_to_start(module: str) -> None:
    code = f"""
import {module}, sys
if "pyarrow" in sys.modules:
    import pyarrow
    pyarrow.array(["a list makes pyarrow look for pandas"])
print(*{{name.partition(".")[0] for name in sys.modules}})
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & set(PARTS[module].split()) == set()
