from __future__ import annotations

from contextlib import nullcontext

import pytest

from tlsy.runtime.brokers import Brokers, FileUnusable
from tlsy.runtime.environment import HostSettings, read_brokers
from tlsy.runtime.settings import SettingsInvalid, load
from tlsy.testkit.certificates import Authority

SERVERS = ("kafka-1:9093", "kafka-2:9093")


@pytest.fixture
def files(tmp_path):
    """Settings that are right, to take some of."""
    issued = Authority(tmp_path, "ours").issue("client")
    (tmp_path / "password").write_text("opens it\n")
    return {
        "brokers_ca_file": issued.ca_file,
        "brokers_cert_file": issued.cert_file,
        "brokers_key_file": issued.key_file,
        "brokers_user": "tlsy",
        "brokers_password_file": tmp_path / "password",
    }


@pytest.fixture
def settings(tmp_path):
    def make(**given):
        required = {"brokers": SERVERS, "service_key_file": tmp_path, "trust_dir": tmp_path}
        return load(HostSettings, **(required | given))

    return make


def test_without_more_they_are_spoken_to_in_clear(settings):
    assert read_brokers(settings(clear_text=True)).arguments() == {
        "bootstrap_servers": "kafka-1:9093,kafka-2:9093"
    }


def test_with_an_authority_by_tls_and_with_a_user_by_password(settings, files):
    plain = read_brokers(settings(brokers_ca_file=files["brokers_ca_file"])).arguments()
    assert (plain["security_protocol"], plain["ssl_context"].check_hostname) == ("SSL", True)
    known = read_brokers(settings(**files)).arguments()
    assert (known["security_protocol"], known["sasl_mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")
    assert (known["sasl_plain_username"], known["sasl_plain_password"]) == ("tlsy", "opens it")


def test_files_are_read_whenever_they_are_asked_for_and_are_in_no_text(settings, files):
    brokers = read_brokers(settings(**files))
    before = brokers.written()
    assert brokers.written() == before
    files["brokers_password_file"].write_text("another")
    assert brokers.arguments()["sasl_plain_password"] == "another"
    assert brokers.written() != before
    assert "another" not in repr(brokers)
    files["brokers_password_file"].unlink()
    with pytest.raises(FileUnusable, match="password cannot be read"):
        brokers.arguments()


@pytest.mark.parametrize(
    ("text", "password"),
    [(b" a b\t", " a b\t"), (b" a \n", " a "), (b"a \r\n", "a "), (b"a\n\n", "a\n"), (b" ", " ")],
)
def test_of_a_password_file_only_the_end_of_its_line_is_left_out(settings, files, text, password):
    files["brokers_password_file"].write_bytes(text)
    assert read_brokers(settings(**files)).arguments()["sasl_plain_password"] == password


@pytest.mark.parametrize(
    ("left_out", "told"),
    [
        ("brokers_ca_file", "TLSY_BROKERS_CA_FILE is needed"),
        ("brokers_cert_file", "TLSY_BROKERS_CERT_FILE and TLSY_BROKERS_KEY_FILE go together"),
        ("brokers_key_file", "TLSY_BROKERS_CERT_FILE and TLSY_BROKERS_KEY_FILE go together"),
        ("brokers_user", "TLSY_BROKERS_USER and TLSY_BROKERS_PASSWORD_FILE go together"),
        ("brokers_password_file", "TLSY_BROKERS_USER and TLSY_BROKERS_PASSWORD_FILE go together"),
    ],
)
def test_half_of_it_is_refused(settings, files, left_out, told):
    del files[left_out]
    with pytest.raises(SettingsInvalid, match=told):
        settings(**files)


@pytest.mark.parametrize(
    ("brokers", "given", "fits"),
    [
        (["127.0.0.1:9092", "localhost:9093", "[::1]:9094", "localhost"], {}, True),
        (["127.0.0.1:9092", "kafka:9092"], {}, False),
        (["kafka:9092"], {"clear_text": True}, True),
    ],
)
def test_nothing_is_said_in_clear_beyond_this_machine(settings, brokers, given, fits):
    with nullcontext() if fits else pytest.raises(SettingsInvalid, match="TLSY_BROKERS beyond this machine"):
        settings(brokers=brokers, **given)


def test_every_file_that_is_no_good_is_told_at_once_and_nothing_that_is_in_one(settings, files, tmp_path):
    files["brokers_ca_file"].write_text("opens nothing")
    files["brokers_key_file"].write_text("opens nothing")
    files["brokers_password_file"].write_text("\n")
    with pytest.raises(SettingsInvalid) as raised:
        settings(**files, listen="0.0.0.0:7000")
    for told in (
        f"TLSY_BROKERS_CA_FILE: {tmp_path}/ours.pem has no certificates",
        "TLSY_BROKERS_CERT_FILE and TLSY_BROKERS_KEY_FILE:",
        f"TLSY_BROKERS_PASSWORD_FILE: {tmp_path}/password is empty",
        "TLSY_LISTEN beyond this machine",
    ):
        assert told in str(raised.value)
    assert "opens nothing" not in str(raised.value)


@pytest.mark.parametrize("name", ["brokers_ca_file", "brokers_cert_file", "brokers_password_file"])
def test_a_file_that_is_not_there_is_told(settings, files, name, tmp_path):
    with pytest.raises(SettingsInvalid, match=r"gone.*: no such file"):
        settings(**(files | {name: tmp_path / "gone"}))


def test_a_key_of_another_certificate_is_told(settings, files, tmp_path):
    other = Authority(tmp_path, "theirs").issue("other")
    with pytest.raises(SettingsInvalid, match="key values mismatch"):
        settings(**(files | {"brokers_key_file": other.key_file}))


def test_what_openssl_has_no_word_for_is_told(settings, files):
    files["brokers_cert_file"].write_text("")
    with pytest.raises(SettingsInvalid, match="no certificate and its key: not in PEM, broken, or encrypted"):
        settings(**files)


def test_an_address_may_say_it_all(files):
    address = f"kafka:9093?ca_file={files['brokers_ca_file']}&user=tlsy"
    made = Brokers.parse(f"{address}&password_file={files['brokers_password_file']}")
    assert (made.servers, made.user, made.ca_file) == ("kafka:9093", "tlsy", files["brokers_ca_file"])
    assert Brokers.parse("kafka:9092") == Brokers("kafka:9092")
    with pytest.raises(ValueError, match="password is not known here; user and password_file go together"):
        Brokers.parse(f"{address}&password=secret")
