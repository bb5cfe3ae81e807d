from __future__ import annotations

import json

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass

from tlsy.cli.adapters.session import DESCRIPTORS

HOME = "tenants/home"
ID = "0192f0c1-2b3c-7d4e-8f50-617283940a1b"
RULE = '{"name": "hot", "match": {}}'
RULE_BASE64 = "eyJuYW1lIjogImhvdCIsICJtYXRjaCI6IHt9fQ=="

#: command line, method, request as JSON (request_id aside), standard input
CASES = [
    ("tenants list --country FR --state active --isolation schema", "ListTenants",
     {"pageSize": 1000, "filter": {"country": "countries/fr", "states": ["TENANT_STATE_ACTIVE"],
                                   "isolationModes": ["ISOLATION_MODE_SCHEMA"]}}),
    ("tenants get acme", "GetTenant", {"name": "tenants/acme"}),
    ("tenants create acme --display-name Acme --country fr --tier starter --no-wait", "CreateTenant",
     {"tenantSlug": "acme",
      "tenant": {"displayName": "Acme", "country": "countries/fr", "tier": "TIER_STARTER"}}),
    ("tenants update acme --locale fr-FR", "UpdateTenant",
     {"tenant": {"name": "tenants/acme", "locale": "fr-FR"}, "updateMask": "locale"}),
    ("tenants suspend acme --why unpaid", "SuspendTenant", {"name": "tenants/acme", "reason": "unpaid"}),
    ("tenants resume acme", "ResumeTenant", {"name": "tenants/acme"}),
    ("tenants delete acme --confirm acme --erase-now", "DeleteTenant",
     {"name": "tenants/acme", "skipRetention": True}),
    ("countries list", "ListCountries", {"pageSize": 1000}),
    ("countries update sn --allow fr --allow sn", "UpdateCountry",
     {"country": {"name": "countries/sn", "allowedClusterCountries": ["countries/fr", "countries/sn"]},
      "updateMask": "allowedClusterCountries"}),
    ("countries create sn --display-name Senegal --allow fr", "CreateCountry",
     {"country": {"name": "countries/sn", "displayName": "Senegal",
                  "allowedClusterCountries": ["countries/fr"]}}),
    ("clusters list", "ListClusters", {"pageSize": 1000}),
    ("clusters create eu-1 --country fr --kind dedicated", "CreateCluster",
     {"cluster": {"name": "clusters/eu-1", "country": "countries/fr", "kind": "CLUSTER_KIND_DEDICATED"}}),
    ("clusters update eu-1 --cordon", "UpdateCluster",
     {"cluster": {"name": "clusters/eu-1", "cordoned": True}, "updateMask": "cordoned"}),
    ("modules list", "ListModules", {"parent": HOME}),
    ("modules enable reporting", "SetModule", {"name": f"{HOME}/modules/reporting", "enabled": True}),
    ("modules disable reporting", "SetModule", {"name": f"{HOME}/modules/reporting"}),
    ("entitlements list", "ListEntitlements", {"parent": HOME}),
    ("entitlements set storage_bytes 7", "SetEntitlement",
     {"name": f"{HOME}/entitlements/storage_bytes", "value": "7"}),
    ("entitlements unset storage_bytes", "SetEntitlement", {"name": f"{HOME}/entitlements/storage_bytes"}),
    ("users list --limit 5", "ListUsers", {"parent": HOME, "pageSize": 5}),
    ("users get 1", "GetUser", {"name": f"{HOME}/users/1"}),
    ("users create a@b.c --display-name A", "CreateUser",
     {"parent": HOME, "user": {"email": "a@b.c", "displayName": "A"}, "password": "from stdin"}),
    ("users disable 1", "UpdateUser", {"user": {"name": f"{HOME}/users/1", "disabled": True},
                                       "updateMask": "disabled"}),
    ("users enable 1", "UpdateUser", {"user": {"name": f"{HOME}/users/1"}, "updateMask": "disabled"}),
    ("users delete 1", "DeleteUser", {"name": f"{HOME}/users/1"}),
    ("users password 1", "SetPassword", {"name": f"{HOME}/users/1", "newPassword": "from stdin"}),
    ("roles list", "ListRoles", {"parent": HOME}),
    ("roles bindings --principal 1", "ListRoleBindings",
     {"parent": HOME, "principal": f"{HOME}/users/1", "pageSize": 1000}),
    ("roles bind apiKeys/1 operator --module supervision", "CreateRoleBinding",
     {"parent": HOME, "roleBinding": {"principal": f"{HOME}/apiKeys/1", "role": "operator",
                                      "module": "supervision"}}),
    ("roles bind users/1 operator", "CreateRoleBinding",
     {"parent": HOME, "roleBinding": {"principal": f"{HOME}/users/1", "role": "operator"}}),
    ("roles unbind 1", "DeleteRoleBinding", {"name": f"{HOME}/roleBindings/1"}),
    ("keys list", "ListApiKeys", {"parent": HOME, "pageSize": 1000}),
    ("keys create web-1", "CreateApiKey", {"parent": HOME, "displayName": "web-1", "role": "agent"}),
    ("keys revoke 1", "RevokeApiKey", {"name": f"{HOME}/apiKeys/1"}),
    ("events query --since 2026-01-01 --until 2026-01-02 --type host.cpu -l host=a", "QueryEvents",
     {"parent": HOME, "startTime": "2026-01-01T00:00:00Z", "endTime": "2026-01-02T00:00:00Z",
      "type": "host.cpu", "labels": {"host": "a"}, "pageSize": 100}),
    ("events tail --source agent/a", "TailEvents", {"parent": HOME, "source": "agent/a"}),
    ("events usage", "GetIngestUsage", {"parent": HOME}),
    ("events outcomes", "ListIngestOutcomes", {"parent": HOME, "pageSize": 100}),
    ("rules validate {file}", "ValidateRule", {"parent": HOME, "document": RULE_BASE64}),
    ("rules publish {file}", "PublishRule",
     {"name": f"{HOME}/rules/hot", "document": RULE_BASE64}),
    ("rules list", "ListRules", {"parent": HOME, "pageSize": 1000}),
    ("rules get hot", "GetRule", {"name": f"{HOME}/rules/hot"}),
    ("rules versions hot", "ListRuleVersions", {"parent": f"{HOME}/rules/hot", "pageSize": 100}),
    ("rules diff hot 11111111 22222222", "DiffRuleVersions",
     {"oldVersion": f"{HOME}/rules/hot/versions/11111111",
      "newVersion": f"{HOME}/rules/hot/versions/22222222"}),
    ("rules rollback hot --to 11111111", "RollbackRule",
     {"name": f"{HOME}/rules/hot", "versionId": "11111111"}),
    ("rules disable hot", "DisableRule", {"name": f"{HOME}/rules/hot"}),
    ("rules fields --type host.cpu", "ListObservedFields", {"parent": HOME, "eventType": "host.cpu"}),
    ("incidents list --state open --rule hot --site dakar", "ListIncidents",
     {"parent": HOME, "states": ["INCIDENT_STATE_OPEN"], "rule": f"{HOME}/rules/hot", "site": "dakar",
      "pageSize": 100}),
    (f"incidents get {ID}", "GetIncident", {"name": f"{HOME}/incidents/{ID}"}),
    (f"incidents ack {ID} --note mine", "AcknowledgeIncident",
     {"name": f"{HOME}/incidents/{ID}", "note": "mine"}),
    (f"incidents resolve {HOME}/incidents/{ID}", "ResolveIncident", {"name": f"{HOME}/incidents/{ID}"}),
]  # fmt: skip

