"""The chart, rendered by the real helm: Kubernetes' own schemas, security, and the program that reads the result."""

import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from consumer import cli, outside, setting_values, settings
from consumer.adapters import health
from consumer.adapters.dedupe_store import store
from consumer.adapters.kafka import event_topics, source
from consumer.adapters.telemetry.adapter import Telemetry
from consumer.adapters.telemetry.metrics import Levels
from consumer.cli import output
from consumer.model import TopicPartition
from consumer.pipeline import run
from tests.integration.helm import CHART, NAMESPACE, RELEASE, Helm, alert_rules
from tests.integration.tools import PROJECT, ToolFailedError

# The first run may have to build helm.
pytestmark = [pytest.mark.helm, pytest.mark.timeout(600)]

CI_VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
DEFAULT = CHART / "ci" / "default-values.yaml"
KUBERNETES_VERSIONS = ("1.29.0", "1.33.0", "1.37.0")
SECRETS = "/etc/genesys-consumer/secrets"
FILES = "/etc/genesys-consumer/files"
STATE = "/var/lib/genesys-consumer"
NAME = f"{RELEASE}-genesys-consumer"

SECRET = "any.property=a secret of some length"  # noqa: S105 -- a stand-in
"""What secret files hold: good as a key, a password, and as a line of properties of Kafka's clients."""

DECIDED = {"KAFKA_PROPERTIES_FILE", "KAFKA_GROUP_INSTANCE_ID", "STATE_DIR", "HTTP_ADDRESS", "DRAIN_TIMEOUT_S"}
DECIDED |= {"SCHEMA_REGISTRY_PROPERTIES_FILE"}
"""Settings that other values decide."""

each_values_file = pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)


@pytest.fixture
def override(tmp_path: Path) -> Path:
    """Path of a values file that a test may write."""
    return tmp_path / "override.yaml"


def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return schema


def _variables(container: dict[str, Any]) -> dict[str, str | None]:
    return {variable["name"]: variable.get("value") for variable in container["env"]}


@each_values_file
def test_lint_is_clean(helm: Helm, values: Path) -> None:
    """`helm lint --strict` has neither a warning nor an error for any of the example values."""
    report = helm.lint(values)
    assert "0 chart(s) failed" in report
    assert "WARNING" not in report


@each_values_file
def test_kubernetes_knows_every_field(helm: Helm, values: Path) -> None:
    """Every rendered object passes the strict schema of the oldest, a middle and the newest Kubernetes."""
    manifests = helm.render(values)
    core = [document for document in manifests.documents if document["kind"] not in {"PodMonitor", "PrometheusRule"}]
    assert {"ConfigMap", "Service", manifests.workload["kind"]} <= {document["kind"] for document in core}
    for version in KUBERNETES_VERSIONS:
        for document in core:
            kubernetes_validate.validate(document, version, strict=True)


@each_values_file
def test_pods_are_restricted(helm: Helm, values: Path) -> None:
    """Pods meet the `restricted` Pod Security Standard, with a read-only root and without an API token."""
    manifests = helm.render(values)
    pod, container = manifests.pod, manifests.container
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert all(volume.keys() & {"secret", "configMap", "emptyDir"} for volume in pod["volumes"])


