from __future__ import annotations

import re

import pytest
from google.longrunning import operations_pb2

from tlsy.contracts.tenant_registry.v1 import tenant_pb2, tenant_registry_pb2
from tlsy.rpc.errors import AlreadyExists, InvalidArgument, NotFound, Unauthenticated, Violation

DOCUMENTS = """
apiVersion: tls-y.io/v1
kind: Tenant
metadata: {name: child}
spec: {displayName: Child, country: fr, parent: firm, isolationMode: SCHEMA}
---
apiVersion: tls-y.io/v1
kind: Tenant
metadata: {name: firm}
spec: {displayName: Firm, country: fr, tier: starter, modules: [supervision, expert-rules]}
---
apiVersion: tls-y.io/v1
kind: Country
metadata: {name: fr}
spec: {displayName: France, allowedClusterCountries: [fr]}
"""


class Registry:
    """Keeps what is created and updated; a tenant takes one wait to become active."""

    def __init__(self, stand_in):
        self.tenants, self.countries = {}, {}
        for name in ("ListTenants", "ListCountries", "CreateTenant", "CreateCountry", "WaitOperation"):
            stand_in.answers[name] = getattr(self, name)
        stand_in.answers |= {"UpdateTenant": self.UpdateTenant, "ListModules": self.ListModules}

    def ListTenants(self, request):  # noqa: N802  the proto's
        return tenant_registry_pb2.ListTenantsResponse(tenants=self.tenants.values())

    def ListCountries(self, request):  # noqa: N802  the proto's
        return tenant_registry_pb2.ListCountriesResponse(countries=self.countries.values())

    def CreateCountry(self, request):  # noqa: N802  the proto's
        self.countries[request.country.name] = request.country
        return request.country

    def CreateTenant(self, request):  # noqa: N802  the proto's
        tenant = tenant_pb2.Tenant()
        tenant.CopyFrom(request.tenant)
        tenant.name = f"tenants/{request.tenant_slug}"
        if not request.validate_only:
            self.tenants[tenant.name] = tenant
        return operations_pb2.Operation(name=f"operations/{request.tenant_slug}", done=request.validate_only)

    def WaitOperation(self, request):  # noqa: N802  the proto's
        return operations_pb2.Operation(name=request.name, done=True)

    def UpdateTenant(self, request):  # noqa: N802  the proto's
        tenant = self.tenants[request.tenant.name]
        for field in request.update_mask.paths:
            setattr(tenant, field, getattr(request.tenant, field))
        return tenant

    def ListModules(self, request):  # noqa: N802  the proto's
        module = tenant_pb2.Module(name=f"{request.parent}/modules/expert-rules", requires=["supervision"])
        return tenant_registry_pb2.ListModulesResponse(modules=[module])


@pytest.fixture
def registry(stand_in):
    return Registry(stand_in)


@pytest.fixture
def apply(tlsy, tmp_path):
    async def run(text, *options):
        (tmp_path / "d.yaml").write_text(text)
        return await tlsy("apply", "-f", str(tmp_path / "d.yaml"), "-o", "json", *options)

    return run


def done(result):
    return [(row["name"], row["done"], row["what"]) for row in result.json]


async def test_countries_come_first_and_parents_before_their_children(apply, registry, stand_in):
    result = await apply(DOCUMENTS)
    assert result.code == 0
    assert done(result) == [
        ("countries/fr", "CREATED", ""),
        ("tenants/firm", "CREATED", ""),
        ("tenants/child", "CREATED", ""),
    ]
    assert stand_in.methods().count("WaitOperation") == 2


async def test_the_second_time_nothing_is_asked_for(apply, registry, stand_in):
    await apply(DOCUMENTS)
    stand_in.asked.clear()
    assert {outcome for _, outcome, _ in done(await apply(DOCUMENTS))} == {"UNCHANGED"}
    assert set(stand_in.methods()) == {"ListTenants", "ListCountries"}


async def test_a_dry_run_changes_nothing(apply, registry, stand_in):
    result = await apply(DOCUMENTS, "--dry-run")
    assert (registry.tenants, registry.countries) == ({}, {})
    assert [row["dryRun"] for row in result.json] == [True] * 3
    assert "CreateTenant" not in stand_in.methods()


async def test_a_dry_run_lets_the_server_check_what_stands_on_what_is_there(apply, registry, stand_in):
    registry.countries["countries/fr"] = tenant_pb2.Country(
        name="countries/fr", display_name="France", allowed_cluster_countries=["countries/fr"]
    )
    await apply(DOCUMENTS, "--dry-run")
    asked = stand_in.only("CreateTenant").request
    assert (asked.tenant_slug, asked.validate_only) == ("firm", True)


