from __future__ import annotations

from pydantic import SecretStr

from tlsy.embedded.adapters.data_directory import DataDirectory
from tlsy.embedded.adapters.welcome import ready_text
from tlsy.embedded.settings import EmbeddedSettings


def test_an_administrator_logs_in_by_its_own_context_whichever_is_in_use(tmp_path):
    settings = EmbeddedSettings(admin_email="root@example.org", admin_password=SecretStr("correct horse"))
    told = ready_text(DataDirectory(tmp_path), ["127.0.0.1:9092"], settings)
    add = f"tlsy context add me --from {tmp_path}/context.yaml --user root@example.org"
    assert f"{add} && tlsy --context me login\n" in told
    assert "correct horse" not in told
