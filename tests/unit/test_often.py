"""Log lines of which there may be as many as contacts."""

from consumer.pipeline.often import AT_ONCE, EVERY_S, Often


def test_a_few_lines_are_told_each_and_of_a_crowd_how_many_were_left_out() -> None:
    """One contact is named; a hundred thousand do not push all other lines out of sight, and none is forgotten."""
    now = [0.0]
    often = Often(lambda: now[0])
    assert [often.left_out("not_shown") for _ in range(AT_ONCE + 7)] == [{}] * AT_ONCE + [None] * 7
    assert often.left_out("postponed") == {}
    now[0] = EVERY_S - 0.1
    assert often.left_out("not_shown") is None
    now[0] = EVERY_S
    assert [often.left_out("not_shown") for _ in range(AT_ONCE + 1)] == [{"left_out": 8}, *[{}] * (AT_ONCE - 1), None]