METHODS = {m.name: m for descriptor in DESCRIPTORS.values() for m in descriptor.methods}


def comparable(request):
    members = MessageToDict(request)
    members.pop("requestId", None)
    return members


@pytest.mark.parametrize(("line", "method", "wanted"), CASES, ids=[case[0] for case in CASES])
async def test_a_command_sends_its_request_once_and_answers_one_json_document(
    tlsy, stand_in, tmp_path, line, method, wanted
):
    (tmp_path / "rule.json").write_text(RULE)
    args = line.format(file=tmp_path / "rule.json").split()
    result = await tlsy(*args, "--output", "json", stdin="from stdin\n")
    assert (result.code, result.err.replace("Keep the secret now: it is not shown again.\n", "")) == (0, "")
    asked = stand_in.only(method)
    assert asked.token == "home"
    assert comparable(asked.request) == comparable(
        ParseDict(wanted, GetMessageClass(METHODS[method].input_type)())
    )
    if not METHODS[method].server_streaming:
        json.loads(result.out)


async def test_options_of_all_commands_may_come_before_or_after_the_command(tlsy, stand_in):
    before = await tlsy("--output", "json", "--tenant", "acme", "modules", "list")
    after = await tlsy("modules", "list", "--tenant", "acme", "--output", "json")
    assert before == after
    assert {asked.request.parent for asked in stand_in.asked if asked.method == "ListModules"} == {
        "tenants/acme"
    }
