"""Waiting for what isn't there yet."""

import pytest

from stream_workers import waiting


def test_it_asks_until_there_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "AGAIN_S", 0.0)
    left = [OSError("away"), OSError("away")]

    def ask() -> str:
        if left:
            raise left.pop()
        return "there"

    assert waiting.wait_for("it", ask, OSError) == "there"


def test_another_fault_is_no_absence() -> None:
    def ask() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        waiting.wait_for("it", ask, OSError)