async def test_only_what_differs_is_updated(apply, registry, stand_in):
    await apply(DOCUMENTS)
    result = await apply(DOCUMENTS.replace("Firm", "Firm & Co").replace("starter", "business"))
    assert done(result)[1] == ("tenants/firm", "UPDATED", "display_name, tier")
    assert list(stand_in.only("UpdateTenant").request.update_mask.paths) == ["display_name", "tier"]


async def test_modules_go_on_after_those_that_they_require(apply, registry, stand_in):
    await apply(DOCUMENTS)
    registry.tenants["tenants/firm"].modules[:] = ["billing"]
    await apply(DOCUMENTS)
    asked = [each.request for each in stand_in.asked if each.method == "SetModule"]
    assert [(each.name.rsplit("/", 1)[-1], each.enabled) for each in asked] == [
        ("billing", False),
        ("supervision", True),
        ("expert-rules", True),
    ]


async def test_what_cannot_be_changed_is_refused_by_name_and_the_rest_is_done(apply, registry):
    await apply(DOCUMENTS)
    result = await apply(DOCUMENTS.replace("SCHEMA", "DEDICATED").replace("Firm", "Other"))
    assert result.code == 1
    assert done(result)[1:] == [
        ("tenants/firm", "UPDATED", "display_name"),
        ("tenants/child", "REFUSED", "cannot be changed: isolation_mode"),
    ]
    assert "isolation_mode" in result.err


async def test_a_creation_that_fails_is_told(apply, registry, stand_in):
    failed = operations_pb2.Operation(name="operations/firm", done=True)
    failed.error.message = "no cluster has room"
    failed.metadata.Pack(tenant_registry_pb2.OperationMetadata(target="tenants/firm", verb="create"))
    stand_in.answers["WaitOperation"] = failed
    result = await apply(DOCUMENTS)
    assert result.code == 1
    assert [(name, outcome) for name, outcome, _ in done(result)][1:] == [
        ("tenants/firm", "FAILED"),
        ("tenants/child", "FAILED"),
    ]
    assert "no cluster has room" in result.err
    assert "tlsy tenants resume firm" in result.err


@pytest.mark.parametrize(
    ("state", "done_", "what"),
    [("FAILED", "FAILED", "MIGRATION_FAILED"), ("DELETING", "REFUSED", "is being deleted")],
)
async def test_a_tenant_that_is_not_there_is_not_called_unchanged(apply, registry, state, done_, what):
    await apply(DOCUMENTS)
    firm = registry.tenants["tenants/firm"]
    firm.state, firm.state_reason = f"TENANT_STATE_{state}", "MIGRATION_FAILED"
    result = await apply(DOCUMENTS)
    assert (result.code, done(result)[1]) == (1, ("tenants/firm", done_, what))
    assert f"Tenant tenants/firm: {what}" in result.err


async def test_a_tenant_that_is_still_being_made_is_waited_for_and_then_told(apply, registry, stand_in):
    await apply(DOCUMENTS)
    firm = registry.tenants["tenants/firm"]
    firm.state = tenant_pb2.TENANT_STATE_PROVISIONING
    stand_in.answers["GetTenant"] = tenant_pb2.Tenant(
        name=firm.name, state=tenant_pb2.TENANT_STATE_FAILED, state_reason="TIMED_OUT"
    )
    result = await apply(DOCUMENTS)
    assert (result.code, done(result)[1]) == (1, ("tenants/firm", "FAILED", "TIMED_OUT"))


async def test_a_countrys_policy_is_changed_and_what_is_left_out_stays(apply, registry, stand_in):
    await apply(DOCUMENTS)
    registry.countries["countries/fr"].etag = "e1"
    result = await apply(DOCUMENTS.replace("[fr]", "[fr, de]").replace("displayName: France, ", ""))
    assert done(result)[0] == ("countries/fr", "UPDATED", "allowed_cluster_countries")
    asked = stand_in.only("UpdateCountry").request
    assert list(asked.update_mask.paths) == ["allowed_cluster_countries"]
    assert list(asked.country.allowed_cluster_countries) == ["countries/fr", "countries/de"]
    assert asked.country.etag == "e1"


@pytest.mark.parametrize(
    "text",
    ["a: 2026-13-45", "a: !!bool x", "a: !!timestamp x", "[" * 5000, "a: [", f"a: {'9' * 5000}"],
    ids=["a 13th month", "no bool", "no time", "too deep", "not ended", "too large"],
)
async def test_what_is_no_yaml_is_told_with_its_file(apply, tmp_path, text):
    result = await apply(text)
    assert (result.code, result.out) == (2, "")
    assert f"\n  {tmp_path}/d.yaml:1: is not YAML: " in result.err


