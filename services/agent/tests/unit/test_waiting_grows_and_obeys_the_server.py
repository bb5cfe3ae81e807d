from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tlsy.agent.domain.schedule import FIRST_WAIT_S, LONGEST_WAIT_S, wait_s


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_a_wait_is_bounded(failures, jitter):
    assert FIRST_WAIT_S / 2 <= wait_s(failures, None, jitter) <= LONGEST_WAIT_S


@given(st.integers(1, 50), st.floats(0, 1), st.floats(0, 3600))
def test_the_server_s_word_is_never_undercut(failures, jitter, retry_after_s):
    assert wait_s(failures, retry_after_s, jitter) >= retry_after_s


def test_it_doubles():
    assert [wait_s(n, None, 0) for n in (1, 2, 3, 4)] == [0.5, 1, 2, 4]
