from __future__ import annotations

import resource
import stat

from tlsy.rpc.keys import load_public_keys, load_signing_key


async def test_its_public_half_is_what_others_verify_with_and_it_is_made_once(tlsy, tmp_path):
    tlsy.config.unlink()
    file = tmp_path / "rules-engine.jwk"
    made = await tlsy("service-key", str(file), "-o", "json")
    key = load_signing_key(file.read_text())
    assert list(load_public_keys(made.out)) == [key.kid]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert '"d"' not in made.out
    again = await tlsy("service-key", str(file))
    assert (again.code, "does not exist yet" in again.err) == (2, True)
    assert load_signing_key(file.read_text()).kid == key.kid


async def test_none_is_told_that_the_disk_did_not_take(tlsy, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        result = await tlsy("service-key", str(tmp_path / "any.jwk"), "-o", "json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (result.code, result.out, (tmp_path / "any.jwk").exists()) == (2, "", False)
