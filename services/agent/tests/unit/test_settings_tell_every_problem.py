from __future__ import annotations

import pytest

from tlsy.agent.settings import SettingsError, load

GOOD = """
endpoints: {identity: "localhost:7000", ingestion: "localhost:7000"}
api_key_file: /etc/tlsy/agent.key
buffer: {directory: /var/lib/tlsy-agent}
"""


def problems(path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(path)
    return str(caught.value)


def test_three_members_are_enough(tmp_path):
    path = tmp_path / "agent.yaml"
    path.write_text(GOOD)
    settings = load(path)
    assert settings.interval_s == 10
    assert settings.source.startswith("agent/")


def test_every_problem_is_named_at_once(tmp_path):
    text = GOOD + "interval_s: 0\ntcp: [{name: x, host: h, port: 99999}]\nunknown: 1\n"
    told = problems(tmp_path / "agent.yaml", text)
    assert "3 problem(s)" in told
    assert all(member in told for member in ("interval_s", "tcp.0.port", "unknown"))


def test_two_probes_of_one_kind_have_two_names(tmp_path):
    probe = "{name: shop, host: h, port: 1}"
    text = GOOD + f"tcp: [{probe}, {probe}]\ntls: [{probe}]\n"
    told = problems(tmp_path / "agent.yaml", text)
    assert "1 problem(s)" in told
    assert "tcp.1.name: " in told


def test_no_probe_may_take_longer_than_the_time_between_two_readings(tmp_path):
    probes = (
        "tcp: [{name: a, host: h, port: 1, timeout_s: 5}, {name: b, host: h, port: 1, timeout_s: 5.1}]\n"
        "tls: [{name: c, host: h, timeout_s: 86400}]\n"
    )
    told = problems(tmp_path / "agent.yaml", GOOD + "interval_s: 5\nunknown: 1\n" + probes)
    assert "3 problem(s)" in told
    for late in ("tcp.1.timeout_s", "tls.0.timeout_s"):
        assert f"{late}: Value error, must be at most interval_s, which is 5" in told


def test_a_probe_that_is_wrong_hides_nothing_of_the_others(tmp_path):
    probes = (
        "tcp: [{name: a, host: h, port: 1}, {name: a, host: h, port: 99999},"
        " {name: b, host: h, port: 1, timeout_s: 11}]"
    )
    told = problems(tmp_path / "agent.yaml", GOOD + probes)
    assert "3 problem(s)" in told
    assert all(member in told for member in ("tcp.1.name", "tcp.1.port", "tcp.2.timeout_s"))


def test_a_probe_that_is_given_no_time_takes_no_longer_either(tmp_path):
    path = tmp_path / "agent.yaml"
    probes = (
        "tcp: [{name: a, host: h, port: 1}]\nhttp: [{name: b, url: 'http://h'}]\ntls: [{name: c, host: h}]\n"
    )
    path.write_text(GOOD + probes + "interval_s: 4\n")
    settings = load(path)
    (tcp,), (http,), (tls,) = settings.tcp, settings.http, settings.tls
    assert (tcp.timeout_s, http.timeout_s, tls.timeout_s) == (3, 4, 4)


@pytest.mark.parametrize("text", ["tcp: []\ntcp: []\n", "host: {cpu: true, cpu: false}\n"])
def test_a_member_that_is_there_twice_is_not_dropped(tmp_path, text):
    assert "is there twice" in problems(tmp_path / "agent.yaml", GOOD + text)


@pytest.mark.parametrize(
    "text", ["site: 2026-31-12", "labels: {built: 2026-02-30}", "site: 0x_", "a: !!bool x"]
)
def test_what_only_looks_like_a_date_or_a_number_is_told_by_its_line(tmp_path, text):
    told = problems(tmp_path / "agent.yaml", GOOD + text)
    assert "is not YAML" in told
    assert "line 5" in told


@pytest.mark.parametrize("held", [None, "no certificate"])
def test_a_file_of_authorities_that_has_none_is_named(tmp_path, held):
    ca_file = tmp_path / "ca.pem"
    if held is not None:
        ca_file.write_text(held)
    tls = f"tls: {{ca_file: {ca_file}}}"
    text = GOOD.replace("{identity", f"{{{tls}, identity")
    told = problems(
        tmp_path / "agent.yaml", text + f"http: [{{name: x, url: 'https://h', ca_file: {ca_file}}}]\n"
    )
    assert "2 problem(s)" in told
    assert all(f"{path}: " in told for path in ("endpoints.tls.ca_file", "http.0.ca_file"))
    assert str(ca_file) in told


@pytest.mark.parametrize(
    "probe", ["tcp: [{name: a, host: '', port: 1}]", "http: [{name: a, url: 'http://h', expect_status: []}]"]
)
def test_a_probe_that_can_only_be_down_is_refused(tmp_path, probe):
    assert "1 problem(s)" in problems(tmp_path / "agent.yaml", GOOD + probe)


@pytest.mark.parametrize("path", ["/var/lib/tlsy-agent", "/etc/tlsy/agent.key"])
@pytest.mark.parametrize("letter", ["\\0", "\\ud800"])
def test_what_can_be_the_path_of_no_file_is_refused(tmp_path, path, letter):
    assert "1 problem(s)" in problems(tmp_path / "agent.yaml", GOOD.replace(path, f'"/a{letter}"'))


@pytest.mark.parametrize("text", ["", "[", "- a", "a: &x [*x]", f"a: {'[' * 3_000}{']' * 3_000}"])
def test_what_is_no_configuration_is_refused(tmp_path, text):
    assert problems(tmp_path / "agent.yaml", text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match="no-such"):
        load(tmp_path / "no-such.yaml")
