"""The catalogue of revisions, and the two addresses that the dashboard asks beside the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.browser import OTHER_TOKEN, READ_TOKEN, TOKEN, mount, run_host
from tests.support.projects import make_project_fixture, project_fixture

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx2

    from tests.support.projects import Project
    from tests.support.web_support import Served

__all__ = ["make_project_fixture", "project_fixture"]


@pytest.fixture(scope="module", name="host")
def host_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with run_host(tmp_path_factory.mktemp("host")) as served:
        yield served


def entries(project: Project) -> dict[str, Any]:
    return {entry.revision: entry for entry in project.migrator().catalogue().entries}


def test_each_revision_comes_after_those_that_it_needs_with_its_links_and_state(
    project: Project,
) -> None:
    # users 0001 ── 0003        calls 0002, which needs 0003
    project.write("0001", schema="users")
    project.write("0002", schema="calls", extra="depends_on = ('0003',)")
    project.write("0003", schema="users", after="0001")
    project.upgrade("0001")
    found = entries(project)
    assert list(found) == ["0001", "0003", "0002"]
    assert [(one.state, one.applied, one.file) for one in found.values()] == [
        ("applied", True, "same"),
        ("pending", False, None),
        ("pending", False, None),
    ]
    assert found["0003"].down_revision == ("0001",)
    assert found["0002"].depends_on == ("0003",)


def test_files_that_differ_from_what_was_applied_are_told_apart(project: Project) -> None:
    paths = [project.write(f"000{number}", schema=f"s{number}") for number in range(1, 6)]
    project.upgrade()
    paths[1].write_text(paths[1].read_text() + "\n# a comment\n")
    paths[2].write_text(paths[2].read_text().replace("pass", "op.drop_collection('x')"))
    paths[3].unlink()
    paths[4].write_text("this is (no Python")
    kinds = {name: entry.file for name, entry in entries(project).items()}
    assert list(kinds.values()) == ["same", "reformatted", "edited", "missing", "unreadable"]


def test_what_was_reverted_is_no_longer_applied_and_a_missing_downgrade_is_told(
    project: Project,
) -> None:
    path = project.write("0001", schema="users")
    project.upgrade()
    project.migrator().downgrade("base")
    path.write_text(path.read_text().partition("def downgrade")[0])
    entry = entries(project)["0001"]
    assert (entry.state, entry.applied, entry.reversible) == ("reverted", False, False)


def test_a_file_that_cannot_be_read_and_never_ran_stands_among_the_problems_alone(
    project: Project,
) -> None:
    project.write("0001", schema="users").write_text("this is (no Python")
    found = project.migrator().catalogue()
    assert found.entries == ()
    assert [problem.kind for problem in found.problems] == ["unreadable"]


def test_the_catalogue_is_served_with_the_database_and_without_paths(
    project: Project, host: Served
) -> None:
    project.write("0001", schema="users")
    project.write("0002", "raise ValueError", schema="users", after="0001")
    with pytest.raises(Exception, match="0002"):
        project.upgrade()
    answer = mount(host, project).get("/migrations/revisions")
    assert answer.status_code == 200
    assert answer.json()["database"] == project.database
    assert [one["state"] for one in answer.json()["revisions"]] == ["applied", "failed"]
    assert [one["kind"] for one in answer.json()["problems"]] == ["failed"]
    assert str(project.folder) not in answer.text


def test_access_says_what_a_token_allows_and_refuses_a_wrong_one(
    project: Project, host: Served
) -> None:
    served = mount(host, project, read_token=READ_TOKEN)

    def ask(token: str | None) -> httpx2.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return served.get("/migrations/access", headers=headers)

    for token, allows in ((None, "none"), (READ_TOKEN, "read"), (TOKEN, "write")):
        found = ask(token).json()
        assert found == {"token": allows, "reads": "token", "writes": "token"}
    refused = [ask(OTHER_TOKEN) for _ in range(7)]
    assert [one.status_code for one in refused] == [401] * 5 + [429] * 2
    assert refused[0].json()["type"].endswith("token-wrong")
    assert ask(TOKEN).status_code == 200


def test_access_says_that_writes_are_off_where_no_token_is_configured(
    project: Project, host: Served
) -> None:
    found = mount(host, project, token=None).get("/migrations/access").json()
    assert found == {"token": "none", "reads": "open", "writes": "off"}
