"""Tests for `forgereg.flow.works`."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from forgereg.flow.push import Push
from forgereg.flow.report import State
from forgereg.flow.works import parse_image
from forgereg.oci.errors import (
    BuildFailed,
    BuildUnknown,
    DiskFull,
    NameInvalid,
    NameUnknown,
    RequestInvalid,
    TooManyBuilds,
)
from forgereg.oci.reference import Name, Tag
from forgereg.records.builds import BuildRecords
from tests.archives import Recipe, layer
from tests.client import Answer, ask
from tests.conftest import Log
from tests.deferreds import begin, result_of
from tests.flow.stages import HELLO, add, go_on, hold, pull, reports, states
from tests.registry import ANY_FORM, TTL_SECONDS, Served, files_below, serving

PUSH = Push(frozenset({"github.com/acme/forge"}), "refs/heads/main", None)
SECRET = "a secret of the forge"


@pytest.fixture
def lasting(tmp_path: Path) -> Iterator[Served]:
    """A registry whose records are in a file."""
    with serving(tmp_path, database=f"sqlite:///{tmp_path / 'r.sqlite'}") as served:
        yield served


def push(served: Served) -> None:
    """Give the flake a newer hello."""
    served.nix.push()
    newer = Recipe((layer("newer"),))
    served.nix.packages["hello"] = served.store.package("3.0", newer, name="hello-3")


def start(served: Served) -> None:
    """Do what the registry does by itself when it starts."""
    result_of(served.assembly.begin())


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("packages/hello", (Name("packages/hello"), Tag("latest"))),
        ("packages/hello:", (Name("packages/hello"), Tag("latest"))),
        ("packages/hello:2.12", (Name("packages/hello"), Tag("2.12"))),
    ],
)
def test_images(text: str, image: tuple[Name, Tag]) -> None:
    """An image is named as for ``podman pull``, and is the latest without a tag."""
    assert parse_image(text) == image


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":latest",
        "Packages/Hello",
        "packages/hello:a b",
        "packages/hello:" + "x" * 200,
        "packages/hello@sha256:" + "0" * 64,
        "packages/hello:sha256:" + "0" * 64,
        "../etc/passwd",
        "packages/hello\n",
        "\0",
        "x" * 10_000,
    ],
)
def test_what_is_no_image(served: Served, text: str) -> None:
    """Whoever asks for what cannot be an image reads that it is none, and how it reads."""
    with pytest.raises((NameInvalid, RequestInvalid)) as raised:
        result_of(served.assembly.parts.works.start(text, "admin"))
    assert "it is written as packages/hello:latest" in str(raised.value)
    assert len(raised.value.detail) < 1500
    assert served.nix.argvs == []


def test_start(served: Served) -> None:
    """An operator has an image built that nobody has asked for."""
    served.nix.pause()
    report = result_of(served.assembly.parts.works.start("packages/hello", "admin"))
    assert (report.image, report.asked_by) == (HELLO, ("admin",))
    assert not report.state.is_over
    served.nix.finish()
    assert result_of(served.assembly.parts.works.build(report.id)).state is State.DONE


def test_start_of_what_is_there(served: Served) -> None:
    """To have an image built that is there already is done at once, and is told."""
    served.pull("packages/hello")
    report = result_of(served.assembly.parts.works.start("packages/hello", "admin"))
    assert report.state is State.DONE
    assert states(served) == [State.DONE, State.DONE]
    assert served.nix.counts == (1, 1, 1)


def test_start_of_what_fails(served: Served) -> None:
    """A build that nobody waits for may fail; its list tells so."""
    served.nix.fail("build", "error: it is broken")
    report = result_of(served.assembly.parts.works.start("packages/hello", "admin"))
    assert report.state is State.FAILED


def test_start_of_another_family(served: Served) -> None:
    """Names of no family are refused at once."""
    with pytest.raises(NameUnknown):
        result_of(served.assembly.parts.works.start("library/nginx", "admin"))


def test_start_with_a_short_queue(served: Served) -> None:
    """A build does not stand in its own way to a queue that has room for one."""
    served.pull("packages/hello")
    served.set(max_evaluations=1, max_queue=1)
    served.nix.pause()
    for image in add(served, "a", "b"):
        result_of(served.assembly.parts.works.start(image, "admin"))
    assert states(served)[1:] == [State.EVALUATING, State.QUEUED]
    served.nix.finish()
    assert states(served) == [State.DONE] * 3


@pytest.mark.parametrize("call", ["build", "cancel", "retry", "log"])
@pytest.mark.parametrize("id", ["nope", "", "../../etc/passwd", "\0", "☃" * 1000])
def test_unknown_ids(served: Served, call: str, id: str) -> None:
    """Whoever names a build that there is not is told so, whatever the name."""
    works = served.assembly.parts.works
    asked = {
        "build": lambda: works.build(id),
        "cancel": lambda: works.cancel(id),
        "retry": lambda: works.retry(id, "admin"),
        "log": lambda: works.log(id, 0, 100),
    }
    with pytest.raises(BuildUnknown):
        result_of(asked[call]())


def test_log_in_stretches(served: Served) -> None:
    """A log is read a stretch at a time, also while it grows."""
    hold(served, State.BUILDING)
    served.nix.say("one", "two")
    (report,) = reports(served)

    def read(offset: int, most: int) -> bytes:
        return result_of(served.assembly.parts.works.log(report.id, offset, most))

    assert (read(0, 100), read(4, 2), read(8, 100)) == (b"one\ntwo\n", b"tw", b"")
    served.nix.say("three")
    assert read(8, 100) == b"three\n"


def test_log_of_a_build_that_said_nothing(served: Served) -> None:
    """A build of which nothing is to be told has an empty log."""
    served.pull("packages/hello")
    (report,) = reports(served)
    assert result_of(served.assembly.parts.works.log(report.id, 0, 100)) == b""


def test_retry_of_a_failure(served: Served) -> None:
    """What failed a moment ago is built again when an operator says so."""
    served.nix.fail("build", "error: out of luck")
    for _ in range(2):
        with pytest.raises(BuildFailed):
            result_of(pull(served))
    (report,) = reports(served)
    assert served.nix.count("build") == 1
    served.nix.mend()
    result_of(served.assembly.parts.works.retry(report.id, "admin"))
    assert states(served) == [State.FAILED, State.DONE]
    assert reports(served)[1].asked_by == ("admin",)


def test_retry_of_what_runs(served: Served) -> None:
    """To retry what still runs is to join it."""
    hold(served, State.BUILDING)
    (report,) = reports(served)
    again = result_of(served.assembly.parts.works.retry(report.id, "admin"))
    assert again.id == report.id


def test_tidy(lasting: Served) -> None:
    """Builds and logs are forgotten when their time is over, and not before."""
    lasting.set(build_log_days=1.0)
    lasting.nix.fail("build", "error: it is broken")
    with pytest.raises(BuildFailed):
        result_of(pull(lasting))
    lasting.clock.advance(86399.0)
    result_of(lasting.assembly.parts.works.tidy())
    assert len(reports(lasting)) == 1
    assert files_below(lasting.state / "logs") == 1
    lasting.clock.advance(2.0)
    result_of(lasting.assembly.parts.works.tidy())
    assert reports(lasting) == []
    assert files_below(lasting.state / "logs") == 0


def test_tidying_a_full_disk(
    lasting: Served, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    """A disk that is too full to forget a build is swept all the same."""

    def forget(*_: object) -> None:
        raise DiskFull("no room")

    monkeypatch.setattr(BuildRecords, "forget_before", forget)
    lasting.set(sweep_days=1.0)
    start(lasting)
    lasting.pull("packages/hello")
    lasting.clock.pump([3600.0] * 26)
    assert "not tidied up: no room" in log.text
    assert files_below(lasting.state / "blobs") == 0


def test_prewarmed_at_start(served: Served) -> None:
    """What is to be there before anyone asks is built at start."""
    served.set(prewarm=("packages/hello", "packages/hello:2.12"))
    start(served)
    counts = served.nix.counts
    assert counts == (1, 1, 1)
    served.pull("packages/hello")
    served.pull("packages/hello", "2.12")
    assert served.nix.counts == counts


def test_prewarmed_when_the_flake_moves(served: Served) -> None:
    """What is to be there is built anew when the flake has moved, before anyone asks."""
    served.set(prewarm=("packages/hello",))
    start(served)
    push(served)
    served.clock.advance(TTL_SECONDS)
    counts = served.nix.counts
    assert counts == (2, 2, 2)
    assert served.pull("packages/hello", "3.0")
    assert served.nix.counts == counts


def test_prewarmed_when_nothing_moves(served: Served) -> None:
    """While the flake stays as it is, nothing is built, and no build is listed."""
    served.set(prewarm=("packages/hello",))
    start(served)
    for _ in range(5):
        served.clock.advance(TTL_SECONDS)
    assert served.nix.counts == (6, 1, 1)
    assert states(served) == [State.DONE]


def test_prewarming_what_is_not_there(served: Served, log: Log) -> None:
    """A name on the list that cannot be built is told, and in no other's way."""
    names = ("packages/nope", "library/nginx", "packages/hello:no", "No/Name")
    served.set(prewarm=(*names, "packages/hello"))
    start(served)
    for name in names:
        assert f"{name} is not there yet" in log.text.replace(":latest", "")
    assert states(served) == [State.DONE]