def test_the_platform_may_choose_the_user(helm: Helm, override: Path) -> None:
    """OpenShift admits no other user than one of the namespace's range; what else restricts the pod stays."""
    override.write_text("user: null")
    chosen = helm.render(DEFAULT, override).pod["securityContext"]
    assert chosen == {
        "runAsNonRoot": True,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    override.write_text("user: 1234")
    fixed = helm.render(DEFAULT, override).pod["securityContext"]
    assert fixed == chosen | {"runAsUser": 1234, "runAsGroup": 1234, "fsGroup": 1234}


@each_values_file
def test_only_state_and_tmp_can_be_written(helm: Helm, values: Path) -> None:
    """The program writes into its state directory and /tmp; Secrets are mounted for reading, mode 0440."""
    manifests = helm.render(values)
    mounts = {mount["mountPath"]: mount for mount in manifests.container["volumeMounts"]}
    assert {path for path, mount in mounts.items() if not mount.get("readOnly")} == {STATE, "/tmp"}  # noqa: S108
    given = yaml.safe_load(values.read_text())
    secrets = [volume["secret"] for volume in manifests.pod["volumes"] if "secret" in volume]
    assert [each["secretName"] for each in secrets] == [given["existingSecret"], *given.get("extraSecrets", [])]
    assert {each["defaultMode"] for each in secrets} == {0o440}


@each_values_file
def test_no_secret_is_in_a_manifest(helm: Helm, values: Path) -> None:
    """A secret comes as the name of a file, or by reference, and the chart makes no Secret."""
    manifests = helm.render(values)
    secret = {name for name, rule in settings.rules().items() if rule.secret} | {"OTEL_EXPORTER_OTLP_HEADERS"}
    assert "Secret" not in manifests.kinds
    assert not secret & manifests.settings.keys()
    assert not [name for name, value in _variables(manifests.container).items() if name in secret and value]


@each_values_file
def test_memory_is_guaranteed(helm: Helm, values: Path) -> None:
    """Memory asked for is memory granted, and CPU has a request."""
    resources = helm.render(values).container["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert resources["requests"]["cpu"]


@each_values_file
def test_selectors_select_the_pods(helm: Helm, values: Path) -> None:
    """The workload, Service, budget, PodMonitor and topology spread select by labels that the pods carry."""
    manifests = helm.render(values)
    labels = manifests.workload["spec"]["template"]["metadata"]["labels"]
    specs = [document["spec"] for document in manifests.documents if "selector" in document.get("spec", {})]
    selectors = [spec["selector"].get("matchLabels", spec["selector"]) for spec in specs]
    selectors += [spread["labelSelector"]["matchLabels"] for spread in manifests.pod["topologySpreadConstraints"]]
    assert len(selectors) >= 4
    assert all(selector and selector.items() <= labels.items() for selector in selectors)


@each_values_file
def test_the_program_accepts_what_the_pod_gets(helm: Helm, values: Path, tmp_path: Path) -> None:
    """The settings of the program load from the rendered environment, and none has another name."""
    manifests = helm.render(values)
    environ = {name: value.replace(FILES, str(tmp_path)) for name, value in manifests.settings.items()}
    for name, text in yaml.safe_load(values.read_text()).get("files", {}).items():
        (tmp_path / name).write_text(text)
    for name, value in _variables(manifests.container).items():
        if value is None:
            environ[name] = "from-a-reference"
        else:
            mounted = tmp_path / Path(value).relative_to(SECRETS)
            mounted.write_text("# TLS" if name == "SCHEMA_REGISTRY_PROPERTIES_FILE" else SECRET)
            environ[name] = str(mounted)
    loaded = settings.load(environ)
    assert loaded.genesys_oauth_client_secret == SECRET
    assert str(loaded.state_dir) == STATE
    assert loaded.http_address == (None, manifests.container["ports"][0]["containerPort"])
    files = {f"{name}_FILE" for name, rule in settings.rules().items() if rule.secret}
    assert not {name for name in environ if not name.startswith("OTEL_")} - settings.rules().keys() - files


def test_the_schema_knows_every_setting() -> None:
    """`settings` takes each setting of the program that is no secret and not decided by another value, and no other."""
    known = {name for name in _schema()["properties"]["settings"]["properties"] if not name.startswith("OTEL_")}
    assert known == {name for name, rule in settings.rules().items() if not rule.secret} - DECIDED


def test_the_schema_bounds_settings_as_the_program_does() -> None:
    """The schema's smallest and largest number of each setting are the program's own."""
    for name, rule in _schema()["properties"]["settings"]["properties"].items():
        if rule.get("type") == "integer":
            parse = settings.rules()[name].parse
            parse(str(rule["minimum"]))
            parse(str(rule["maximum"]))
            for outside in (rule["minimum"] - 1, rule["maximum"] + 1):
                with pytest.raises(ValueError, match="must be a whole number"):
                    parse(str(outside))


def test_the_schema_offers_the_choices_of_the_program() -> None:
    """Every choice in the schema is one that the program takes, and every region is among them."""
    choices = {
        name: rule["enum"] for name, rule in _schema()["properties"]["settings"]["properties"].items() if "enum" in rule
    }
    assert set(choices["GENESYS_REGION"]) == setting_values.REGIONS.keys() | set(setting_values.REGIONS.values())
    for name, values in choices.items():
        for value in values:
            settings.rules()[name].parse(value)


def _objects(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield path, node
        for key, value in node.items():
            yield from _objects(value, f"{path}/{key}")


def test_the_schema_is_closed() -> None:
    """No object of the values takes a key that the schema does not name, but for Kubernetes' own and Helm's global."""
    free = {"/properties/global"} | {
        f"/properties/affinity/properties/{kind}" for kind in ("nodeAffinity", "podAffinity", "podAntiAffinity")
    }
    objects = dict(_objects(_schema()))
    assert len(objects) > 20
    open_ones = {path for path, node in objects.items() if "additionalProperties" not in node}
    assert open_ones == free
    assert all(
        node["additionalProperties"] in (False, {"type": "string"})
        for path, node in objects.items()
        if path not in free
    )


BAD_VALUES = {
    "key that does not exist": ("replicaCount: 2", "replicaCount"),
    "key inside a block that does not exist": ("state: {sice: 5Gi}", "sice"),
    "no secret named": ("existingSecret: ''", "existingSecret"),
    "no brokers": ("settings: {KAFKA_BOOTSTRAP_SERVERS: null}", "KAFKA_BOOTSTRAP_SERVERS"),
    "misspelt setting": ("settings: {KAFKA_SOURCE_TOPIC: crm}", "KAFKA_SOURCE_TOPIC"),
    "secret among the settings": ("settings: {GENESYS_OAUTH_CLIENT_SECRET: x}", "GENESYS_OAUTH_CLIENT_SECRET"),
    "token among the settings": ("settings: {OTEL_EXPORTER_OTLP_HEADERS: x}", "OTEL_EXPORTER_OTLP_HEADERS"),
    "token of traces among the settings": (
        "settings: {OTEL_EXPORTER_OTLP_TRACES_HEADERS: x}",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    ),
    "token as an extra variable": ("extraEnv: [{name: OTEL_EXPORTER_OTLP_HEADERS, value: x}]", "/extraEnv/0/name"),
    "token of traces as an extra variable": (
        "extraEnv: [{name: OTEL_EXPORTER_OTLP_TRACES_HEADERS, value: x}]",
        "/extraEnv/0/name",
    ),
    "password in the registry's URL": ("settings: {SCHEMA_REGISTRY_URL: 'https://a:b@r'}", "SCHEMA_REGISTRY_URL"),
    "secret as an extra variable": ("extraEnv: [{name: PSEUDONYM_KEY, value: x}]", "/extraEnv/0/name"),
    "extra variable without a value": ("extraEnv: [{name: TZ}]", "/extraEnv/0"),
    "drain time among the settings": ("settings: {DRAIN_TIMEOUT_S: 60}", "DRAIN_TIMEOUT_S"),
    "margin too small for the end": ("drain: {marginSeconds: 49}", "marginSeconds"),
    "grace period shorter than the drain": ("terminationGracePeriodSeconds: 10", "terminationGracePeriodSeconds"),
    "unknown region": ("settings: {GENESYS_REGION: mars-1}", "GENESYS_REGION"),
    "plain http to Genesys": ("settings: {GENESYS_API_URL: 'http://api.example.com'}", "GENESYS_API_URL"),
    "address of Genesys with a query": ("settings: {GENESYS_API_URL: 'https://h?a=b'}", "GENESYS_API_URL"),
    "registry with a query": ("settings: {SCHEMA_REGISTRY_URL: 'https://h/?a=b'}", "SCHEMA_REGISTRY_URL"),
    "group that nothing is settled for": ('settings: {KAFKA_GROUP_ID: "m\u00fcnchen"}', "KAFKA_GROUP_ID"),
    "group with the end of a line": ('settings: {KAFKA_GROUP_ID: "g\\n"}', "KAFKA_GROUP_ID"),
    "list with a blank behind it": ("settings: {GENESYS_CONTACT_LIST: 'L '}", "GENESYS_CONTACT_LIST"),
    "do-not-call list with a blank behind it": ("settings: {GENESYS_DNC_LIST: 'L '}", "GENESYS_DNC_LIST"),
    "name that is too long for a list": (f"settings: {{GENESYS_DNC_LIST: {'x' * 65}}}", "GENESYS_DNC_LIST"),
    "number out of range": ("settings: {GENESYS_MAX_IN_FLIGHT: 65}", "GENESYS_MAX_IN_FLIGHT"),
    "float where OTEL wants text": ("settings: {OTEL_TRACES_SAMPLER_ARG: 0.1}", "OTEL_TRACES_SAMPLER_ARG"),
    "workload without a kind of its own": ("kind: DaemonSet", "/kind"),
    "volume that several nodes write": ("state: {accessMode: ReadWriteMany}", "accessMode"),
    "digest that is none": ("image: {digest: latest}", "digest"),
    "root": ("user: 0", "/user"),
    "weaker security": ("securityContext: {readOnlyRootFilesystem: false}", "securityContext"),
    "no memory limit": ("resources: {limits: {memory: null}}", "/resources/limits"),
    "rule of the network without a peer": ("networkPolicy: {egress: [{port: 443}]}", "egress"),
    "file that is none": ("files: {mapping: {topic: x}}", "/files/mapping"),
    "secret without a name": ("extraSecrets: ['']", "/extraSecrets/0"),
    "probe field that does not exist": ("probes: {liveness: {timeout: 1}}", "timeout"),
}


@pytest.mark.parametrize(("values", "key"), BAD_VALUES.values(), ids=BAD_VALUES.keys())
def test_bad_values_are_refused(helm: Helm, override: Path, values: str, key: str) -> None:
    """The schema refuses the values, and the message names the key to mend."""
    override.write_text(values)
    with pytest.raises(ToolFailedError) as refused:
        helm.render(DEFAULT, override)
    assert "don't meet the specifications of the schema" in str(refused.value)
    assert key in str(refused.value)


def test_memory_limit_above_the_request_is_refused(helm: Helm, override: Path) -> None:
    """A memory limit other than the request is refused, naming both."""
    override.write_text("resources: {limits: {memory: 8Gi}}")
    with pytest.raises(ToolFailedError, match=r"resources\.limits\.memory must equal resources\.requests\.memory"):
        helm.render(DEFAULT, override)


def test_nothing_but_the_required_values_is_needed(helm: Helm) -> None:
    """With three values given, a StatefulSet with its own volume per pod comes out, and nothing optional."""
    manifests = helm.render(DEFAULT)
    assert manifests.kinds == {"ConfigMap", "PodDisruptionBudget", "Service", "ServiceAccount", "StatefulSet"}
    spec = manifests["StatefulSet"]["spec"]
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["serviceName"] == manifests["Service"]["metadata"]["name"]
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "state"
    assert claim["spec"] == {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "5Gi"}}}


def test_claim_templates_survive_an_upgrade(helm: Helm) -> None:
    """No label of the claim template changes with a version: Kubernetes would refuse the upgrade."""
    (claim,) = helm.render(DEFAULT)["StatefulSet"]["spec"]["volumeClaimTemplates"]
    assert claim["metadata"]["labels"].keys() == {"app.kubernetes.io/name", "app.kubernetes.io/instance"}


def test_deployment_keeps_its_state_in_an_empty_dir(helm: Helm) -> None:
    """A Deployment has an emptyDir for the stores, no volume claim, and no static membership: its pods change names."""
    manifests = helm.render(CHART / "ci" / "deployment-values.yaml")
    volumes = {volume["name"]: volume for volume in manifests.pod["volumes"]}
    assert volumes["state"]["emptyDir"] == {"sizeLimit": "5Gi"}
    assert not {"volumeClaimTemplates", "serviceName"} & manifests["Deployment"]["spec"].keys()
    assert "KAFKA_GROUP_INSTANCE_ID" not in _variables(manifests.container)


def test_static_membership_is_the_pod_name_and_can_be_switched_off(helm: Helm, override: Path) -> None:
    """The group instance id is the pod's name, unless static membership is off."""
    by_name = {variable["name"]: variable for variable in helm.render(DEFAULT).container["env"]}
    assert by_name["KAFKA_GROUP_INSTANCE_ID"]["valueFrom"]["fieldRef"] == {"fieldPath": "metadata.name"}
    override.write_text("staticMembership: false")
    assert "KAFKA_GROUP_INSTANCE_ID" not in _variables(helm.render(DEFAULT, override).container)


def test_optional_secret_keys_become_files(helm: Helm) -> None:
    """Each key of the Secret that is named reaches the program as a file, and one that is not named does not."""
    oauth = {"GENESYS_OAUTH_CLIENT_ID_FILE", "GENESYS_OAUTH_CLIENT_SECRET_FILE", "KAFKA_GROUP_INSTANCE_ID"}
    assert _variables(helm.render(DEFAULT).container).keys() == oauth
    variables = _variables(helm.render(CHART / "ci" / "secrets-values.yaml").container)
    assert variables["GENESYS_OAUTH_CLIENT_ID_FILE"] == f"{SECRETS}/id"
    assert variables["PSEUDONYM_KEY_FILE"] == f"{SECRETS}/pseudonym-key"
    assert variables["KAFKA_PROPERTIES_FILE"] == f"{SECRETS}/kafka.properties"
    assert variables["SCHEMA_REGISTRY_PASSWORD_FILE"] == f"{SECRETS}/registry-password"
    assert variables["SCHEMA_REGISTRY_PROPERTIES_FILE"] == f"{SECRETS}/registry.properties"


def test_files_and_further_secrets_are_where_settings_look_for_them(helm: Helm) -> None:
    """A mapping is no secret, and operators write certificates into Secrets of their own."""
    values = CHART / "ci" / "files-values.yaml"
    given, manifests = yaml.safe_load(values.read_text()), helm.render(values)
    volumes = {volume["name"]: volume for volume in manifests.pod["volumes"]}
    mounted = {mount["mountPath"]: volumes.get(mount["name"], {}) for mount in manifests.container["volumeMounts"]}
    files = mounted[str(Path(manifests.settings["SOURCE_MAPPING"]).parent)]["configMap"]["name"]
    assert manifests.config_map(files) == given["files"]
    for name in given["extraSecrets"]:
        assert mounted[f"/etc/genesys-consumer/extra/{name}"]["secret"]["secretName"] == name


@pytest.mark.parametrize(("drain", "grace"), [("{}", 75), ("{timeoutSeconds: 60, marginSeconds: 60}", 120)])
def test_grace_period_covers_the_drain(helm: Helm, override: Path, drain: str, grace: int) -> None:
    """The pod's grace period is the drain time that the program gets, and the margin for what follows."""
    override.write_text(f"drain: {drain}")
    manifests = helm.render(DEFAULT, override)
    assert manifests.pod["terminationGracePeriodSeconds"] == grace
    assert int(manifests.settings["DRAIN_TIMEOUT_S"]) < grace


def test_the_margin_covers_every_close() -> None:
    """The smallest margin is no less than all deadlines of the program's end together, so that no close is killed."""
    closes = [
        run.DRAIN_MARGIN_S,  # for the last settlement
        source.CLOSE_WITHIN_S,  # as the pipeline ends
        source.CLOSE_WITHIN_S,  # again with everything else: it waits once more if the first did not succeed
        event_topics.CLOSE_WITHIN_S,
        store.CLOSE_WITHIN_S,
        health._LAST_ANSWERS_S,
        outside.EXPORT_S,
        output.LAST_LINES_S,
    ]
    assert _schema()["properties"]["drain"]["properties"]["marginSeconds"]["minimum"] >= sum(closes)


def test_default_drain_time_is_the_program_s_own(helm: Helm) -> None:
    """Without a value the pod drains as long as the program does by itself."""
    assert helm.render(DEFAULT).settings["DRAIN_TIMEOUT_S"] == settings.rules()["DRAIN_TIMEOUT_S"].default


def test_large_numbers_stay_whole(helm: Helm) -> None:
    """A number of seven digits is not written as a float, whatever Helm made of it."""
    assert helm.render(CHART / "ci" / "tuning-values.yaml").settings["READ_AHEAD_RECORDS"] == "10000000"


def test_switches_stay_switches(helm: Helm) -> None:
    """True is not written as a number."""
    assert helm.render(CHART / "ci" / "tuning-values.yaml").settings["SUPPRESS_UNDECODABLE"] == "true"


def test_changed_settings_restart_the_pods(helm: Helm, override: Path) -> None:
    """The pods' checksum follows the settings and the files, and only them."""

    def checksum(values: str) -> str:
        override.write_text(values)
        template = helm.render(DEFAULT, override).workload["spec"]["template"]
        found: str = template["metadata"]["annotations"]["checksum/config"]
        return found

    assert checksum("replicas: 1") == checksum("replicas: 2")
    assert checksum("replicas: 1") != checksum("settings: {LOG_LEVEL: debug}")
    assert checksum("replicas: 1") != checksum("files: {mapping.toml: a}") != checksum("files: {mapping.toml: b}")


def test_the_number_of_pods_may_be_somebody_else_s(helm: Helm, override: Path) -> None:
    """Who scales by hand or by an autoscaler must not be set back with the next release; none at all is a number."""
    for replicas, rendered in [("null", None), ("0", 0), ("6", 6)]:
        override.write_text(f"replicas: {replicas}")
        assert helm.render(DEFAULT, override).workload["spec"].get("replicas") == rendered


def test_probes_ask_what_they_should(helm: Helm) -> None:
    """Start and life look at the program's own loops, readiness at the world; a restore has five minutes."""
    container = helm.render(DEFAULT).container
    paths = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] == 300


