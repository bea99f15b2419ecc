"""The broker's jars: whatever happened to them, the next start has them whole."""

import shutil
from pathlib import Path

import pytest
from jgo.maven import MavenContext

from local_stack.errors import DownloadFailed
from local_stack.jars import broker_jars, ensure_jars, is_whole
from local_stack.settings import StackSettings

pytestmark = pytest.mark.kafka


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache of the test's own with all jars in it."""
    shared = StackSettings().cache
    ensure_jars(shared)
    for jar in broker_jars():
        copy = jar.path(tmp_path / "maven")
        copy.parent.mkdir(parents=True)
        shutil.copy(jar.path(shared / "maven"), copy)
    return tmp_path


def test_jars_that_are_missing_cut_short_or_changed_are_fetched_again(cache: Path) -> None:
    repository = cache / "maven"
    small = sorted(broker_jars(), key=lambda jar: jar.path(repository).stat().st_size)[:3]
    missing, short, changed = (jar.path(repository) for jar in small)
    content = short.read_bytes()
    missing.unlink()
    short.write_bytes(content[: len(content) // 2])
    changed.write_bytes(b"not a jar")
    paths = ensure_jars(cache)
    assert [path.name for path in paths] == [jar.file_name for jar in broker_jars()]
    assert all(is_whole(jar, repository) for jar in broker_jars())


def test_a_jar_that_never_comes_whole_is_named(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jar = broker_jars()[0]
    jar.path(cache / "maven").unlink()

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(MavenContext, "project", refuse)
    with pytest.raises(DownloadFailed, match=f"{jar.name}:{jar.version}.*no route"):
        ensure_jars(cache)
