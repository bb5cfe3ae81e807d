"""A folder of manifests is read whole, or refused with the place and the reason of all that is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from deploy.manifests import RefusedError, read

if TYPE_CHECKING:
    from pathlib import Path

SERVICE: Final = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n"


def refused(folder: Path, text: str) -> str:
    (folder / "a.yaml").write_text(text)
    with pytest.raises(RefusedError) as refused:
        read(folder, "suite", "tlsy")
    assert len(refused.value.problems) == 1
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: ConfigMap", "document 2: ConfigMap is no manifest: it has no metadata"),
        ("[1, 2]", "document 2: it is no manifest: it has no metadata"),
        ("metadata: {name: x}", "document 2: x is no manifest: apiVersion and kind are needed"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {generateName: x}", "document 2: Pod without a name"),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: x, namespace: elsewhere}",
            "document 2: secret/x is of namespace elsewhere, the set of tlsy",
        ),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x, labels: [1]}", "document 2: pod/x has labels that"),
        (SERVICE, "document 2: service/s is also in {file}, document 1"),
        ("kind: List\nitems: [{kind: Pod, apiVersion: v1}]", "document 2, item 1: Pod is no manifest"),
        ("kind: List\nitems: 5", "document 2: List is no manifest"),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: suite-deployed}",
            "give it another name",
        ),
        (
            "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: suite-deploy}",
            "give it another name",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, text, said):
    told = refused(tmp_path, f"{SERVICE}---\n{text}\n")
    assert told.startswith(f"{tmp_path / 'a.yaml'}, document 2")
    assert said.format(file=tmp_path / "a.yaml") in told


def test_what_is_no_yaml_is_said_with_its_line(tmp_path):
    assert "line 2, column 1" in refused(tmp_path, "{\n")


def test_everything_that_is_wrong_with_a_set_is_said_at_once(tmp_path):
    (tmp_path / "a.yaml").write_text("kind: ConfigMap\n---\nkind: Service\n")
    (tmp_path / "b.yaml").write_text("{")
    (tmp_path / "c.yaml").write_bytes(b"\xff")
    (tmp_path / "d.yaml").symlink_to("nowhere")
    (tmp_path / "e.yaml").mkdir()
    (tmp_path / "f.yaml").write_text(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: !!binary aGk=}\n"
    )
    (tmp_path / "g.yaml").write_text("apiVersion: v1\nkind: Any\nmetadata: {name: s}\nshare: .nan\n")
    with pytest.raises(RefusedError) as refused:
        read(tmp_path, "suite", "tlsy")
    assert "f.yaml: Object of type bytes is not JSON serializable" in str(refused.value)
    assert [problem.split(":")[0].removeprefix(f"{tmp_path}/") for problem in refused.value.problems] == [
        *(
            "a.yaml, document 1",
            "a.yaml, document 2",
            "b.yaml",
            "c.yaml",
            "d.yaml",
            "e.yaml",
            "f.yaml",
            "g.yaml",
        )
    ]


def test_what_a_chart_leaves_empty_is_as_if_it_were_not_there(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: , labels: }\n"
    )
    (pod,) = read(tmp_path, "suite", "tlsy").replaceable
    assert pod["metadata"]["labels"] == {"tlsy.dev/set": "tlsy.suite"}


@pytest.mark.parametrize("date", ["2026-01-01", "2026-99-99", "2026-01-01T00:00:00Z"])
def test_what_looks_like_a_date_is_text(tmp_path, date):
    (tmp_path / "a.yaml").write_text(f"{SERVICE}spec: {{since: {date}}}\n")
    one = read(tmp_path, "suite", "tlsy")
    assert date in str(one.documents[0])
    assert one.unpacked(one.pack()) == one


def test_an_empty_folder_is_refused_and_removes_nothing(tmp_path):
    with pytest.raises(RefusedError, match=r"no \.yaml, \.yml or \.json"):
        read(tmp_path, "suite", "tlsy")


def test_a_set_is_the_same_whatever_files_it_is_in(tmp_path):
    (tmp_path / "a.yaml").write_text("apiVersion: v1\nkind: Service\nmetadata: {name: s}\n")
    one = read(tmp_path, "suite", "tlsy")
    (tmp_path / "a.yaml").rename(tmp_path / "b.yml")
    (tmp_path / "c.json").write_text('{"kind": "List", "items": []}')
    assert read(tmp_path, "suite", "tlsy").revision == one.revision
    assert one.unpacked(one.pack()) == one