def test_a_pod_that_ended_says_why(helm: Helm) -> None:
    """The last lines on stderr: else whoever looks at the pod sees an exit code."""
    assert helm.render(DEFAULT).container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_metrics_are_found(helm: Helm) -> None:
    """The headless Service and the PodMonitor name a port that the container has."""
    manifests = helm.render(CHART / "ci" / "monitoring-values.yaml")
    ports = {port["name"] for port in manifests.container["ports"]}
    service, monitor = manifests["Service"]["spec"], manifests["PodMonitor"]
    assert service["clusterIP"] == "None"
    assert {port["targetPort"] for port in service["ports"]} == ports
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint == {"port": "http", "path": "/metrics", "interval": "15s", "scrapeTimeout": "10s"}
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_alerts_can_fire(helm: Helm) -> None:
    """Each asks for series that a process has from its start, with the labels that it groups by."""
    series = [sample for family in text_string_to_metric_families(_exposition()) for sample in family.samples]
    rules = alert_rules(helm)
    assert len(rules) >= 9
    for rule in rules:
        for selector, grouped_by in _selectors(promql_parser.parse(rule["expr"])):
            given = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
            wanted = {name: value for name, value in given.items() if name not in {"namespace", "pod"}}
            found = [
                each.labels for each in series if each.name == selector.name and wanted.items() <= each.labels.items()
            ]
            assert found, f"{rule['alert']}: no series {selector}"
            assert all(grouped_by <= labels.keys() for labels in found), rule["alert"]


