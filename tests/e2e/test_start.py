"""What the parts of a running Tallylog have loaded."""

from pathlib import Path

import psutil
import pytest

from tests.e2e.running import Tallylog


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_no_running_part_has_loaded_pandas(tallylog: Tallylog) -> None:
    """It comes with the engine's package; pyarrow and ClickHouse's client take it when they can."""
    parts = [
        process
        for process in psutil.process_iter(["cmdline", "environ"])
        if "cli.parts" in (process.info["cmdline"] or [])
        and (process.info["environ"] or {}).get("TALLYLOG_DATA_DIR") == tallylog.data_dir
    ]
    assert len(parts) == 3
    for process in parts:
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        assert "/pandas/" not in maps, process.info["cmdline"]


@pytest.mark.skipif(not psutil.LINUX, reason="children are told by Linux' sessions")
def test_what_counts_stands_back_behind_what_answers(tallylog: Tallylog) -> None:
    """Of decisions 0031 and 0034."""
    own = psutil.Process().nice()
    words = {
        "serve": 0,
        "kafka.Kafka": 0,
        "packer": 10,
        "counter": 10,
        "local_stack.clickhouse": 10,
    }
    found = {
        word: process.nice()
        for process in psutil.Process().children(recursive=True)
        for word in words
        if word in process.cmdline()
    }
    assert found == {word: min(own + nice, 19) for word, nice in words.items()}
