from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from tlsy.identity.domain.ids import UserId
from tlsy.identity.domain.lockout import Attempts
from tlsy.identity.domain.users import User, UserChange, profile_problems, updated

USER = User(
    id=UserId(UUID(int=1)),
    email="canary@example.org",
    display_name="Canary Name",
    locale="fr-FR",
    disabled=False,
    password_hash="$argon2id$canary",
    attempts=Attempts(),
    create_time=datetime(2026, 1, 1, tzinfo=UTC),
    last_log_in_time=None,
    version=1,
)
CHANGE = UserChange(display_name="New", disabled=True, locale="en-GB")


def test_an_update_changes_what_its_mask_names_and_the_version() -> None:
    changed = updated(USER, CHANGE, ["disabled"])
    assert (changed.display_name, changed.disabled, changed.locale) == ("Canary Name", True, "fr-FR")
    assert changed.version == USER.version + 1


def test_every_bad_profile_field_is_reported_at_once() -> None:
    reasons = {problem.reason for problem in profile_problems("user.", "x\0" * 101, "not a locale")}
    assert reasons == {"DISPLAY_NAME_TOO_LONG", "DISPLAY_NAME_UNPRINTABLE", "LOCALE_MALFORMED"}


def test_a_user_printed_shows_no_personal_data_and_no_hash() -> None:
    assert "canary" not in repr(USER).casefold()