def test_alerts_count_as_the_document_says(helm: Helm) -> None:
    """Each alert on a counter or histogram has the expression with which the document explains what counts."""
    told = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")
    (formula,) = re.findall(r"```promql\n(.*?)```", told, re.DOTALL)
    counted = {
        rule["alert"]: rule["expr"] for rule in alert_rules(helm) if re.search(r"_(total|bucket)\{", rule["expr"])
    }
    assert len(counted) == 7
    for alert, expression in counted.items():
        found = [str(selector) for selector, _ in _selectors(promql_parser.parse(expression))]
        start = next(each for each in found if each.startswith("process_start_time_seconds{"))
        times = formula.replace("10m", "1h") if alert == "GenesysConsumerRecordsRejected" else formula
        for counter in {each for each in found if each.endswith("}") and each != start}:
            meant = re.sub(r"\bx\b", counter, re.sub(r"\bs\b", start, " ".join(times.split())))
            assert f"({meant})" in expression, alert


def test_alerts_are_about_the_pods_of_the_release(helm: Helm, override: Path) -> None:
    """Pods of a StatefulSet have a number, those of a Deployment two words; another release's have neither."""
    for kind, ours, other in [
        ("StatefulSet", f"{NAME}-12", f"{NAME}-eu-0"),
        ("Deployment", f"{NAME}-5d4f8c7b9-x2x1z", f"{NAME}-eu-west-5d4f8c7b9-x2x1z"),
    ]:
        override.write_text(f"kind: {kind}")
        for rule in alert_rules(helm, override):
            for selector, _ in _selectors(promql_parser.parse(rule["expr"])):
                given = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
                assert given["namespace"] == NAMESPACE
                assert re.fullmatch(given["pod"], ours)
                assert not re.fullmatch(given["pod"], other)


