"""Where everything of a cluster is: its addresses, and its files as seen from outside and from inside."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
#: Where a cluster's state directory is for its own processes.
INSIDE: Final = Path("/run/tlsy")
#: Where its programs are for its own processes and, by hostPath, for pods.
PROGRAMS_INSIDE: Final = INSIDE / "programs"
#: The image of sandboxes and of tests' pods; its one program is `go/pod`.
POD_IMAGE: Final = "tlsy.local/pod:1"


class ClusterError(RuntimeError):
    """A cluster cannot be had; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a cluster is made by. Its device and cgroups have its `key`, which no other has, in their names.

    Its addresses are 10.<network>.0.0/16:
    .0.1 is this machine, .0.2 the control plane, .0.10 and on the nodes, .64.0/18 the pods (a /24 per node),
    .128.0/20 the services.
    """

    key: str
    state: str
    programs: str
    nodes: int
    network: int

    @property
    def device(self) -> str:
        """This machine's end of the cable to the cluster."""
        return f"tlsy{self.key}"

    @property
    def peer(self) -> str:
        """The cluster's end."""
        return f"{self.device}p"

    @property
    def cgroup(self) -> str:
        """The one below which the pods' are, in every hierarchy."""
        return f"tlsy-cluster-{self.key}"

    @property
    def addresses(self) -> str:
        """All that are the cluster's."""
        return f"10.{self.network}.0.0/16"

    @property
    def machine(self) -> str:
        """This machine's address in the cluster's network."""
        return f"10.{self.network}.0.1"

    @property
    def control(self) -> str:
        """The control plane's address."""
        return f"10.{self.network}.0.2"

    @property
    def api(self) -> str:
        """The API server's."""
        return f"https://{self.control}:6443"

    @property
    def pods(self) -> str:
        """The addresses of all pods."""
        return f"10.{self.network}.64.0/18"

    @property
    def services(self) -> str:
        """The addresses of services."""
        return f"10.{self.network}.128.0/20"

    @property
    def api_service(self) -> str:
        """The first of them."""
        return f"10.{self.network}.128.1"

    @property
    def dns_service(self) -> str:
        """Where pods ask for names."""
        return f"10.{self.network}.128.10"

    def node_names(self) -> tuple[str, ...]:
        """`node-0` and on."""
        return tuple(f"node-{index}" for index in range(self.nodes))

    def node_address(self, index: int) -> str:
        """A node's."""
        return f"10.{self.network}.0.{10 + index}"

    def node_pods(self, index: int) -> str:
        """The addresses of a node's pods."""
        return f"10.{self.network}.{64 + index}.0/24"

    def text(self) -> str:
        """For `plan_of`."""
        return json.dumps(asdict(self))


def plan_of(text: str) -> Plan:
    """What `Plan.text` gave."""
    return Plan(**json.loads(text))


def home() -> Path:
    """The directory of the machine's clusters, each in one of its own: TLSY_CLUSTER_HOME."""
    return Path(os.environ.get("TLSY_CLUSTER_HOME") or "/var/lib/tlsy-cluster").absolute()


def cache() -> Path:
    """Where what was built is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "tlsy" / "cluster"
