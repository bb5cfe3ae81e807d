from __future__ import annotations

import pytest

from tlsy.ingestion.rpc.mapping import event_place, outcome_place
from tlsy.rpc.errors import InvalidArgument


@pytest.mark.parametrize("read", [event_place, outcome_place])
@pytest.mark.parametrize("cursor", [(10**30, "00"), (-(10**18), "00"), (1, "no hex")])
def test_a_place_that_there_cannot_be_is_refused(read, cursor):
    with pytest.raises(InvalidArgument) as caught:
        read(cursor)
    assert [v.reason for v in caught.value.violations] == ["PAGE_TOKEN_MISMATCH"]