@pytest.mark.parametrize("length", range(40, 53))
def test_alerts_know_the_pods_of_a_deployment_with_a_long_name(helm: Helm, override: Path, length: int) -> None:
    """Kubernetes cuts what it generates a name from to 58 characters, in the midst of the hash."""
    name = "c" * length
    override.write_text(f"{{kind: Deployment, fullnameOverride: {name}}}")
    selectors = [
        each for rule in alert_rules(helm, override) for each, _ in _selectors(promql_parser.parse(rule["expr"]))
    ]
    patterns = {matcher.value for each in selectors for matcher in each.matchers.matchers if matcher.name == "pod"}
    (pattern,) = patterns
    for template_hash in ("5d4f8c7b9f", "5d4f8c7b9", "5d4f8", "5"):
        assert re.fullmatch(pattern, f"{name}-{template_hash}-"[:58] + "x2x1z")
        assert not re.fullmatch(pattern, f"{name}-eu-{template_hash}-"[:58] + "x2x1z")
        assert not re.fullmatch(pattern, f"{name}-eu-0")


def test_alerts_tell_what_to_do(helm: Helm) -> None:
    """Each has a severity, a summary and a description; what withdrawals may take is set by who promises it."""
    rules = {rule["alert"]: rule for rule in alert_rules(helm)}
    assert {rule["labels"]["severity"] for rule in rules.values()} == {"critical", "warning"}
    assert all(rule["annotations"].keys() == {"summary", "description"} for rule in rules.values())
    assert rules["GenesysConsumerWithdrawalsSlow"]["expr"].endswith("> 30")


