"""Each service as a Deployment of its own image, with PostgreSQL and Apache Kafka as pods beside it."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.cluster.plan import ClusterError
from tests.images.settings import GRACE_S, PORT, SERVICES

if TYPE_CHECKING:
    from tests.cluster.spine.suite import SuiteOfPods

pytestmark = pytest.mark.cluster

PROBE_ANOTHER: Final = """
import os
from tlsy.rpc.probe import main
os.environ["TLSY_LISTEN"] = "{service}:{port}"
raise SystemExit(main(["--timeout-s=30"]))
"""


def exec_in(suite: SuiteOfPods, service: str, text: str) -> str:
    return suite.space.kubectl("exec", f"deployment/{service}", "--", "python3", "-c", text)


@pytest.mark.parametrize("service", SERVICES)
def test_it_answers_another_pod_that_asks_for_its_health(suite: SuiteOfPods, service: str) -> None:
    asking = SERVICES[SERVICES.index(service) - 1]
    assert exec_in(suite, asking, PROBE_ANOTHER.format(service=service, port=PORT)) == "SERVING\n"


@pytest.mark.parametrize("service", SERVICES)
def test_it_has_neither_root_nor_capabilities(suite: SuiteOfPods, service: str) -> None:
    told = exec_in(suite, service, "print(open('/proc/1/status').read())")
    assert re.search(r"^Uid:\t65532\t65532\t65532\t65532$", told, re.MULTILINE)
    assert set(re.findall(r"^Cap(?:Eff|Prm|Bnd|Amb):\t(\w+)$", told, re.MULTILINE)) == {"0" * 16}


@pytest.mark.parametrize("service", SERVICES)
def test_it_cannot_change_its_root(suite: SuiteOfPods, service: str) -> None:
    # It is not its user's either way: what refuses must be that nobody can write.
    with pytest.raises(ClusterError, match="Read-only file system"):
        exec_in(suite, service, "open('/app/x', 'w')")


@pytest.mark.parametrize("service", SERVICES)
def test_it_stops_within_its_grace_and_another_takes_its_place(suite: SuiteOfPods, service: str) -> None:
    pod = suite.of(service)[0]
    began_s = time.monotonic()
    suite.space.kubectl("delete", "pod", pod["metadata"]["name"], "--wait")
    assert time.monotonic() - began_s <= GRACE_S
    suite.ready(service)
