"""What the command `load` shows: progress off a terminal, and the summary."""

import orjson
import pytest

from consumer.adapters.progress_bar import LINE_EVERY_S, ProgressBar
from consumer.first_fill.run import Summary
from consumer.operate.load import print_summary

SUMMARY = Summary(
    "load-0123456789ab",
    1_200,
    200,
    {"delivered": 990, "rejected": 10},
    {"phone_not_e164": 10},
    900,
    90,
)


def test_the_summary_for_people_has_every_number_that_is_not_zero(capsys: pytest.CaptureFixture[str]) -> None:
    """And the name under which the audit has the rows."""
    print_summary(SUMMARY, "text")
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["load-0123456789ab"],
        ["rows", "1,200"],
        ["settled", "by", "a", "run", "before", "200"],
        ["delivered", "990"],
        ["rejected", "10"],
        ["phone_not_e164", "10"],
        ["contacts", "by", "file", "900"],
        ["contacts", "by", "request", "90"],
    ]


def test_a_file_without_rows_has_0(capsys: pytest.CaptureFixture[str]) -> None:
    """Rather than no line at all."""
    print_summary(Summary("load-0123456789ab", 0, 0, {}, {}, 0, 0), "text")
    assert capsys.readouterr().out.split() == ["load-0123456789ab", "rows", "0"]


def test_the_summary_as_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """With the names of its attributes."""
    print_summary(SUMMARY, "json")
    assert orjson.loads(capsys.readouterr().out) == {
        "source": "load-0123456789ab",
        "rows": 1_200,
        "settled_before": 200,
        "outcomes": {"delivered": 990, "rejected": 10},
        "reasons": {"phone_not_e164": 10},
        "uploaded": 900,
        "requested": 90,
    }


def test_off_a_terminal_there_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    """The first and the last of a phase, and one every few seconds between; none that says the same again."""
    now = 0.0
    with ProgressBar(lambda: now) as bar:
        for done in range(101):
            bar.tell("uploading", done * 10, 1_000)
            now += LINE_EVERY_S / 64
        bar.tell("reading", 5, None)
        for _ in range(3):
            now += LINE_EVERY_S
            bar.tell("reading", 5, None)
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "uploading: 0 of 1,000",
        "uploading: 640 of 1,000",
        "uploading: 1,000 of 1,000",
        "reading: 5",
    ]
    assert captured.out == ""