def test_alerts_want_the_labels_of_the_pod_monitor(helm: Helm, override: Path) -> None:
    """Without them they would never fire, and nobody would notice."""
    override.write_text("podMonitor: {enabled: false}")
    with pytest.raises(ToolFailedError, match=r"prometheusRule\.enabled needs podMonitor\.enabled"):
        helm.render(CHART / "ci" / "monitoring-values.yaml", override)


def _exposition() -> str:
    """The metrics of a process that has just started, with one partition."""
    telemetry = Telemetry(["changes"], "group")
    telemetry.bind(
        Levels(
            breaker_state=lambda: 0,
            rate_limit_remaining=lambda: 1.0,
            in_flight=lambda: 0,
            lag=lambda: {TopicPartition("changes", 0): 0},
            stalled=lambda: {TopicPartition("changes", 0): 0.0},
            store_size=lambda: (0, 0),
            fuse_tripped=lambda: {"changes": 0},
        )
    )
    return telemetry.render()[0].decode()


def _selectors(expression: Any, grouped_by: frozenset[str] = frozenset()) -> Iterator[tuple[Any, frozenset[str]]]:
    """The series that an expression asks for, with the labels by which it groups them."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression, grouped_by
    elif isinstance(expression, promql_parser.MatrixSelector):
        yield from _selectors(expression.vector_selector, grouped_by)
    elif isinstance(expression, promql_parser.AggregateExpr):
        by = frozenset(expression.modifier.labels) if expression.modifier else frozenset()
        yield from _selectors(expression.expr, by)
    elif isinstance(expression, promql_parser.BinaryExpr):
        yield from _selectors(expression.lhs, grouped_by)
        gives_no_label = str(expression.op) in {"and", "unless"}
        yield from _selectors(expression.rhs, frozenset() if gives_no_label else grouped_by)
    elif isinstance(expression, promql_parser.ParenExpr):
        yield from _selectors(expression.expr, grouped_by)
    elif isinstance(expression, promql_parser.Call):
        for argument in expression.args:
            yield from _selectors(argument, grouped_by)


def test_scheduling_reaches_the_pods(helm: Helm) -> None:
    """Where pods may run is passed on as it was given."""
    values = CHART / "ci" / "scheduling-values.yaml"
    given, manifests = yaml.safe_load(values.read_text()), helm.render(values)
    assert {key: manifests.pod[key] for key in ("nodeSelector", "tolerations", "affinity")} == {
        key: given[key] for key in ("nodeSelector", "tolerations", "affinity")
    }
    assert manifests.pod["topologySpreadConstraints"][0]["topologyKey"] == "topology.kubernetes.io/zone"
    assert manifests.pod["serviceAccountName"] == "streaming"
    assert "ServiceAccount" not in manifests.kinds
    assert manifests["PodDisruptionBudget"]["spec"]["maxUnavailable"] == "50%"


def test_the_documented_patch_keeps_pods_whose_fuse_has_tripped(helm: Helm) -> None:
    """With it no pod that is unready may be evicted, be it one of many or all of them."""
    told = (PROJECT / "docs" / "procedures.md").read_text(encoding="utf-8")
    ((name, patch),) = re.findall(r"kubectl patch poddisruptionbudget (\S+) --type merge \\\n +--patch '(.+?)'\n", told)
    budget = helm.render(DEFAULT)["PodDisruptionBudget"]
    assert budget["metadata"]["name"] == name
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    patched = budget["spec"] | json.loads(patch)["spec"]
    assert (patched["maxUnavailable"], patched["unhealthyPodEvictionPolicy"]) == (0, "IfHealthyBudget")
    for version in KUBERNETES_VERSIONS:
        kubernetes_validate.validate(budget | {"spec": patched}, version, strict=True)


def test_the_network_lets_through_what_is_named(helm: Helm) -> None:
    """To the pods of the release, from whom the values name; from them, where the values say and to DNS."""
    values = CHART / "ci" / "network-values.yaml"
    given, manifests = yaml.safe_load(values.read_text())["networkPolicy"], helm.render(values)
    policy = manifests["NetworkPolicy"]["spec"]
    assert policy["podSelector"] == manifests.workload["spec"]["selector"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (entry,) = policy["ingress"]
    assert entry == {
        "from": given["metricsFrom"],
        "ports": [{"port": manifests["Service"]["spec"]["ports"][0]["name"]}],
    }
    dns, *others = policy["egress"]
    assert {(port["protocol"], port["port"]) for port in dns["ports"]} == {("UDP", 53), ("TCP", 53)}
    assert others == given["egress"]


def test_a_network_policy_that_keeps_the_metrics_from_prometheus_is_refused(helm: Helm, override: Path) -> None:
    """Nothing would be scraped, and nobody be told."""
    override.write_text("networkPolicy: {enabled: true}")
    with pytest.raises(ToolFailedError, match=r"networkPolicy\.metricsFrom must name"):
        helm.render(CHART / "ci" / "monitoring-values.yaml", override)


def test_a_network_policy_by_itself_shuts_in_nobody(helm: Helm, override: Path) -> None:
    """Nobody reaches the pods then, and they reach everything: to bar them from Kafka unasked would stop them."""
    override.write_text("networkPolicy: {enabled: true}")
    policy = helm.render(DEFAULT, override)["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    assert not {"ingress", "egress"} & policy.keys()


def test_digest_wins_over_the_tag(helm: Helm) -> None:
    """An image pinned by digest is pulled by it; otherwise the tag is the version of the program."""
    image = helm.render(CHART / "ci" / "image-values.yaml").container["image"]
    assert re.fullmatch(r"registry\.example\.com/streaming/genesys-consumer@sha256:[0-9a-f]{64}", image)
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert helm.render(DEFAULT).container["image"] == f"genesys-consumer:{version}"


def _with_notes(folder: Path) -> Path:
    """A copy of the chart that renders its notes."""
    chart = shutil.copytree(CHART, folder / "chart")
    include = '{{ include (print .Template.BasePath "/NOTES.txt") . | toJson }}'
    (chart / "templates" / "notes.yaml").write_text(f"kind: Notes\nnotes: {include}")
    return chart


def test_notes_of_a_release_without_pods_say_what_comes_first(helm: Helm, tmp_path: Path, override: Path) -> None:
    """There is nothing to look at yet: `check` and a load are Jobs, then come the pods."""
    override.write_text("replicas: 0")
    notes = helm.render(DEFAULT, override, chart=_with_notes(tmp_path))["Notes"]["notes"]
    assert "no pods yet" in notes
    assert "--set job.args='{check}' --show-only templates/job.yaml" in notes
    assert f"logs --follow job/{helm.job(DEFAULT, sets=['job.args={check}'])['metadata']['name']}\n" in notes
    assert "rollout status" not in notes


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment"])
def test_notes_say_what_to_check_next(helm: Helm, tmp_path: Path, override: Path, kind: str) -> None:
    """The notes name the workload in each command, and warn of pseudonyms that cannot be compared."""
    chart = _with_notes(tmp_path)
    override.write_text(f"kind: {kind}")
    notes = helm.render(DEFAULT, override, chart=chart)["Notes"]["notes"]
    assert f"rollout status {kind.lower()}/{NAME}\n" in notes
    assert f"port-forward {kind.lower()}/{NAME} 8080\n" in notes
    assert "WARNING: secretKeys.pseudonymKey is not set" in notes
    assert ("replays the changelog" in notes) == (kind == "Deployment")
    assert "WARNING: there is one pod" in notes
    override.write_text(f"{{kind: {kind}, replicas: 2}}")
    assert "there is one pod" not in helm.render(DEFAULT, override, chart=chart)["Notes"]["notes"]


@each_values_file
def test_a_job_gets_what_the_pods_get(helm: Helm, values: Path) -> None:
    """The same image, settings, secrets, files and restrictions; a state directory of its own, and no other's name."""
    job, release = (
        helm.job(values, sets=["job.args={load,/contacts/contacts.csv}", "job.claim=contacts"]),
        helm.render(values),
    )
    spec = job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    for version in KUBERNETES_VERSIONS:
        kubernetes_validate.validate(job, version, strict=True)
    assert container["args"] == ["load", "/contacts/contacts.csv"]
    variables = _variables(release.container)
    variables.pop("KAFKA_GROUP_INSTANCE_ID", None)
    assert _variables(container) == release.settings | variables
    same = ("image", "imagePullPolicy", "resources", "securityContext", "terminationMessagePolicy")
    assert {key: container[key] for key in same} == {key: release.container[key] for key in same}
    (contacts,) = [mount for mount in container["volumeMounts"] if mount not in release.container["volumeMounts"]]
    assert contacts == {"name": "claim", "mountPath": "/contacts", "readOnly": True}
    given = {volume["name"]: volume for volume in spec["volumes"]}
    assert given.pop("state")["emptyDir"] == {}
    assert given.pop("claim")["persistentVolumeClaim"] == {"claimName": "contacts", "readOnly": True}
    assert [*given.values()] == [volume for volume in release.pod["volumes"] if volume["name"] != "state"]
    own = {"containers", "volumes", "restartPolicy", "topologySpreadConstraints"}
    assert {key: spec[key] for key in spec.keys() - own} == {key: release.pod[key] for key in release.pod.keys() - own}
    assert (spec["restartPolicy"], job["spec"]["backoffLimit"]) == ("Never", 0)