def hook(served: Served, clone_url: str, secret: str = SECRET) -> Answer:
    """Be a forge that was pushed to."""
    body = json.dumps(
        {"ref": "refs/heads/main", "repository": {"clone_url": clone_url}}
    ).encode()
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = [("X-Hub-Signature-256", f"sha256={digest}"), ("X-GitHub-Event", "push")]
    return ask(served.site, "POST", "/-/hooks/push", headers, body)


@pytest.fixture
def hooked(served: Served, tmp_path: Path) -> Served:
    """A registry that a forge tells of pushes, and from which hello was pulled."""
    (tmp_path / "secret").write_text(SECRET)
    served.set(hook_secret_file=str(tmp_path / "secret"))
    served.pull("packages/hello")
    served.clock.advance(10.0)
    return served


def test_push(hooked: Served) -> None:
    """After a push, what was pulled lately is built before anyone asks."""
    push(hooked)
    answer = hook(hooked, "https://github.com/acme/forge.git")
    assert (answer.status, answer.json) == (202, {"flakes": ["github:acme/forge"]})
    counts = hooked.nix.counts
    assert counts == (2, 2, 2)
    (newest,) = hooked.pull("packages/hello", "3.0")["layers"]
    assert newest["digest"] == f"sha256:{layer('newer').hex}"
    assert hooked.nix.counts == counts
    assert reports(hooked)[-1].asked_by == ("prewarm",)


