"""Tests for `forgereg/web/openapi.json`: it says what the control API does."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from twisted.internet.task import Clock

from forgereg.flow.report import State
from forgereg.web.control import MAX_BODY, Control
from forgereg.web.site import RegistrySite, Room
from tests.client import ask
from tests.registry import Served
from tests.works import Controlled

RAW = files("forgereg.web").joinpath("openapi.json").read_bytes()
SPEC = json.loads(RAW)
HOOK = "/-/hooks/push"
OPERATIONS = [
    (path, method, operation)
    for path, methods in SPEC["paths"].items()
    for method, operation in methods.items()
]


def resolve(value: Any) -> Any:
    """Follow a reference within the file."""
    while "$ref" in value:
        target = SPEC
        for key in value["$ref"].removeprefix("#/").split("/"):
            target = target[key]
        value = target
    return value


def check(value: object, schema: dict[str, Any]) -> None:
    """Fail unless the value is what the schema says."""
    whole = {**schema, "components": SPEC["components"]}
    Draft202012Validator.check_schema(whole)
    Draft202012Validator(
        whole, format_checker=Draft202012Validator.FORMAT_CHECKER
    ).validate(value)


@pytest.fixture
def site(running: Served) -> RegistrySite:
    """A registry with builds that are played."""
    site = RegistrySite(running.api, {b"-/api": Room(Controlled().resource, MAX_BODY)})
    site.reactor = Clock()
    return site


def test_routes() -> None:
    """Every path of the API is described with its methods, and no other is."""
    routes = {
        (rule.rule.replace("<", "{").replace(">", "}"), method.lower())
        for rule in Control.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
    }
    described = {(path, method) for path, method, _ in OPERATIONS}
    assert described == routes | {(HOOK, "post")}


def test_served(site: RegistrySite) -> None:
    """A program finds the description at the registry itself, as it is here."""
    answer = ask(site, "GET", "/-/api/openapi.json")
    assert answer["Content-Type"] == "application/json"
    assert answer.body == RAW


def test_states() -> None:
    """The description knows every state of a build."""
    assert SPEC["components"]["schemas"]["State"]["enum"] == [s.value for s in State]


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_examples(path: str, method: str, operation: dict[str, Any]) -> None:
    """Each example in the description is what the description says."""
    bodies = [*operation["responses"].values(), operation.get("requestBody", {})]
    for body in map(resolve, bodies):
        for content in body.get("content", {}).values():
            if "example" in content:
                check(content["example"], content["schema"])


#: What is sent to each path, and which status is answered.
CALLS: list[tuple[str, str, str, object, int]] = [
    ("get", "/-/api/openapi.json", "", None, 200),
    ("get", "/-/api/builds", "", None, 200),
    ("get", "/-/api/builds", "?limit=0", None, 400),
    ("post", "/-/api/builds", "", {"image": "packages/hello"}, 202),
    ("post", "/-/api/builds", "", {"image": "packages/none"}, 404),
    ("post", "/-/api/builds", "", {"image": 1}, 400),
    ("post", "/-/api/builds", "", {"image": "x" * 2**16}, 413),
    ("get", "/-/api/builds/{id}", "", None, 200),
    ("get", "/-/api/builds/{id}/log", "?offset=3", None, 200),
    ("get", "/-/api/builds/{id}/log", "?offset=x", None, 400),
    ("post", "/-/api/builds/{id}/cancel", "", None, 200),
    ("post", "/-/api/builds/{id}/retry", "", None, 202),
    ("post", "/-/api/sweep", "", {"dry_run": True}, 200),
    ("post", "/-/api/sweep", "", {"dry_run": 1}, 400),
]


@pytest.mark.parametrize(("method", "path", "query", "sent", "status"), CALLS)
def test_answers(
    site: RegistrySite, method: str, path: str, query: str, sent: object, status: int
) -> None:
    """What is answered is what the description says, status, headers and body."""
    body = b"" if sent is None else json.dumps(sent).encode()
    target = path.replace("{id}", "b2") + query
    answer = ask(site, method.upper(), target, (), body)
    assert answer.status == status
    response = resolve(SPEC["paths"][path][method]["responses"][str(status)])
    content = response["content"][answer["Content-Type"]]
    if "json" in (answer["Content-Type"] or ""):
        check(answer.json, content["schema"])
    for header in response.get("headers", {}):
        assert answer[header]


def test_every_path_is_tried() -> None:
    """No path of the description is left out above."""
    tried = {(path, method) for method, path, *_ in CALLS}
    assert tried == {(p, m) for p, m, _ in OPERATIONS if p != HOOK}