@each_values_file
def test_nothing_of_the_release_selects_a_job(helm: Helm, values: Path) -> None:
    """A command is behind no Service, in no budget and no pod of the workload; nobody probes it."""
    job = helm.job(values, sets=["job.args={check}"])
    template, release = job["spec"]["template"], helm.render(values)
    selected = release.workload["spec"]["selector"]["matchLabels"]
    assert not selected.keys() & template["metadata"]["labels"].keys()
    assert not {"ports", "livenessProbe", "readinessProbe", "startupProbe"} & template["spec"]["containers"][0].keys()
    assert "claim" not in {volume["name"] for volume in template["spec"]["volumes"]}


def test_a_job_with_a_schedule_is_a_cron_job(helm: Helm) -> None:
    """For what is done every week: never twice at a time."""
    job = helm.job(DEFAULT, sets=["job.args={reconcile}"])
    weekly = helm.job(DEFAULT, sets=["job.args={reconcile}", "job.schedule=0 4 * * 0"])
    for version in KUBERNETES_VERSIONS:
        kubernetes_validate.validate(weekly, version, strict=True)
    assert weekly["spec"] == {
        "schedule": "0 4 * * 0",
        "concurrencyPolicy": "Forbid",
        "jobTemplate": {"spec": job["spec"]},
    }


