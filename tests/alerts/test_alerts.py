"""The chart's alerts as Prometheus evaluates them: stories of processes, played through the real promtool.

`make alerts` runs them: Go may have to build promtool, which takes minutes.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.helm import NAMESPACE, RELEASE, Helm, alert_rules
from tests.integration.tools import found, run

# The first run may have to build promtool.
pytestmark = pytest.mark.timeout(600)

PROMTOOL = ("github.com/prometheus/prometheus/cmd/promtool", "v0.53.3")
PROMTOOL_WITHIN_S = 60.0
OF_POD = f'namespace="{NAMESPACE}",pod="{RELEASE}-genesys-consumer-0",instance="10.0.0.1:8080"'


@pytest.fixture(scope="module")
def promtool() -> Path:
    """The real promtool."""
    return found(*PROMTOOL)


COUNTERS = {
    "GenesysConsumerRecordsLost": ("source_overtaken_total", 'topic="changes",'),
    "GenesysConsumerWithdrawalRefused": ("withdrawals_refused_total", 'what="contact",'),
    "GenesysConsumerSourceEpochBegan": ("source_epochs_total", 'topic="changes",'),
    "GenesysConsumerUndeliverable": ("records_total", 'outcome="undeliverable",'),
    "GenesysConsumerUndecodableSuppressed": ("undecodable_suppressions_total", ""),
}

COUNTER_STORIES = {
    "before Prometheus asks first": ("_x2 1x60", "_x2 100x60", "2m 10m", "12m 20m"),
    "later": ("0x40 1x60", "100x100", "21m 29m", "19m 31m"),
    "long before Prometheus was away": ("1x120 _x40 1x120", "100x120 _x40 100x120", "", "50m 70m 80m30s 85m 100m"),
    "long before a night without Prometheus": ("1x120 _x1440 1x120", "100x120 _x1440 100x120", "", "50m 781m 800m"),
    "while Prometheus was away": ("1x120 _x40 2x120", "100x120 _x40 100x120", "81m 90m", "50m 70m 92m"),
    "after a long restart, as often as before": (
        "1x120 stale _x40 1x120",
        "100x120 stale _x40 4800x120",
        "82m 90m",
        "50m 92m",
    ),
    "after a quick restart, as often as before": ("1x40 1x40", "100x40 1300x40", "21m 25m 29m", "12m 20m 33m"),
    "after a quick restart, as often as before, between two answers": (
        "1x40 stale 1x40",
        "100x40 stale 1300x40",
        "22m 25m 29m",
        "12m 20m 33m",
    ),
    "after a quick restart, less often than before": ("9x40 4x40", "100x40 1300x40", "21m 25m 29m", "12m 20m 33m"),
    "nothing since a quick restart": ("1x40 0x40", "100x40 1300x40", "", "12m 20m 21m 25m 33m"),
    "shortly before a restart": ("0x40 1x4 stale 0x40", "100x45 stale 1400x40", "21m 24m 29m", "19m 33m"),
    "shortly before the pod went": ("0x40 1x4 stale", "100x45 stale", "21m 24m 29m", "19m 33m"),
}
"""When something was counted: the counter and the start of the process as Prometheus sees them every 30 s; when the
alerts fire, and when not."""


@pytest.mark.parametrize("story", COUNTER_STORIES.values(), ids=COUNTER_STORIES.keys())
def test_alerts_fire_once_something_was_counted(
    helm: Helm, promtool: Path, tmp_path: Path, story: tuple[str, str, str, str]
) -> None:
    """For ten minutes: not later, and not again since Prometheus was away."""
    counted, start, fire, do_not = story
    series = {f"genesys_consumer_{name}{{{label}": counted for name, label in COUNTERS.values()}
    _told(promtool, tmp_path, alert_rules(helm), _story(series, start, COUNTERS, fire, do_not))


WITHDRAWAL_STORIES = {
    "slow before Prometheus asks first": ("_x2 0x60", "_x2 50x60", "_x2 100x60", "2m 10m", "12m 20m"),
    "fast before Prometheus asks first": ("_x2 50x60", "_x2 50x60", "_x2 100x60", "", "2m 10m 12m"),
    "slow later": ("0+10x99", "0+11x99", "100x99", "15m 40m", ""),
    "slow long before many fast ones": ("0+10x99", "50+10x99", "100x99", "2m 8m", "12m 40m"),
    "slow long before Prometheus was away": (
        "9x120 _x40 9x120",
        "59x120 _x40 59x120",
        "100x120 _x40 100x120",
        "",
        "50m 70m 80m30s 85m 100m",
    ),
    "slow while Prometheus was away": (
        "9x120 _x40 9x120",
        "9x120 _x40 59x120",
        "100x120 _x40 100x120",
        "81m 90m",
        "50m 92m",
    ),
    "slow after a long restart": (
        "9x120 stale _x40 0x120",
        "9x120 stale _x40 9x120",
        "100x120 stale _x40 4800x120",
        "82m 90m",
        "50m 92m",
    ),
    "slow shortly before the pod went": ("0x40 0x4 stale", "0x40 50x4 stale", "100x45 stale", "21m 24m 29m", "19m 33m"),
}
"""When withdrawals were slow: those within 30 s, all, and the start of the process as Prometheus sees them every 30 s;
when the alert fires, and when not."""


@pytest.mark.parametrize("story", WITHDRAWAL_STORIES.values(), ids=WITHDRAWAL_STORIES.keys())
def test_slow_withdrawals_are_an_alert(
    helm: Helm, promtool: Path, tmp_path: Path, story: tuple[str, str, str, str, str]
) -> None:
    """Those of the last ten minutes: also what a new process worked off before Prometheus asked it first."""
    fast, every, start, fire, do_not = story
    buckets = {"30": fast, "21600": every, "+Inf": every}
    series = {f'genesys_consumer_withdrawal_seconds_bucket{{le="{le}",': count for le, count in buckets.items()}
    alerts = ["GenesysConsumerWithdrawalsSlow"]
    _told(promtool, tmp_path, alert_rules(helm), _story(series, start, alerts, fire, do_not))


LAG_STORIES = {
    "a few more each minute, in the morning": ("0x20 0+2x99", "", "30m 45m 59m"),
    "many, and ever more": ("0x20 0+50x99", "36m 45m 59m", "12m 20m 34m"),
    "many, and ever fewer": ("9000-50x119", "", "30m 45m 59m"),
    "many, and as many": ("9000x119", "", "30m 45m 59m"),
}
"""How many records wait in a partition as Prometheus sees them every 30 s; when the alert fires, and when not."""


@pytest.mark.parametrize("story", LAG_STORIES.values(), ids=LAG_STORIES.keys())
def test_a_lag_that_grows_is_an_alert_once_it_is_one(
    helm: Helm, promtool: Path, tmp_path: Path, story: tuple[str, str, str]
) -> None:
    """What comes in faster than it goes out, and not only for as long as nobody notices."""
    waiting, fire, do_not = story
    series = {'genesys_consumer_lag{topic="changes",partition="0",': waiting}
    alerts = ["GenesysConsumerLagGrows"]
    _told(promtool, tmp_path, alert_rules(helm), _story(series, "100x120", alerts, fire, do_not))


REJECTED_STORIES = {
    "one every three minutes, each": (
        " ".join(f"{n}x5" for n in range(40)),
        "0x240",
        "100x240",
        "4m 11m 20m 119m",
        "2m",
    ),
    "a backlog within eight minutes of a start": (
        "_x2 90000+10000x16 250000x200",
        "_x2 0x217",
        "_x2 100x217",
        "2m 9m 12m 30m 60m",
        "75m 100m",
    ),
    "a backlog while others go on": ("0x40 0+10000x16 160000x200", "0+500x256", "100x256", "22m 30m 80m", "19m 95m"),
    "a twentieth": ("0+5x240", "0+95x240", "100x240", "", "2m 11m 60m 110m"),
    "a few more": ("0+6x240", "0+94x240", "100x240", "2m 11m 60m 110m", ""),
    "nothing comes": ("7x240", "7x240", "100x240", "", "70m 110m"),
}
"""How many records were rejected and how many delivered, and the start of the process, as Prometheus sees them every
30 s; when the alert fires, and when not."""


@pytest.mark.parametrize("story", REJECTED_STORIES.values(), ids=REJECTED_STORIES.keys())
def test_many_rejected_records_are_an_alert(
    helm: Helm, promtool: Path, tmp_path: Path, story: tuple[str, str, str, str, str]
) -> None:
    """More than a twentieth of an hour's records, however few they are, or however fast they went."""
    rejected, delivered, start, fire, do_not = story
    outcomes = {"rejected": rejected, "delivered": delivered}
    series = {f'genesys_consumer_records_total{{outcome="{outcome}",': count for outcome, count in outcomes.items()}
    alerts = ["GenesysConsumerRecordsRejected"]
    _told(promtool, tmp_path, alert_rules(helm), _story(series, start, alerts, fire, do_not))


def _told(promtool: Path, folder: Path, rules: list[dict[str, Any]], story: dict[str, Any]) -> None:
    """Promtool evaluates the rules every 30 s, and fails unless the story goes as it says."""
    (folder / "rules.json").write_text(json.dumps({"groups": [{"name": "chart", "rules": rules}]}))
    test = {"rule_files": ["rules.json"], "evaluation_interval": "30s", "tests": [{"interval": "30s", **story}]}
    (folder / "test.json").write_text(json.dumps(test))
    run([str(promtool), "test", "rules", str(folder / "test.json")], PROMTOOL_WITHIN_S)


def _story(series: dict[str, str], start: str, alerts: Iterable[str], fire: str, do_not: str) -> dict[str, Any]:
    """What Prometheus sees of a process that started then, when the alerts fire, and when they do not."""
    seen = {**series, "process_start_time_seconds{": start}
    return {
        "input_series": [{"series": f"{name}{OF_POD}}}", "values": values} for name, values in seen.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                "eval_time": time,
                "exp_samples": expected,
            }
            for alert in alerts
            for times, expected in ((fire, [{"labels": "{}", "value": 1}]), (do_not, []))
            for time in times.split()
        ],
    }
