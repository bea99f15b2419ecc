"""Flexprice's own npm SDK with our URL and key: the story of `npm_story.mjs`.

Its packages come from the npm registry that the machine is set up for, once, into the user's cache
folder; they have to be, bit for bit, what is named here.
"""

import json
import os
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from tests.e2e.running import Tallylog

PACKAGES = {
    "@flexprice/sdk": (
        "2.0.1",
        "sha512-x6PgHV6HvENn1Qqm829Q1Ne9l01g8Sc72yO1vFvEIWSwl3fw0C02jmNd4NPdgaLCrAM/PcJZvpuVVnHX//CijQ==",
    ),
    "zod": (
        "4.1.12",
        "sha512-JInaHOamG8pt5+Ey8kGmdcAcg3OL9reK8ltczgHTAwNhMys/6ThXHityHxVV2p3fkw/c+MAvBHFVYHFZDmjMCQ==",
    ),
}
"""The SDK parses nothing with a newer zod."""

STORY = Path(__file__).parent / "npm_story.mjs"


@pytest.fixture(scope="module")
def packages() -> Path:
    """A folder with the packages in `node_modules`; skips where node, npm or a registry are not."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not here")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "tallylog" / "-".join(["npm", *(each[0] for each in PACKAGES.values())])
    if installed(folder) != PACKAGES:
        folder.mkdir(parents=True, exist_ok=True)
        wanted = [f"{name}@{number}" for name, (number, _) in PACKAGES.items()]
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--save-exact"]
        command = ["npm", "install", "--prefix", str(folder), *options, *wanted]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode and "ENOTFOUND" in done.stderr + done.stdout:
            pytest.skip("no npm registry is in reach")
        assert done.returncode == 0, done.stderr
    assert installed(folder) == PACKAGES
    return folder


def installed(folder: Path) -> dict[str, tuple[str, str]]:
    """Version and integrity of each package in a folder, as npm checked them."""
    lock = folder / "node_modules" / ".package-lock.json"
    if not lock.exists():
        return {}
    known = json.loads(lock.read_text())["packages"]
    return {
        path.removeprefix("node_modules/"): (each["version"], each["integrity"])
        for path, each in known.items()
    }


def test_the_npm_sdk_gets_from_an_empty_account_to_the_right_amounts(
    tallylog: Tallylog, packages: Path, tmp_path: Path
) -> None:
    (tmp_path / "node_modules").symlink_to(packages / "node_modules")
    story = tmp_path / STORY.name
    story.write_text(STORY.read_text())
    with tallylog.as_account("npm") as mine:
        places = {"TALLYLOG_URL": mine.base_url, "TALLYLOG_API_KEY": mine.api_key, "no_proxy": "*"}
        done = subprocess.run(
            ["node", str(story)],
            env=os.environ | places,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    totals = {name: Decimal(total) for name, total in told.pop("totals").items()}
    assert totals == {
        "flat": Decimal("6.25"),
        "package": 20,
        "volume": Decimal("64.5"),
        "slab": Decimal("114.5"),
        "free": Decimal("1.25"),
        "cumulative": Decimal("7.25"),
    }
    assert told == {
        "quantities": dict.fromkeys(("flat", "package", "volume", "slab"), "125")
        | {"free": "25", "cumulative": "145"},
        "charged": {
            "flat": ["$6.25"],
            "package": ["$20.00"],
            "volume": ["$64.50"],
            "slab": ["$114.50"],
            "free": ["$1.25"],
            "cumulative": ["$7.25"],
        },
        "usage": 125,
        "listed": [3, True],
        "event": "processed",
        "analytics": [[True, "125"]],
        "features": ["flat"],
        "cancelled": True,
        "status": "cancelled",
        "invoices": 0,
        "key": True,
        "keys": 0,
        "refused": 400,
    }