@pytest.mark.parametrize("command", ["check", "dead-letters"])
def test_the_longest_name_of_a_job_fits(helm: Helm, override: Path, command: str) -> None:
    """A CronJob takes 52 characters."""
    override.write_text(f"fullnameOverride: {'c' * 52}")
    name = helm.job(DEFAULT, override, sets=[f"job.args={{{command}}}"])["metadata"]["name"]
    assert len(name) == 52
    assert name.endswith(f"-{command}")


def test_a_job_is_no_part_of_a_release(helm: Helm, override: Path) -> None:
    """There is none unless it is asked for, and who leaves it in the values is told with the next upgrade."""
    assert "Job" not in helm.render(DEFAULT).kinds
    override.write_text("job: {args: [check]}")
    with pytest.raises(ToolFailedError, match=r"job\.args is for `helm template"):
        helm.render(DEFAULT, override, upgrade=True)


def test_the_documented_jobs_are_commands_of_the_program(helm: Helm) -> None:
    """Each that a document has printed is one that the chart prints, with arguments that the program takes."""
    pages = [*(PROJECT / "docs").glob("*.md"), PROJECT / "README.md", CHART / "README.md"]
    told = set(re.findall(r"--set job\.args='\{(.+?)\}'", "".join(page.read_text("utf-8") for page in pages)))
    assert {arguments.split(",")[0] for arguments in told} >= {"check", "load", "reconcile"}
    for arguments in told:
        (container,) = helm.job(DEFAULT, sets=[f"job.args={{{arguments}}}"])["spec"]["template"]["spec"]["containers"]
        cli._parser().parse_args(container["args"])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (f"SOURCE_MAPPING: {FILES}/maping.toml", "files has no maping.toml"),
        (f"SOURCE_MAPPING: {FILES}/crm/mapping.toml", "files has no crm/mapping.toml"),
    ],
)
def test_a_mapping_that_is_not_among_the_files_is_refused(helm: Helm, override: Path, values: str, said: str) -> None:
    """The pods would not start for it, long after the release was made."""
    override.write_text(f"settings: {{{values}}}")
    with pytest.raises(ToolFailedError, match=said):
        helm.render(CHART / "ci" / "files-values.yaml", override)


def test_schemas_in_a_folder_without_files_are_refused(helm: Helm, override: Path) -> None:
    """What stands in another folder, as of a Secret, the chart does not know."""
    override.write_text(f"settings: {{SCHEMAS_DIR: {FILES}}}")
    with pytest.raises(ToolFailedError, match="there are no files"):
        helm.render(DEFAULT, override)
    override.write_text(f"settings: {{SCHEMAS_DIR: {SECRETS}, SOURCE_MAPPING: {SECRETS}/mapping.toml}}")
    assert helm.render(DEFAULT, override).settings["SCHEMAS_DIR"] == SECRETS


def _leaves(values: dict[str, Any], path: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}"


def test_readme_explains_every_value() -> None:
    """The chart's README has one row for every value there is, and none for a value that is gone."""
    rows = set(re.findall(r"^\| `([^`]+)` \|", (CHART / "README.md").read_text(), re.MULTILINE))
    assert rows == set(_leaves(yaml.safe_load((CHART / "values.yaml").read_text())))
