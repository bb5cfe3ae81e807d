"""The machine in which a cluster is: the first process of namespaces of its own.

Processes, mounts, devices, routes and firewall rules of the cluster are in them, so that the kernel takes all
of it away when this process ends. Only what the keeper made outside (keeper.py) has to be removed by anyone.
"""

from __future__ import annotations

import os
import ssl
import sys
import threading
from pathlib import Path
from typing import Final

from tests.cluster.certificates import Authority, write_signing_key
from tests.cluster.direct import answer
from tests.cluster.plan import INSIDE, PROGRAMS_INSIDE, Plan, plan_of
from tests.cluster.processes import Processes, run

_CONTROL: Final = INSIDE / "control"
_START_TIMEOUT_S: Final = 60.0
_PROBE_TIMEOUT_S: Final = 2.0
#: user, group, and whether a node or a program of the control plane is it
_USERS: Final = (
    ("admin", "system:masters"),
    ("system:kube-controller-manager", ""),
    ("system:kube-scheduler", ""),
    ("system:kube-proxy", ""),
    ("tlsy:network-policies", ""),
    ("tlsy:volumes", ""),
)


def main() -> None:
    """Starts control plane and nodes of the plan in the state directory that is the first argument.

    The second is the number of a file that is this machine's network namespace.
    """
    state, outside = sys.argv[1:]
    threading.Thread(target=_end_with_the_keeper, daemon=True).start()
    _mount(Path(state))
    plan = plan_of((INSIDE / "plan.json").read_text())
    _connect(plan, outside)
    os.close(int(outside))
    _certify(plan)
    processes = Processes(INSIDE / "log" / "control", INSIDE / "ended" / "control")
    _start_api(plan, processes)
    for index, name in enumerate(plan.node_names()):
        pid = processes.start(name, _node(index, name), {"PYTHONDONTWRITEBYTECODE": "1"})
        (INSIDE / name / "pid").write_text(str(pid))
    _start_control(plan, processes)
    processes.reap_forever()


def _end_with_the_keeper() -> None:
    """Its end of this pipe closes when it does so, and when it dies."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(0)


def _mount(state: Path) -> None:
    programs = plan_of((state / "plan.json").read_text()).programs
    run("mount", "-t", "tmpfs", "-o", "mode=0755", "tlsy", "/run")
    for source, target in ((state, INSIDE), (Path(programs), PROGRAMS_INSIDE)):
        target.mkdir(exist_ok=True)
        run("mount", "--bind", str(source), str(target))
    # What is in /var stays to be seen, what is written there is gone with the cluster.
    layers = Path("/run/var")
    for layer in ("upper", "work"):
        (layers / layer).mkdir(parents=True)
    run(
        "mount",
        "-t",
        "overlay",
        "-o",
        f"lowerdir=/var,upperdir={layers}/upper,workdir={layers}/work",
        "tlsy",
        "/var",
    )


def _connect(plan: Plan, outside: str) -> None:
    """A bridge with the cable to this machine, the control plane's address, and a cable to each node."""
    in_outer = ("nsenter", f"--net=/proc/self/fd/{outside}")
    # This process is number 1 where that number is looked up.
    run(*in_outer, "ip", "link", "set", plan.peer, "netns", "1", keep=int(outside))
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "nodes", "type", "bridge")
    run("ip", "address", "add", f"{plan.control}/24", "dev", "nodes")
    run("ip", "link", "set", "nodes", "up")
    run("ip", "link", "set", plan.peer, "master", "nodes", "up")
    for index, name in enumerate(plan.node_names()):
        run("ip", "netns", "add", name)
        run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", name, "master", "nodes", "up")
        in_node = ("ip", "-n", name)
        run(*in_node, "link", "set", "lo", "up")
        run(*in_node, "address", "add", f"{plan.node_address(index)}/24", "dev", "eth0")
        run(*in_node, "link", "set", "eth0", "up")
        run(*in_node, "route", "add", "default", "via", plan.control)
        run("ip", "route", "add", plan.node_pods(index), "via", plan.node_address(index))
        for other in range(plan.nodes):
            if other != index:
                run(*in_node, "route", "add", plan.node_pods(other), "via", plan.node_address(other))
    run("ip", "route", "add", plan.services, "via", plan.node_address(0))
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _certify(plan: Plan) -> None:
    for folder in (
        _CONTROL,
        *(INSIDE / name for name in plan.node_names()),
        INSIDE / "volumes",
        INSIDE / "ended",
        INSIDE / "log",
    ):
        folder.mkdir(exist_ok=True)
    authority = Authority.new(_CONTROL, "tlsy-cluster")
    names = (
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    )
    authority.issue(
        "apiserver", "kube-apiserver", subjects=(*names, plan.control, plan.api_service, "127.0.0.1")
    )
    authority.issue("apiserver-to-kubelets", "kube-apiserver", "system:masters")
    users = list(_USERS)
    for index, name in enumerate(plan.node_names()):
        authority.issue(name, name, subjects=(name, plan.node_address(index)))
        users.append((f"system:node:{name}", "system:nodes"))
    for user, group in users:
        (_CONTROL / f"{user}.kubeconfig").write_text(authority.kubeconfig(plan.api, user, group))
    write_signing_key(_CONTROL)
    front = _CONTROL / "front"
    front.mkdir()
    Authority.new(front, "tlsy-cluster-front").issue("proxy", "front-proxy")
    admin = (_CONTROL / "admin.kubeconfig").read_text()
    (INSIDE / "kubeconfig").write_text(admin)