async def test_all_files_that_are_no_yaml_are_told_with_what_is_wrong_in_the_others(tlsy, stand_in, tmp_path):
    folder, missing = tmp_path / "d", tmp_path / "missing.yaml"
    folder.mkdir()
    for name, text in (("a", "a: b: c"), ("b", "\n\n- [1"), ("c", f"---\n---\n{{}}\n---\n{DOCUMENTS}")):
        (folder / f"{name}.yaml").write_text(text.replace("SCHEMA", "SHARD"))
    result = await tlsy("apply", "-f", str(missing), str(folder))
    assert (result.code, stand_in.asked) == (2, [])
    assert "error: The documents have 5 problem(s); nothing was applied." in result.err
    assert f"\n  {missing} cannot be read: No such file or directory.\n" in result.err
    places = re.findall(rf"\n  {folder}/(\S+): ", result.err)
    assert places == ["a.yaml:1", "b.yaml:3", "c.yaml:3", "c.yaml:6"]


async def test_a_key_that_is_there_twice_is_told_with_both_its_lines(apply, tmp_path, stand_in):
    twice = "a: &a {x: 1}\nb: {<<: *a, x: 2}\nspec:\n  country: fr\n  tier: starter\n  country: sn\n"
    result = await apply(f"{twice}---\na: 1\nb: {{z: 1, z: 2}}\n")
    assert (result.code, stand_in.asked) == (2, [])
    assert f"\n  {tmp_path}/d.yaml:6: 'country' is there since line 4\n" in result.err
    assert f"\n  {tmp_path}/d.yaml:9: 'z' is there since line 9\n" in result.err
    assert "'x'" not in result.err


async def test_half_a_character_is_told(apply, stand_in):
    result = await apply(DOCUMENTS.replace("Firm", '"\\ud800"'))
    assert (result.code, stand_in.asked) == (2, [])
    assert "'\\ud800' is no text" in result.err


async def test_wrong_documents_are_told_all_at_once_and_nothing_is_applied(apply, stand_in):
    result = await apply(DOCUMENTS.replace("SCHEMA", "SHARD").replace("starter", "gold"))
    assert (result.code, stand_in.asked) == (2, [])
    assert "'SHARD' is none of SHARED, SCHEMA, DEDICATED" in result.err
    assert "'gold' is none of STARTER, BUSINESS, ENTERPRISE" in result.err


def refusing(answer, name, reason):
    """Answers a creation as `answer` does; that of one tenant is refused."""

    def create(request):
        if request.tenant_slug == name:
            return InvalidArgument(
                "REQUEST_INVALID",
                "The request is not valid.",
                violations=[Violation("tenant.time_zone", reason, "must be one")],
            )
        return answer(request)

    return create


async def test_what_the_server_refuses_is_told_by_its_document_and_the_rest_is_done(
    apply, registry, stand_in
):
    stand_in.answers["CreateTenant"] = refusing(registry.CreateTenant, "firm", "TIME_ZONE_UNKNOWN")
    stand_in.answers["CreateCountry"] = AlreadyExists("COUNTRY_EXISTS", "There is one.")
    result = await apply(DOCUMENTS)
    assert result.code == 1
    assert [(name, outcome) for name, outcome, _ in done(result)] == [
        ("countries/fr", "REFUSED"),
        ("tenants/firm", "REFUSED"),
        ("tenants/child", "CREATED"),
    ]
    assert "Country countries/fr: There is one. (COUNTRY_EXISTS)" in result.err
    assert "tenant.time_zone: TIME_ZONE_UNKNOWN: must be one" in result.err
    assert "Correct what is named" in result.err


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [
        (NotFound("MODULE_UNKNOWN", "No."), 1, ("REFUSED", "No. (MODULE_UNKNOWN); but changed: ")),
        (Unauthenticated("TOKEN_EXPIRED", "It is over."), 4, ("UPDATED", "")),
    ],
    ids=["refused", "ended"],
)
async def test_what_was_changed_of_a_document_before_its_next_change_failed_is_shown(
    apply, registry, stand_in, answer, code, told
):
    def switch(request):
        return answer if request.name.endswith("expert-rules") else tenant_pb2.Module(name=request.name)

    await apply(DOCUMENTS)
    registry.tenants["tenants/firm"].modules[:] = ["billing"]
    stand_in.answers["SetModule"] = switch
    result = await apply(DOCUMENTS.replace("Firm", "Firm & Co"))
    assert result.code == code
    outcome, what = told
    assert done(result)[1] == ("tenants/firm", outcome, f"{what}display_name, -billing, +supervision")


async def test_a_server_that_goes_away_ends_it_and_what_was_done_is_shown(apply, registry, stand_in):
    def create(request):
        if request.tenant_slug == "child":
            return Unauthenticated("TOKEN_EXPIRED", "It is over.")
        return registry.CreateTenant(request)

    stand_in.answers["CreateTenant"] = create
    result = await apply(DOCUMENTS)
    assert result.code == 4
    assert [(name, outcome) for name, outcome, _ in done(result)] == [
        ("countries/fr", "CREATED"),
        ("tenants/firm", "CREATED"),
    ]
