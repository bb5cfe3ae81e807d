from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from tlsy.contracts.identity.v1 import identity_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="session")
OLD, NEW = "a long enough passphrase", "an even longer passphrase"


def set_password(suite, token: str, name: str, new: str = NEW, old: str = "") -> Any:
    request = pb.SetPasswordRequest(name=name, new_password=new, old_password=old)
    return suite.stub(token).SetPassword(request)


async def test_ones_own_password_takes_the_old_one_and_ends_ones_tokens(suite, refused, wait_until) -> None:
    ada = await suite.person("shared", "viewer")
    await set_password(suite, ada.token, ada.name, old=OLD)
    await suite.log_in("acme", ada.email, NEW)
    assert (await refused(suite.log_in("acme", ada.email, OLD))).reason == "CREDENTIALS_WRONG"

    async def ended() -> bool:
        error = await refused(set_password(suite, ada.token, ada.name, old="x", new="short"))
        return bool(error.reason == "TOKEN_REVOKED")

    await wait_until(ended, 60.0)


async def test_a_token_of_right_after_a_change_is_good(suite) -> None:
    ada = await suite.person("shared", "viewer")
    await set_password(suite, await suite.into("shared"), ada.name)
    token = await suite.log_in("acme", ada.email, NEW)
    await set_password(suite, token, ada.name, old=NEW, new="yet another passphrase")


async def test_the_longest_password_is_good_however_its_letters_are_typed(suite) -> None:
    ada = await suite.person("shared", "viewer")
    composed = "ᾂᾃᾄᾅᾆᾇᾒᾓ" * 128
    decomposed = unicodedata.normalize("NFD", composed)
    assert (len(composed), len(decomposed)) == (1024, 4096)
    await set_password(suite, await suite.into("shared"), ada.name, new=composed)
    token = await suite.log_in("acme", ada.email, decomposed)
    await set_password(suite, token, ada.name, old=decomposed, new=decomposed)
    await suite.log_in("acme", ada.email, composed)


async def test_a_wrong_old_password_counts_like_a_failed_log_in(suite, refused) -> None:
    ada = await suite.person("shared", "viewer")
    for _ in range(5):
        error = await refused(set_password(suite, ada.token, ada.name, old="not my old password"))
        assert error.reason == "OLD_PASSWORD_WRONG"
    await refused(set_password(suite, ada.token, ada.name, old=OLD))
    assert (await suite.audited("shared", "SetPassword"))[-1].outcome == "ACCOUNT_LOCKED"


async def test_an_administrator_sets_others_and_opens_a_lock(suite, refused) -> None:
    ada = await suite.person("shared", "viewer")
    for _ in range(6):
        await refused(suite.log_in("acme", ada.email, "wrong wrong wrong"))
    await set_password(suite, await suite.into("shared"), ada.name)
    await suite.log_in("acme", ada.email, NEW)


async def test_who_is_no_administrator_sets_nobody_elses(suite, refused) -> None:
    ada, bob = await suite.person("shared", "viewer"), await suite.person("shared", "viewer")
    error = await refused(set_password(suite, ada.token, bob.name, old=OLD))
    assert error.reason == "PERMISSION_MISSING"


async def test_every_problem_of_a_new_password_is_told_at_once(suite, refused) -> None:
    ada = await suite.person("shared", "viewer")
    error = await refused(set_password(suite, ada.token, ada.name, new="aaaa"))
    assert {(violation.field, violation.reason) for violation in error.violations} == {
        ("new_password", "PASSWORD_TOO_SHORT"),
        ("new_password", "PASSWORD_COMMON"),
        ("old_password", "OLD_PASSWORD_REQUIRED"),
    }
    is_email = await refused(set_password(suite, ada.token, ada.name, new=ada.email, old=OLD))
    assert [violation.reason for violation in is_email.violations] == ["PASSWORD_IS_EMAIL"]
