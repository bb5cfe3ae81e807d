from __future__ import annotations

import asyncio
import io
import json
import logging
import time
from types import MappingProxyType

import pytest

from tlsy.runtime.logging import configure_logging, get_logger, reset_log_fields, set_log_fields
from tlsy.testkit.logs import recorded_logs


def test_a_line_is_one_json_object(log_lines):
    get_logger("shop").info("sold", count=2)
    (line,) = log_lines
    assert (line["event"], line["component"], line["count"], line["level"]) == ("sold", "shop", 2, "info")
    assert line["time"].endswith("Z")


def test_a_line_break_stays_inside_its_line(log_lines):
    get_logger("shop").info('sold\n{"event": "forged"}')
    assert len(list(log_lines)) == 1


def test_the_calls_fields_are_on_every_line(log_lines):
    before = set_log_fields({"tenant": "acme", "request_id": "r"})
    get_logger("shop").info("sold")
    logging.getLogger("a.library").warning("careful")
    reset_log_fields(before)
    get_logger("shop").info("closed")
    assert [line.get("tenant") for line in log_lines] == ["acme", "acme", None]


async def test_fields_of_one_task_are_not_anothers(log_lines):
    async def sell(tenant: str) -> None:
        set_log_fields({"tenant": tenant})
        await asyncio.sleep(0)
        get_logger("shop").info(tenant)

    await asyncio.gather(sell("a"), sell("b"))
    assert all(line["tenant"] == line["event"] for line in log_lines)


@pytest.mark.parametrize(
    "key",
    [
        "authorization",
        "Authorization",
        "new_password",
        "client-secret",
        "api_key",
        "X-API-Key",
        "access_token",
        "private_key",
        "Set-Cookie",
    ],
)
def test_what_is_named_like_a_secret_is_taken_out(log_lines, key):
    get_logger("shop").info("sold", **{key: "hunter2"}, inside={"deep": [{key: "hunter2"}]})
    assert "hunter2" not in log_lines.text


def test_credentials_inside_texts_are_taken_out(log_lines):
    token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"
    key = "tlsy_" + "a" * 32 + "_" + "b" * 32 + "_Zm9v-YmFy"
    get_logger("shop").info(f"got {token} and {key}", list=[f"Bearer {token}", f"jwt-{token}"])
    logging.getLogger("a.library").warning("%s", token)
    written = log_lines.text
    assert token not in written
    assert "Zm9v" not in written


class Token:
    def __str__(self) -> str:
        return "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"


@pytest.mark.parametrize(
    "value",
    [Token(), str(Token()).encode(), {str(Token())}, MappingProxyType({"password": "c2ln"}), [Token()]],
)
@pytest.mark.parametrize("text", [True, False])
def test_what_is_no_text_is_told_without_secrets_too(value, text):
    with recorded_logs(text=text) as lines:
        get_logger("shop").info("sold", what=value, count=2, ratio=0.5, open=True, none=None)
    assert "c2ln" not in lines.text
    if not text:
        (sold,) = lines
        assert (sold["count"], sold["ratio"], sold["open"], sold["none"]) == (2, 0.5, True, None)


@pytest.mark.parametrize("text", [True, False])
def test_a_text_that_no_output_can_take_is_logged_as_far_as_it_can(text):
    """Half a character, as JSON and names of files may hold."""
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with recorded_logs():
        configure_logging(text=text, stream=output)
        get_logger("shop").error("sold \ud800", by="\udcff")
    output.seek(0)
    written = output.read()
    assert r"sold \ud800" in written
    assert r"\udcff" in written


class Wordless:
    def __str__(self) -> str:
        raise RuntimeError("no words")


