#!/usr/bin/env python3
"""Renders the Helm chart with Helm's own engine, and validates what comes out.

    charts.py lint                      Helm's lint, strict
    charts.py render                    prints the chart with its default values, as deploy/kubernetes/authgate.yaml
    charts.py validate AUTHGATE MODELS  every variant against the schemas of Kubernetes, its gateway.toml by `authgate check`, and
                                        ServiceMonitors by the npm models in the folder MODELS
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import warnings

import kubernetes_validate
import yaml
from helm_python import chart as helm

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/authgate"
# The oldest version of the chart's `kubeVersion`, and the newest one that the schemas have.
VERSIONS = ["1.27", kubernetes_validate.latest_version()]

VARIANTS = {
    "defaults": {},
    "everything": {
        "image": {"digest": "sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "registry"}],
        "env": [{"name": "REDIS_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "redis", "key": "password"}}}],
        "service": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "annotations": {"example.com/x": "y"}},
        "networkPolicy": {
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}],
            "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "shop"}}}], "ports": [{"port": 8000}]}],
        },
        "metrics": {"enabled": True, "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
        "serviceAccount": {"annotations": {"example.com/role": "r"}},
        "podAnnotations": {"example.com/a": "b"},
        "podLabels": {"team": "edge"},
        "priorityClassName": "high",
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "edge", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    },
    "least": {
        "autoscaling": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "serviceAccount": {"create": False},
        "restartOnConfigChange": False,
        "topologySpreadKeys": [],
    },
}

# Values that must be refused, and what the error says.
REFUSED = [
    ({"config": "[probes]\nlisten = '0.0.0.0:1'\n"}, "leave [probes] out"),
    ({"config": "[server]\n[ server . drain ]\n"}, "leave [server.drain] out"),
    ({"config": "[admin]\n", "metrics": {"enabled": True}}, "leave [admin] out"),
    ({"metrics": {"serviceMonitor": {"enabled": True}}}, "needs metrics.enabled"),
    ({"replica": 3}, "replica"),
    ({"image": {"tag": 1}}, "tag"),
]


def render(values):
    chart = helm.Chart.load(str(CHART))
    chart.validate_schema(values)
    files = chart.render(values, name="authgate", namespace="default")
    for name in sorted(files):
        if name.endswith(".yaml") and files[name].strip():
            # Lines with blanks alone are what is left of template commands.
            yield re.sub(r"[ \t]+$", "", files[name], flags=re.MULTILINE).strip("\n") + "\n"


def documents(values):
    for text in render(values):
        yield from (document for document in yaml.safe_load_all(text) if document)


def plain():
    head = "# The chart in deploy/helm with its default values, for kubectl apply. Change the gateway.toml in it first.\n"
    return head + "---\n" + "---\n".join(render({}))


def lint():
    report = helm.lint(str(CHART), strict=True)
    # Severity 1 is advice: an icon, for a catalogue of charts.
    problems = [message for message in report["messages"] if message["severity"] > 1] + report["errors"]
    for problem in problems:
        print(problem, file=sys.stderr)
    return not problems


def security(name, document):
    """What a cluster that enforces the `restricted` standard demands, and a file system that cannot be written."""
    pod = document["spec"]["template"]["spec"]
    own = pod["containers"][0]["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
    assert own == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}, name
    assert pod["automountServiceAccountToken"] is False, name


def gateway_toml(name, config, authgate):
    """`authgate check`, with a certificate and a token where the Secrets would be."""
    with tempfile.TemporaryDirectory() as folder:
        secrets = pathlib.Path(folder)
        for tls in ("tls", "admin-tls"):
            (secrets / tls).mkdir()
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90"]
                + ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
                + ["-keyout", secrets / tls / "tls.key", "-out", secrets / tls / "tls.crt"],
                check=True,
                capture_output=True,
            )
        (secrets / "admin-token").mkdir()
        (secrets / "admin-token/token").write_text("0" * 64)
        file = secrets / "gateway.toml"
        file.write_text(config.replace("/etc/authgate/secrets/", f"{folder}/"))
        ended = subprocess.run([authgate, "check", "--config", file], capture_output=True, text=True)
        assert (ended.returncode, ended.stderr) == (0, ""), f"{name}: {ended.stderr}"


def service_monitor(document, models):
    program = "import { ServiceMonitor } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor';"
    program += "new ServiceMonitor(JSON.parse(process.argv[1])).validate();"
    command = ["node", "--input-type=module", "--eval", program, json.dumps(document)]
    subprocess.run(command, check=True, cwd=models)


def validate(authgate, models):
    counted = 0
    for name, values in VARIANTS.items():
        kinds = []
        for document in documents(values):
            kinds.append(document["kind"])
            if document["kind"] == "ServiceMonitor":
                service_monitor(document, models)
                continue
            for version in VERSIONS:
                kubernetes_validate.validate(document, version, strict=True)
                counted += 1
            if document["kind"] == "Deployment":
                security(name, document)
            if document["kind"] == "ConfigMap":
                gateway_toml(name, document["data"]["gateway.toml"], authgate)
        print(f"{name}: {', '.join(kinds)}")
    for values, says in REFUSED:
        try:
            list(render(values))
        except Exception as error:
            assert says in str(error), f"{values}: {error}"
        else:
            raise AssertionError(f"{values} were not refused")
    print(f"{counted} documents are valid under Kubernetes {' and '.join(VERSIONS)}; {len(REFUSED)} wrong values are refused")


def main():
    warnings.simplefilter("ignore")
    match sys.argv[1:]:
        case ["lint"]:
            sys.exit(0 if lint() else 1)
        case ["render"]:
            sys.stdout.write(plain())
        case ["validate", authgate, models]:
            validate(authgate, models)
        case _:
            sys.exit(__doc__)


main()
