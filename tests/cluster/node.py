"""A node: a process of its own namespaces (processes, mounts, network) with a containerd and a kubelet."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.cluster.plan import INSIDE, POD_IMAGE, PROGRAMS_INSIDE, Plan, plan_of
from tests.cluster.processes import Processes, run

#: Where Debian and the plugins' own releases put them.
PLUGIN_FOLDERS: Final = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
#: Kubelet sets these to what it likes; they are the whole machine's, so it is given a copy.
_TUNABLES: Final = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")
_QUEUE: Final = "100"
_START_TIMEOUT_S: Final = 60.0


def main() -> None:
    """Starts the node whose number is the argument; ends only by being killed."""
    index = int(sys.argv[1])
    plan = plan_of((INSIDE / "plan.json").read_text())
    name = plan.node_names()[index]
    folder = INSIDE / name
    socket.sethostname(name)
    _mount(folder)
    processes = Processes(INSIDE / "log" / name, INSIDE / "ended" / name)
    runtime = folder / "containerd.sock"
    (folder / "containerd.toml").write_text(_containerd(runtime, folder))
    (folder / "cni").mkdir()
    (folder / "cni" / "10-tlsy.conflist").write_text(_network(plan, index))
    (folder / "kubelet.json").write_text(_kubelet(plan, name, index, runtime))
    processes.start("containerd", ("containerd", "--config", str(folder / "containerd.toml")))
    kubeconfig = str(INSIDE / "control" / f"system:node:{name}.kubeconfig")
    _queue_new_connections()
    _import_pod_image(processes, runtime)
    processes.start(
        "kubelet",
        (
            str(PROGRAMS_INSIDE / "kubelet"),
            f"--config={folder / 'kubelet.json'}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={name}",
            f"--node-ip={plan.node_address(index)}",
            f"--node-labels=topology.kubernetes.io/zone=zone-{index},topology.kubernetes.io/region=tlsy",
        ),
    )
    processes.start(
        "kube-proxy",
        (
            str(PROGRAMS_INSIDE / "kube-proxy"),
            f"--kubeconfig={INSIDE / 'control' / 'system:kube-proxy.kubeconfig'}",
            "--proxy-mode=iptables",
            "--iptables-min-sync-period=200ms",
            f"--cluster-cidr={plan.pods}",
            f"--hostname-override={name}",
            # These are the whole machine's.
            "--conntrack-max-per-core=0",
            f"--healthz-bind-address={plan.node_address(index)}:10256",
        ),
    )
    processes.start(
        "network-policies",
        (
            str(PROGRAMS_INSIDE / "network-policies"),
            f"-kubeconfig={INSIDE / 'control' / 'tlsy:network-policies.kubeconfig'}",
            f"-node={name}",
            f"-queue={_QUEUE}",
        ),
    )
    processes.reap_forever()


def _mount(folder: Path) -> None:
    """What programs expect at fixed places is the node's own there."""
    for inside, path in (
        ("kubelet", "/var/lib/kubelet"),
        ("containerd", "/var/lib/containerd"),
        ("pods", "/var/log/pods"),
    ):
        (folder / inside).mkdir()
        Path(path).mkdir(parents=True, exist_ok=True)
        run("mount", "--bind", str(folder / inside), path)
    tunables = folder / "tunables"
    for name in _TUNABLES:
        tunable = Path("/proc/sys") / name
        copy = tunables / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(tunable.read_text())
        run("mount", "--bind", str(copy), str(tunable))
    for own in ("/run/containerd", "/run/netns", "/run/lock"):
        Path(own).mkdir(exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", "mode=0755", "tlsy", own)
    run("mount", "--make-rshared", "/")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _queue_new_connections() -> None:
    """Each new connection that passes through waits for what the NetworkPolicies say.

    What the node itself sends is let through: those are the probes of its kubelet.
    """
    chain = (
        "iptables",
        "-w",
        "-t",
        "mangle",
        "-A",
        "POSTROUTING",
        "-m",
        "comment",
        "--comment",
        "tlsy: policies",
    )
    run(*chain, "-m", "owner", "--uid-owner", "0", "-j", "ACCEPT")
    run(*chain, "-m", "conntrack", "--ctstate", "NEW", "-j", "NFQUEUE", "--queue-num", _QUEUE)


def _import_pod_image(processes: Processes, runtime: Path) -> None:
    image = str(PROGRAMS_INSIDE / "pod.tar")
    command = ("ctr", "--address", str(runtime), "--namespace", "k8s.io", "images", "import", image)

    def imported() -> bool:
        if not runtime.exists():
            return False
        # The socket is there a moment before the service answers.
        return subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode == 0

    processes.wait_until(imported, "the import of the pods' image", _START_TIMEOUT_S)


def _containerd(runtime: Path, folder: Path) -> str:
    plugins = next(path for path in PLUGIN_FOLDERS if (path / "ptp").exists())
    return f"""
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
address = "{runtime}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{POD_IMAGE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{folder / "cni"}"
"""


def _network(plan: Plan, index: int) -> str:
    pods = {
        "type": "ptp",
        "ipMasq": False,
        "mtu": 1500,
        "ipam": {
            "type": "host-local",
            "dataDir": "/run/lock/cni",
            "ranges": [[{"subnet": plan.node_pods(index)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": "tlsy", "plugins": [pods, ports]})


def _kubelet(plan: Plan, name: str, index: int, runtime: Path) -> str:
    control = INSIDE / "control"
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": plan.node_address(index),
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(control / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{plan.cgroup}/{name}",
            "clusterDNS": [plan.dns_service],
            "clusterDomain": "cluster.local",
            "containerRuntimeEndpoint": f"unix://{runtime}",
            # A disk that others have filled is no reason to end pods, nor is much of it used by others.
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "1%",
                "imagefs.available": "1%",
            },
            "failCgroupV1": False,
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "localStorageCapacityIsolation": False,
            "nodeStatusUpdateFrequency": "4s",
            # Names outside the cluster are nobody's business in here.
            "resolvConf": "",
            "serializeImagePulls": False,
            "tlsCertFile": str(control / f"{name}.crt"),
            "tlsPrivateKeyFile": str(control / f"{name}.key"),
            "volumePluginDir": "/var/lib/kubelet/volumeplugins",
        }
    )


if __name__ == "__main__":
    os.umask(0o022)
    main()