def nested(depth):
    inside: object = ["deep inside"]
    for _ in range(depth):
        inside = [inside]
    return inside


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize(
    ("value", "told"),
    [
        (float("nan"), "nan"),
        ({"ratio": float("-inf")}, "-inf"),
        (10**5_000, "a value without a text (int)"),
        (Wordless(), "a value without a text (Wordless)"),
        (nested(5), "deep inside"),
        (nested(5_000), "[cut]"),
        (["a" * 10_000] * 1_000, "[cut]"),
        (dict.fromkeys(range(100_000), "a"), "[cut]"),
    ],
    ids=["nan", "inf", "int", "wordless", "inside", "deep", "long", "wide"],
)
def test_whatever_is_logged_a_line_is_written_and_nothing_raised(value, told, text):
    with recorded_logs(text=text) as lines:
        get_logger("shop").info("sold", what=value)
    assert told in lines.text
    assert len(lines.text) < 1_000_000
    if not text:
        json.loads(lines.text, parse_constant=pytest.fail)


@pytest.mark.parametrize("end", ["", ".", ". "])
def test_what_only_begins_like_a_credential_again_and_again_holds_nobody_up(log_lines, end):
    begun = time.process_time()
    get_logger("shop").warning("refused", name="eyJ" * 21_000 + end)
    assert time.process_time() - begun < 0.5
    assert len(log_lines.text) < 10_000


def test_a_stack_is_in_the_line_without_credentials(log_lines):
    try:
        int("eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln")
    except ValueError:
        get_logger("shop").exception("broken")
    (line,) = log_lines
    assert "ValueError" in line["exception"]
    assert "eyJ" not in line["exception"]


def test_of_a_stack_that_is_too_long_its_end_is_told_which_says_what_broke(log_lines):
    row = "ada@example.org " * 1000
    error = RuntimeError(f"roof fell\nDETAIL: {row}\n\n{row}\nHINT: Mend it.")
    error.__cause__ = KeyError("x" * 20_000)
    get_logger("shop").error("broken", exc_info=error)
    (line,) = log_lines
    assert line["exception"].startswith("KeyError")
    assert "RuntimeError: roof fell" in line["exception"]
    assert "ada@" not in line["exception"]
    assert len(line["exception"]) < 10_000


def test_debug_is_left_out_unless_asked_for(log_lines):
    get_logger("shop").debug("detail")
    assert log_lines.text == ""


def test_a_database_error_is_in_the_line_without_the_row_it_tells(log_lines):
    told = "violates a check\nDETAIL:  Failing row contains (ada@example.org,\n\nAda).\nHINT:  Mend it."
    later = KeyError("later")
    later.__cause__ = ValueError(told)
    group = ExceptionGroup("all", [ValueError(told), later])
    get_logger("shop").error(told, exc_info=later, error=ValueError(told), all=[told])
    logging.getLogger("a.library").warning("%s", told, exc_info=group)
    written = log_lines.text
    assert "ada@" not in written
    assert "Ada" not in written
    assert (written.count("HINT"), written.count("later")) == (7, 2)


def test_a_person_reads_a_line_without_credentials_that_leaves_the_terminal_alone():
    with recorded_logs(text=True) as lines:
        get_logger("shop").info("sold\n12:00:00 forged", count=2, password="hunter2", by="\x1b[2Jada")
        logging.getLogger("a.library").warning("careful\r%s", "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln")
    sold, careful = lines.text.splitlines()
    assert "count=2" in sold
    assert "hunter2" not in sold
    assert "careful" in careful
    assert "eyJ" not in careful
    assert "\x1b" not in lines.text
    assert "\r" not in lines.text


def test_a_person_reads_a_stack_as_its_lines():
    with recorded_logs(text=True) as lines:
        try:
            int("\x1b[2J eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln")
        except ValueError:
            get_logger("shop").exception("broken")
    assert "\nTraceback (most recent call last):\n" in lines.text
    assert "eyJ" not in lines.text
    assert "\x1b" not in lines.text


def test_what_a_test_configures_ends_with_it(log_lines):
    with recorded_logs(level="debug") as inside:
        get_logger("shop").debug("detail")
    get_logger("shop").debug("detail")
    get_logger("shop").info("sold")
    logging.getLogger("a.library").warning("careful")
    assert [line["event"] for line in inside] == ["detail"]
    assert [line["event"] for line in log_lines] == ["sold", "careful"]
