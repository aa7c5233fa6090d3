"""Tests for `forgereg.metrics`, and for what is made of them: dashboard, alerts, docs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from forgereg.metrics import Metrics, timed
from tests.daemon import ROOT
from tests.registry import Served

DASHBOARD = json.loads((ROOT / "docs/grafana/forge-registry.json").read_text())
ALERTS = yaml.safe_load((ROOT / "docs/prometheus-alerts.yml").read_text())
TABLE = (ROOT / "docs/operations.md").read_text()
#: What a name in an expression begins with.
_NAME = re.compile(r"\b(?:forge|process|python)_[a-z_]+\b")


@cache
def kinds() -> dict[str, str]:
    """Give what kind each metric is of that can be scraped."""
    text = Metrics().text("")[1].decode()
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))


def named(expressions: list[str]) -> set[str]:
    """Give the metrics that expressions are about."""
    names = set(_NAME.findall(" ".join(expressions)))
    bounds = re.compile("_(bucket|sum|count)$")
    known = kinds()
    return {name if name in known else bounds.sub("", name) for name in names}


def expressions(node: Any) -> Iterator[str]:
    """Give every expression of the dashboard."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if key == "expr":
            yield value
        elif isinstance(value, dict | list):
            yield from expressions(value)


def test_the_dashboard_shows_what_there_is() -> None:
    """The dashboard shows every metric of the registry, and none that is not there."""
    shown = named(list(expressions(DASHBOARD)))
    assert shown <= kinds().keys()
    assert {name for name in kinds() if name.startswith("forge_")} <= shown


def test_the_dashboard_takes_rates_of_counters() -> None:
    """The dashboard takes rates of what only grows, and of nothing else."""
    for expression in expressions(DASHBOARD):
        for name in _NAME.findall(expression):
            grows = name.endswith(("_total", "_bucket", "_sum", "_count"))
            rated = re.search(rf"(rate|increase)\({name}\b", expression)
            assert grows == bool(rated), expression


def test_the_dashboard_asks_the_chosen_source() -> None:
    """Every panel of the dashboard asks the data source that the reader has chosen."""
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(
        DASHBOARD["panels"]
    )


def test_the_alerts_are_about_what_there_is() -> None:
    """Every alert is about metrics that are there, and says what it means."""
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert named([rule["expr"] for rule in rules]) <= kinds().keys()
    assert all(rule["annotations"].keys() == {"summary"} for rule in rules)


def test_the_documentation_lists_all() -> None:
    """The documentation lists every metric, and what kind it is of."""
    listed = re.findall(
        r"^\| `((?:forge|process|python)_[a-z_]+)` \| (\w+) \|", TABLE, re.M
    )
    assert dict(listed) == kinds()


@pytest.mark.parametrize(
    ("accept", "parse"),
    [("", parse_text), ("application/openmetrics-text", parse_openmetrics)],
)
def test_both_forms_can_be_read(served: Served, accept: str, parse: Any) -> None:
    """What is scraped can be read back in either form, and says the same."""
    served.pull("packages/hello")
    _, text = served.assembly.machine.metrics.text(accept)
    families = {family.name: family for family in parse(text.decode())}
    outcomes = {
        sample.labels["outcome"]: sample.value
        for sample in families["forge_builds"].samples
    }
    assert outcomes == {"done": 1, "failed": 0, "cancelled": 0, "interrupted": 0}
    assert all(family.documentation for family in families.values())


def test_a_clock_that_is_set_back() -> None:
    """A clock that is set back while something runs does not make its time negative."""
    metrics, times = Metrics(), iter([5.0, 3.0])
    with timed(metrics.build_seconds, lambda: next(times)):
        pass
    metrics.requests.answers("blob", "GET", 200).count(0, -1.0, -1.0)
    for name in ("forge_build_seconds_sum", "forge_http_request_seconds_sum"):
        labels = {"route": "blob"} if "http" in name else {}
        assert metrics.registry.get_sample_value(name, labels) == 0