def _start_api(plan: Plan, processes: Processes) -> None:
    processes.start(
        "etcd",
        (
            str(PROGRAMS_INSIDE / "etcd"),
            f"--data-dir={_CONTROL / 'etcd'}",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ),
    )
    accounts = "https://kubernetes.default.svc.cluster.local"
    processes.start(
        "kube-apiserver",
        (
            str(PROGRAMS_INSIDE / "kube-apiserver"),
            "--etcd-servers=http://127.0.0.1:2379",
            f"--advertise-address={plan.control}",
            f"--service-cluster-ip-range={plan.services}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--client-ca-file={_CONTROL / 'ca.crt'}",
            f"--tls-cert-file={_CONTROL / 'apiserver.crt'}",
            f"--tls-private-key-file={_CONTROL / 'apiserver.key'}",
            f"--service-account-issuer={accounts}",
            f"--service-account-key-file={_CONTROL / 'accounts.pub'}",
            f"--service-account-signing-key-file={_CONTROL / 'accounts.key'}",
            f"--kubelet-certificate-authority={_CONTROL / 'ca.crt'}",
            f"--kubelet-client-certificate={_CONTROL / 'apiserver-to-kubelets.crt'}",
            f"--kubelet-client-key={_CONTROL / 'apiserver-to-kubelets.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            # Services are known on nodes only: webhooks and other APIs are called at their pods.
            "--enable-aggregator-routing=true",
            f"--proxy-client-cert-file={_CONTROL / 'front' / 'proxy.crt'}",
            f"--proxy-client-key-file={_CONTROL / 'front' / 'proxy.key'}",
            f"--requestheader-client-ca-file={_CONTROL / 'front' / 'ca.crt'}",
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        ),
    )


def _node(index: int, name: str) -> tuple[str, ...]:
    return (
        "nsenter", f"--net=/run/netns/{name}",
        "unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc",
        sys.executable, "-m", "tests.cluster.node", str(index),
    )  # fmt: skip


def _start_control(plan: Plan, processes: Processes) -> None:
    trusted = ssl.create_default_context(cafile=str(_CONTROL / "ca.crt"))
    processes.wait_until(lambda: _answers(f"{plan.api}/readyz", trusted), "the API server", _START_TIMEOUT_S)
    # One of each: nobody else could lead.
    common = ("--leader-elect=false", "--bind-address=127.0.0.1")
    for name in ("kube-controller-manager", "kube-scheduler"):
        kubeconfig = _CONTROL / f"system:{name}.kubeconfig"
        identity = [f"--{use}kubeconfig={kubeconfig}" for use in ("", "authentication-", "authorization-")]
        more = _CONTROLLERS if name == "kube-controller-manager" else ()
        processes.start(name, (str(PROGRAMS_INSIDE / name), *common, *identity, *more))
    processes.start(
        "volumes",
        (
            str(PROGRAMS_INSIDE / "volumes"),
            f"-kubeconfig={_CONTROL / 'tlsy:volumes.kubeconfig'}",
            f"-root={INSIDE / 'volumes'}",
        ),
    )


_CONTROLLERS: Final = (
    f"--root-ca-file={_CONTROL / 'ca.crt'}",
    f"--service-account-private-key-file={_CONTROL / 'accounts.key'}",
    "--use-service-account-credentials=true",
    # A node that dies is noticed while a test waits, and its pods are seen to move.
    "--node-monitor-period=2s",
    "--node-monitor-grace-period=16s",
    "--horizontal-pod-autoscaler-sync-period=5s",
    "--horizontal-pod-autoscaler-initial-readiness-delay=5s",
    "--horizontal-pod-autoscaler-cpu-initialization-period=10s",
)


def _answers(url: str, trusted: ssl.SSLContext) -> bool:
    try:
        answer(url, trusted, _PROBE_TIMEOUT_S)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    os.umask(0o022)
    main()