def test_push_right_after_a_pull(hooked: Served) -> None:
    """What was pulled a moment before a push is built after it, too."""
    add(hooked, "bye")
    hooked.pull("packages/bye")
    push(hooked)
    hook(hooked, "https://github.com/acme/forge.git")
    counts = hooked.nix.counts
    assert counts == (2, 4, 3)
    hooked.pull("packages/bye")
    assert hooked.nix.counts == counts


def test_push_to_something_else(hooked: Served) -> None:
    """A push to a repository that is not served changes nothing."""
    push(hooked)
    answer = hook(hooked, "https://github.com/acme/other.git")
    assert answer.json == {"flakes": []}
    assert hooked.nix.counts == (1, 1, 1)


def test_push_by_a_stranger(hooked: Served) -> None:
    """Who does not know the secret has nothing done."""
    push(hooked)
    url = "https://github.com/acme/forge.git"
    assert hook(hooked, url, "another secret").status == 403
    assert hooked.nix.counts == (1, 1, 1)


def test_push_long_after_the_last_pull(hooked: Served) -> None:
    """What nobody has pulled for a week is not built after a push."""
    hooked.clock.advance(8 * 86400.0)
    push(hooked)
    hook(hooked, "https://github.com/acme/forge.git")
    assert hooked.nix.count("build") == 1


def test_push_and_what_is_prewarmed(hooked: Served) -> None:
    """After a push, what is to be there before anyone asks is built as well."""
    (image,) = add(hooked, "bye")
    hooked.set(prewarm=(image,))
    assert result_of(hooked.assembly.parts.works.pushed(PUSH)) == ["github:acme/forge"]
    calls = len(hooked.nix.argvs)
    hooked.pull("packages/bye")
    assert len(hooked.nix.argvs) == calls


def test_pushes_in_a_row(hooked: Served) -> None:
    """However many pushes come while the flake is looked up, one more look is enough."""
    hooked.nix.pause()
    for _ in range(20):
        begin(hooked.assembly.parts.works.pushed(PUSH))
    go_on(hooked)
    assert hooked.nix.counts == (3, 1, 1)


def test_push_while_the_flake_is_looked_up(hooked: Served) -> None:
    """A push is not missed by who has just begun to look whether there is one."""
    hooked.clock.advance(TTL_SECONDS)
    hooked.nix.pause()
    before = pull(hooked)
    push(hooked)
    begin(hooked.assembly.parts.works.pushed(PUSH))
    hooked.nix.finish()
    assert result_of(before)
    assert hooked.nix.count("metadata") == 3
    assert hooked.pull("packages/hello", "3.0")
    assert hooked.nix.count("metadata") == 3


def test_push_of_what_was_pulled_by_digest(hooked: Served) -> None:
    """What was pulled by digest alone means no tag, and nothing is built for it."""
    digests = hooked.digests("packages/hello")
    hooked.get(f"/v2/packages/hello/manifests/{digests[0]}", ANY_FORM)
    hooked.clock.advance(10.0)
    assert result_of(hooked.assembly.parts.works.pushed(PUSH)) == ["github:acme/forge"]
    assert states(hooked) == [State.DONE]


def test_start_while_the_queue_is_full(served: Served) -> None:
    """Who has an image built when too many wait is told so, and nothing is listed."""
    add(served, "a", "b")
    served.set(max_builds=1, max_queue=0)
    (waiting,) = hold(served, State.BUILDING)
    with pytest.raises(TooManyBuilds):
        result_of(served.assembly.parts.works.start("packages/a", "admin"))
    assert states(served) == [State.BUILDING]
    go_on(served)
    result_of(waiting)
    result_of(served.assembly.parts.works.start("packages/b", "admin"))
    assert states(served) == [State.DONE] * 2
