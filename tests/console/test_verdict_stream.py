"""The id of a streamed event: where a client goes on."""

import pytest

from schemas.verdict_stream import Cursor, Point


def test_a_cursor_is_the_same_after_its_text() -> None:
    cursor = Cursor(1_763_700_000_000, {3: Point(7, 2), 0: Point(9, 4_294_967_295)})
    assert cursor.text() == "1763700000000/0:9:4294967295/3:7:2"
    assert Cursor.of(cursor.text()) == cursor
    assert Cursor.of("0") == Cursor(0, {})


@pytest.mark.parametrize(
    "text", ["", "x", "1/", "1/2", "1/2:3", "1/2:3:4:5", "1/-1:2:3", "1//2:3:4"]
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no id of this stream"):
        Cursor.of(text)
