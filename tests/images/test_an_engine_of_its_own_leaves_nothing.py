"""`.ci/with-docker` ends its engine with all that this made, also one that was left by a killed one."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from images.context import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("dockerd") is None,
        reason="needs root and dockerd",
    ),
]

#: With processes, mounts and a network of its own: no other engine's are there.
ALONE = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
TELL = """\
iptables-save | grep -E '^-A|DOCKER' || true
ip6tables-save | grep -E '^-A|DOCKER' || true
iptables -S FORWARD
cat /proc/sys/net/ipv4/ip_forward
ip -brief link
grep "$XDG_CACHE_HOME" /proc/self/mountinfo || true
cat /proc/[0-9]*/comm | grep -E '^(dockerd|containerd)' || true
"""
ENDS = "{with_docker} sh -c 'docker network create another >/dev/null && ip link show docker0 >/dev/null'"
IS_KILLED = """\
{with_docker} sh -c 'docker network create left >/dev/null && touch {up} && exec sleep 600' &
while [ ! -e {up} ]; do sleep 0.1; kill -0 $!; done
kill -KILL $!
{with_docker} sh -c '! docker network inspect left >/dev/null 2>&1'
"""


@pytest.mark.parametrize("script", [ENDS, IS_KILLED])
def test_the_machine_is_as_before(script: str, tmp_path: Path) -> None:
    told = script.format(with_docker=ROOT / ".ci" / "with-docker", up=tmp_path / "up")
    bases = dict.fromkeys(("BASE_IMAGE", "PYTHON_BASE_IMAGE", "JAVA_BASE_IMAGE"), "none-is-needed")
    environment = {**os.environ, **bases, "XDG_CACHE_HOME": str(tmp_path), "DOCKER_HOST": "unix:///nothing"}
    whole = f"set -e; ({TELL}) > {tmp_path}/before; {told}\n({TELL}) > {tmp_path}/after"
    ran = subprocess.run(
        [*ALONE, "sh", "-c", whole],
        env=environment, check=False, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "after").read_text() == (tmp_path / "before").read_text()
    assert not (tmp_path / "tlsy" / "docker.engine").exists()
