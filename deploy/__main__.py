"""`.ci/deploy MANIFESTS --name NAME --namespace NAMESPACE`: rendered manifests into a cluster, as one."""

from __future__ import annotations

import argparse
import math
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from deploy.kubectl import Kubectl
from deploy.manifests import RefusedError, read
from deploy.origin import Origin
from deploy.rollout import CommandError, Deployment, NotReadyError

if TYPE_CHECKING:
    from types import FrameType

_ROLLED_BACK: Final = 1
_REFUSED: Final = 2
_BETWEEN: Final = 3
_POLL_S: Final = 0.5


def _say(text: str) -> None:
    if text:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def _stop(_number: int, _frame: FrameType | None) -> None:
    """Once: what was begun is taken back. The second time it ends at once."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise KeyboardInterrupt


def _origin(text: str) -> Origin:
    named = re.fullmatch(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})", text)
    if named is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not OWNER/REPOSITORY@COMMIT")
    return Origin(named[1], named[2])


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is no time to wait: seconds, more than 0")
    return seconds


def main() -> int:
    """Returns 0 deployed, 1 rolled back, 2 refused, 3 neither one set nor the other."""
    parser = argparse.ArgumentParser(
        prog=".ci/deploy",
        description=__doc__,
        epilog="Ends with 0 deployed, 1 rolled back, 2 refused, 3 between two sets. See docs/delivery.md.",
    )
    parser.add_argument(
        "manifests", type=Path, help="folder of .yaml, .yml and .json files; of its subfolders too"
    )
    parser.add_argument("--name", required=True, help="of the set; what is no longer in it is removed")
    parser.add_argument("--namespace", required=True, help="it has to be there")
    parser.add_argument(
        "--timeout", type=_seconds, default=600, help="seconds to come up (default: %(default)s)"
    )
    parser.add_argument(
        "--origin",
        type=_origin,
        metavar="OWNER/REPOSITORY@COMMIT",
        help="refuse images that images.yml did not make, sign and attest for this commit (by gh, cosign)",
    )
    parser.add_argument("--kubectl", default="kubectl", help="the program (default: %(default)s)")
    arguments = parser.parse_args()
    if shutil.which(arguments.kubectl) is None:
        parser.error(f"'{arguments.kubectl}' is not on the PATH: install kubectl")
    cluster = Kubectl(arguments.kubectl, arguments.namespace, arguments.timeout)
    deployment = Deployment(cluster, arguments.timeout, time.monotonic, lambda: time.sleep(_POLL_S), _say)
    signal.signal(signal.SIGTERM, _stop)
    try:
        wanted = read(arguments.manifests, arguments.name, arguments.namespace)
        if arguments.origin:
            arguments.origin.check(wanted.documents)
        deployment.deploy(wanted)
    except RefusedError as error:
        changed = f"only {', '.join(error.applied)}" if error.applied else "nothing"
        sys.stderr.write(f"deploy: refused, {changed} was applied:\n{error}\n")
        return _REFUSED
    except NotReadyError as error:
        sys.stderr.write(f"deploy: rolled back: {error}\n")
        return _ROLLED_BACK
    except KeyboardInterrupt:
        sys.stderr.write("deploy: rolled back: it was stopped\n")
        return _ROLLED_BACK
    except CommandError as error:
        sys.stderr.write(f"deploy: the cluster is between two sets, deploy again: {error}\n")
        return _BETWEEN
    _say(f"deploy: {arguments.namespace} has {wanted.revision} of {arguments.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
