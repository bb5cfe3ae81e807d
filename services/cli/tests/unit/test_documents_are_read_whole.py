from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tlsy.cli.domain.errors import UsageError
from tlsy.cli.domain.manifests import changes, module_order, read
from tlsy.contracts.tenant_registry.v1 import tenant_pb2

EXAMPLES = Path(__file__).parents[4] / "examples" / "tenants"


def documents(text):
    return [("file#1", document) for document in yaml.safe_load_all(text)]


def tenant(name, **spec):
    return {
        "apiVersion": "tls-y.io/v1",
        "kind": "Tenant",
        "metadata": {"name": name},
        "spec": {"displayName": name, "country": "fr", **spec},
    }


def problems(*given):
    with pytest.raises(UsageError) as caught:
        read([("f", each) for each in given], [])
    return caught.value.details


def test_the_projects_own_examples_are_read():
    found = read(
        (
            (path.name, document)
            for path in sorted(EXAMPLES.glob("*.yaml"))
            for document in yaml.safe_load_all(path.read_text())
        ),
        [],
    )
    assert [country.name for country in found.countries] == ["countries/fr", "countries/sn"]
    by_profile = {each.sector_profile: each for each in found.tenants}
    ministry = by_profile[tenant_pb2.SECTOR_PROFILE_GOVERNMENT]
    assert ministry.provider_access == tenant_pb2.PROVIDER_ACCESS_ONBOARDING
    assert ministry.isolation_mode == tenant_pb2.ISOLATION_MODE_DEDICATED
    assert any(each.parent for each in found.tenants)


def test_a_tenant_has_every_member():
    (found,) = read(
        [("f", tenant("a", hostNames=["a.fr"], modules=["billing"], entitlements={"x": 1}, cluster="c"))],
        [],
    ).tenants
    assert (list(found.host_names), list(found.modules)) == (["a.fr"], ["billing"])
    assert (dict(found.entitlement_overrides), found.cluster) == ({"x": 1}, "clusters/c")


def test_every_problem_is_told_with_its_place():
    assert problems(
        tenant("a", tier="gold", color="red"),
        tenant("b", modules="billing", entitlements={"x": "many"}),
        {"kind": "Tenant"},
        "text",
    ) == (
        "f: Tenant a: spec.color: unknown member",
        "f: Tenant a: spec.tier: 'gold' is none of STARTER, BUSINESS, ENTERPRISE",
        "f: Tenant b: spec.modules: must be a list of texts; put each in quotes",
        "f: Tenant b: spec.entitlements: must map keys to whole numbers",
        "f: apiVersion must be tls-y.io/v1 and kind Country or Tenant",
        "f: a document is a mapping",
    )


def test_a_number_that_no_entitlement_can_have_is_told():
    assert problems(tenant("a", entitlements={"x": 2**63})) == (
        "f: Tenant a: spec.entitlements: must map keys to whole numbers",
    )


def test_norway_is_not_false():
    (document,) = documents(
        "{apiVersion: tls-y.io/v1, kind: Tenant, metadata: {name: a}, spec: {displayName: A, country: no}}"
    )
    assert problems(document[1]) == ("f: Tenant a: spec.country: must be a text; put it in quotes",)


def test_a_name_that_is_there_twice_is_told():
    assert problems(tenant("a"), tenant("a")) == ("f: Tenant a: is there twice",)


def test_a_cycle_of_parents_is_told():
    assert problems(tenant("a", parent="b"), tenant("b", parent="a")) == ("parents form a cycle: a, b",)


def test_empty_documents_are_skipped():
    assert read(documents("---\n---\n"), []).tenants == ()


def test_what_a_document_leaves_out_is_left_as_it_is():
    wanted = tenant_pb2.Tenant(name="tenants/a", display_name="A")
    found = tenant_pb2.Tenant(
        name="tenants/a", display_name="A", locale="fr", modules=["billing"], entitlement_overrides={"x": 1}
    )
    assert not changes(wanted, found)


def test_differences_are_told_by_how_they_are_changed():
    wanted = tenant_pb2.Tenant(
        display_name="B", country="countries/sn", modules=["a", "b"], entitlement_overrides={"x": 2, "y": 1}
    )
    found = tenant_pb2.Tenant(
        display_name="A", country="countries/fr", modules=["b", "c"], entitlement_overrides={"x": 1, "y": 1}
    )
    differing = changes(wanted, found)
    assert (differing.mask, differing.fixed) == (("display_name",), ("country",))
    assert differing.modules == (("a", True), ("c", False))
    assert differing.entitlements == {"x": 2}


def test_modules_go_off_before_and_on_after_those_that_they_require():
    requires = {"c": ("b",), "b": ("a",), "z": ("y",)}
    asked = [("c", True), ("a", True), ("b", True), ("y", False), ("z", False)]
    assert [name for name, _ in module_order(asked, requires)] == ["z", "y", "a", "b", "c"]
