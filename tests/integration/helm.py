"""The real helm, for tests of the chart.

Answers for: finding helm, or building it once with Go, and running it on the chart. May touch: `.cache/bin` and
processes of its own; no cluster.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[2]
CHART = PROJECT / "helm"
HELM = "helm.sh/helm/v3/cmd/helm@v3.19.0"
BIN = PROJECT / ".cache" / "bin"

RELEASE = "crm"
NAMESPACE = "contact-centre"
KUBERNETES = "1.33.0"
"""A helm that Go built knows no version of Kubernetes, so that every run names one."""

BUILD_WITHIN_S = 540.0
RUN_WITHIN_S = 60.0


class HelmMissingError(Exception):
    """There is no helm, and this machine cannot build one; the text names what it lacks."""


class HelmFailedError(Exception):
    """Helm refused; the text is what it wrote."""


def helm_binary() -> Path:
    """Returns helm: the one on the path, else the one in `.cache/bin`, which Go builds the first time.

    Raises:
        HelmMissingError: Neither helm nor Go is installed, or the build failed.
    """
    if installed := shutil.which("helm"):
        return Path(installed)
    if not (BIN / "helm").exists():
        _build(BIN)
    return BIN / "helm"


def _build(folder: Path) -> None:
    go = shutil.which("go")
    if not go:
        raise HelmMissingError("the chart's tests need helm, or Go to build it: neither was found on this machine")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="helm-", dir=folder) as fresh:
        try:
            _run([go, "install", HELM], BUILD_WITHIN_S, environ=os.environ | {"GOBIN": fresh})
        except HelmFailedError as failed:
            raise HelmMissingError(f"Go could not build {HELM}:\n{failed}") from None
        Path(fresh, "helm").replace(folder / "helm")


def _run(command: list[str], within_s: float, environ: Mapping[str, str] | None = None) -> str:
    try:
        done = subprocess.run(  # noqa: S603  our own command
            command, capture_output=True, text=True, check=False, timeout=within_s, env=environ
        )
    except subprocess.TimeoutExpired:
        raise HelmFailedError(f"{command[0]} did not end within {within_s:.0f} s") from None
    if done.returncode:
        raise HelmFailedError(done.stdout + done.stderr)
    return done.stdout + done.stderr


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
    """Helm, run on a chart with values files; every method raises `HelmFailedError` when helm refuses."""

    def __init__(self, binary: Path) -> None:
        self._binary = binary

    def lint(self, *values: Path) -> str:
        return self._run("lint", "--strict", str(CHART), values)

    def render(self, *values: Path, chart: Path = CHART) -> Manifests:
        text = self._run("template", RELEASE, str(chart), values, "--namespace", NAMESPACE)
        return Manifests([document for document in yaml.safe_load_all(text) if document])

    def _run(self, *parts: str | tuple[Path, ...]) -> str:
        command = [str(self._binary)]
        for part in parts:
            command += [part] if isinstance(part, str) else [f"--values={path}" for path in part]
        return _run([*command, "--kube-version", KUBERNETES], RUN_WITHIN_S)
