"""Tests for `forgereg.metrics`, and for what is made of them: dashboard, alerts, docs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from forgereg.blobs.names import names
from forgereg.flow.report import State
from forgereg.metrics import Metrics, timed
from forgereg.oci.reference import parse_digest
from tests.blobs.keeping import damage
from tests.client import ask
from tests.daemon import ROOT
from tests.deferreds import begin, result_of
from tests.flow.stages import hold
from tests.registry import BEGIN, Served, serving
from tests.web.big import PATH, serving_big

DAY = 86400.0
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
    _, text = served.assembly.parts.machine.metrics.text(accept)
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


def value(served: Served, name: str, **labels: str) -> float | None:
    """Read a metric of the registry as it would be scraped now."""
    metrics = served.assembly.parts.machine.metrics
    metrics.look()
    return metrics.registry.get_sample_value(f"forge_{name}", labels)


def asked(served: Served, cache: str) -> tuple[float | None, float | None]:
    """Give how often something was in a cache, and how often it was not."""
    return tuple(  # type: ignore[return-value]
        value(served, f"cache_{kind}_total", cache=cache) for kind in ("hits", "misses")
    )


def test_a_build_s_parts(served: Served) -> None:
    """A first pull is one build, one evaluation and one reading; a second is none."""
    for _ in range(2):
        served.pull("packages/hello")
        for name in ("build_seconds", "evaluation_seconds", "archive_reading_seconds"):
            assert value(served, f"{name}_count") == 1
    assert value(served, "builds_total", outcome="done") == 1


def test_a_build_that_fails(served: Served) -> None:
    """A build that fails is counted as failed, and a name that is not there is not."""
    served.nix.fail("build", "error: it is broken")
    assert served.get("/v2/packages/hello/manifests/latest").status == 422
    assert served.get("/v2/packages/nothing/manifests/latest").status == 404
    assert value(served, "builds_total", outcome="failed") == 1
    assert value(served, "builds_total", outcome="done") == 0


def test_builds_that_a_stop_interrupted(tmp_path: Path) -> None:
    """What the last stop interrupted is counted when the registry starts again."""
    with serving(tmp_path, database=f"sqlite:///{tmp_path / 'r.sqlite'}") as served:
        hold(served, State.BUILDING)
        served.nix.die()
        served.restart()
        begin(served.assembly.begin())
        assert value(served, "builds_total", outcome="interrupted") == 1


def test_caches(tmp_path: Path) -> None:
    """What is in memory or on the disk is told from what has to be made anew."""
    with serving_big(tmp_path) as served:
        assert asked(served, "evaluation") == (0, 1)
        assert asked(served, "manifest") == (0, 1)
        assert asked(served, "blob")[1] == 0
        for _ in range(2):
            address = "198.51.100.7"
            headers = [("Accept-Encoding", "zstd")]
            assert ask(served.site, "GET", PATH, headers, address=address).status == 200
        assert asked(served, "encoding") == (1, 1)
        before = asked(served, "blob")
        served.blobs.delete(parse_digest(PATH.rpartition("/")[2]))
        served.get(PATH)
        assert asked(served, "blob") == (before[0], (before[1] or 0) + 1)


def test_a_sweep(served: Served) -> None:
    """A sweep is counted with what it freed, and a dry run is not."""
    served.pull("packages/hello")
    served.clock.advance(2 * DAY)
    served.set(sweep_days=1.0)
    result_of(served.assembly.parts.works.sweep(dry_run=True))
    assert value(served, "sweeps_total") == 0
    report = result_of(served.assembly.parts.works.sweep(dry_run=False))
    assert value(served, "sweeps_total") == 1
    assert value(served, "swept_images_total") == len(report.images) == 1
    assert value(served, "swept_bytes_total") == report.freed_bytes > 0
    assert value(served, "last_sweep_timestamp_seconds") == BEGIN + 2 * DAY


def test_a_damaged_blob(served: Served) -> None:
    """A blob that has rotted is counted when it is found."""
    served.pull("packages/hello")
    (name, *rest) = names(served.state / "blobs")
    damage(served.blobs, name)
    served.assembly.parts.scrubber.start()
    for _ in range(10):
        served.clock.advance(DAY)
    assert value(served, "damaged_blobs_total") == 1
    assert (value(served, "scrubbed_blobs_total") or 0) > len(rest)
    assert value(served, "scrubbed_bytes_total")
    served.assembly.parts.scrubber.stop()
