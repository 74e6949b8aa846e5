"""The real helm, for tests of the chart.

Answers for running it on the chart. May touch processes of its own; no cluster.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.tools import PROJECT, found, run

CHART = PROJECT / "helm"
HELM = ("helm.sh/helm/v3/cmd/helm", "v3.19.0")

RELEASE = "crm"
NAMESPACE = "contact-centre"
KUBERNETES = "1.33.0"
"""A helm that Go built knows no version of Kubernetes, so that every run names one."""

RUN_WITHIN_S = 60.0


class Manifests:
    """What helm rendered, by kind; the chart has one object of each, but for a ConfigMap with files."""

    def __init__(self, documents: list[dict[str, Any]]) -> None:
        self.documents = documents

    def __getitem__(self, kind: str) -> dict[str, Any]:
        (found,) = [document for document in self.documents if document["kind"] == kind]
        return found

    @property
    def kinds(self) -> set[str]:
        return {document["kind"] for document in self.documents}

    @property
    def settings(self) -> dict[str, str]:
        """Those that the pods get from the ConfigMap."""
        (reference,) = [source["configMapRef"]["name"] for source in self.container["envFrom"]]
        return self.config_map(reference)

    def config_map(self, name: str) -> dict[str, str]:
        """What the ConfigMap of this name holds."""
        maps = [document for document in self.documents if document["kind"] == "ConfigMap"]
        (data,) = [each["data"] for each in maps if each["metadata"]["name"] == name]
        found: dict[str, str] = data
        return found

    @property
    def workload(self) -> dict[str, Any]:
        return self["StatefulSet" if "StatefulSet" in self.kinds else "Deployment"]

    @property
    def pod(self) -> dict[str, Any]:
        """The spec of the workload's pods."""
        spec: dict[str, Any] = self.workload["spec"]["template"]["spec"]
        return spec

    @property
    def container(self) -> dict[str, Any]:
        (only,) = self.pod["containers"]
        found: dict[str, Any] = only
        return found


class Helm:
    """Helm, run on a chart with values files; every method raises `ToolFailedError` when helm refuses."""

    def __init__(self, binary: Path) -> None:
        self._binary = binary

    def lint(self, *values: Path) -> str:
        return self._run("lint", "--strict", str(CHART), values)

    def render(self, *values: Path, chart: Path = CHART, upgrade: bool = False) -> Manifests:
        more = ["--is-upgrade"] if upgrade else []
        text = self._run("template", RELEASE, str(chart), values, "--namespace", NAMESPACE, *more)
        return Manifests([document for document in yaml.safe_load_all(text) if document])

    def job(self, *values: Path, sets: Sequence[str] = ()) -> dict[str, Any]:
        """The Job or CronJob of `job.args`, as the documents have it printed; `sets` are arguments of `--set`."""
        shown = [f"--set={each}" for each in sets]
        text = self._run(
            "template",
            RELEASE,
            str(CHART),
            values,
            "--namespace",
            NAMESPACE,
            "--show-only",
            "templates/job.yaml",
            *shown,
        )
        found: dict[str, Any] = yaml.safe_load(text)
        return found

    def _run(self, *parts: str | tuple[Path, ...]) -> str:
        command = [str(self._binary)]
        for part in parts:
            command += [part] if isinstance(part, str) else [f"--values={path}" for path in part]
        return run([*command, "--kube-version", KUBERNETES], RUN_WITHIN_S)


@pytest.fixture(scope="session")
def helm() -> Helm:
    """The real helm."""
    return Helm(found(*HELM))


def alert_rules(helm: Helm, *more: Path) -> list[dict[str, Any]]:
    """The chart's alerts, as Prometheus' operator gets them."""
    manifests = helm.render(CHART / "ci" / "monitoring-values.yaml", *more)
    assert manifests["PrometheusRule"]["metadata"]["labels"]["release"] == "prometheus"
    (group,) = manifests["PrometheusRule"]["spec"]["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules
