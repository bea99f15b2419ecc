"""The console that runs alone shows what it counts; behind one port with the gateway, that does."""

from tests.console.conftest import Connect


async def test_metrics_need_no_key_and_tell_how_far_the_sweep_is(connect: Connect) -> None:
    answer = await connect(None).get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    for name in ("sweep_pending", "sweep_resent_total"):
        assert f"\n{name} " in answer.text
