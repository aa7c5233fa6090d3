"""Tests for `forgereg.cli.commands`: watching and steering builds from a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field
from click.testing import CliRunner, Result
from treq.testing import StubTreq
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock

from forgereg.cli import COMMANDS
from forgereg.cli.commands import Story, commands
from forgereg.cli.remote import Remote
from forgereg.flow.report import State
from forgereg.nix.progress import Progress
from tests.deferreds import result_of
from tests.works import BEGIN, FAILED, RUNNING, Controlled

DONE = evolve(RUNNING, state=State.DONE, finished_at=BEGIN + 31.5)


@define
class Terminal:
    """
    Somebody at a terminal that is none, with a registry in memory.

    :ivar urls: where the registry was thought to be.
    :ivar is_patient: whether a build is watched to its end.
    """

    control: Controlled = field(factory=Controlled)
    urls: list[str] = field(factory=list)
    is_patient: bool = True

    def _play(self, url: str, token: str, story: Story) -> None:
        self.urls.append(url)
        stub: Any = StubTreq(self.control.resource)
        result_of(story(Remote(url, stub.request, token, Clock()), self._wait))

    def _wait(self) -> Deferred[None]:
        return succeed(None) if self.is_patient else fail(CancelledError())

    def type(self, *words: str, **env: str) -> Result:
        """Type a command."""
        return CliRunner().invoke(
            commands, words, obj=self._play, env=env, prog_name="forge-registry"
        )


@pytest.fixture
def terminal() -> Terminal:
    """A terminal, and a registry where one build runs and one has failed."""
    return Terminal()


def test_every_command_is_known() -> None:
    """The command line knows the same commands, whichever half is asked."""
    assert sorted(commands.commands) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help(terminal: Terminal, name: str) -> None:
    """Every command says what it does, and where the registry is told to be."""
    outcome = terminal.type(name, "--help")
    assert outcome.exit_code == 0
    assert "--url" in outcome.stdout and "FORGE_ADMIN_TOKEN_FILE" in outcome.stdout
    assert outcome.stdout.splitlines()[2].strip().endswith(".")


def test_builds(terminal: Terminal) -> None:
    """What is being built is listed, one line each where there is no terminal."""
    outcome = terminal.type("builds")
    (line,) = outcome.stdout.splitlines()
    words = line.split("\t")
    assert words.pop(3).endswith(" s")  # since it was asked for
    assert words == [
        "b2",
        "packages/hello:latest",
        "2023-11-14 22:13:20",
        "building, 3/10 derivations, hello-2.12 buildPhase, 1.0 of 4.0 MiB",
    ]


def test_all_builds(terminal: Terminal) -> None:
    """With --all, what is over is listed as well."""
    lines = terminal.type("builds", "--all").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["b2", "b1"]
    assert lines[1].endswith("60 s\tfailed")


def test_builds_as_json(terminal: Terminal) -> None:
    """Programs are given what the registry said."""
    builds = json.loads(terminal.type("builds", "--all", "--json").stdout)
    assert [build["image"] for build in builds] == [RUNNING.image, FAILED.image]
    assert builds[0]["progress"]["done"] == 3


def test_nothing_to_list(terminal: Terminal) -> None:
    """Where nothing is being built, that is said, and nothing is on standard output."""
    terminal.control.works.reports = [FAILED]
    outcome = terminal.type("builds")
    assert (outcome.exit_code, outcome.stdout) == (0, "")
    assert "--all" in outcome.stderr
    assert json.loads(terminal.type("builds", "--json").stdout) == []


def test_log(terminal: Terminal) -> None:
    """A log is shown to its end, in whatever pieces it comes."""
    lines = [f"line {number}" for number in range(200_000)]
    terminal.control.works.logs["b2"] = "\n".join(lines).encode()
    assert terminal.type("log", "b2").stdout.splitlines() == lines


def test_log_of_an_evil_build(terminal: Terminal) -> None:
    """Nothing that a build writes is obeyed by the terminal, or taken for markup."""
    terminal.control.works.logs["b2"] = (
        b"\x1b[31mred\x1b[0m\n\x1b]0;title\x07\xff\r[bold]x[/bold] :smile:\n\xc2\x9b2J"
    )
    assert terminal.type("log", "b2").stdout.splitlines() == [
        "red",
        r"\x1b]0;title\x07" + "\ufffd" + r"\r[bold]x[/bold] :smile:",
        r"\x9b2J",
    ]


def test_following_a_log(terminal: Terminal) -> None:
    """With --follow, the log is shown until the build is over."""
    works = terminal.control.works
    works.logs["b2"] = b"begun"
    works.coming = [RUNNING, RUNNING, DONE]
    assert terminal.type("log", "b2", "--follow").stdout == "begun\n"
    assert works.coming == []


def test_build(terminal: Terminal) -> None:
    """Who has an image built sees each step and the log, and the status is 0."""
    works = terminal.control.works
    works.reports[0] = evolve(RUNNING, state=State.QUEUED, progress=Progress())
    works.coming = [RUNNING, RUNNING, DONE]
    works.logs["b2"] = b"unpacking\ncheck\xff"
    outcome = terminal.type("build", "packages/hello")
    assert outcome.stdout.splitlines() == [
        "b2\tpackages/hello:latest\tqueued",
        "unpacking",
        "packages/hello:latest: queued",
        "packages/hello:latest: building, 3/10 derivations, hello-2.12 buildPhase,"
        " 1.0 of 4.0 MiB",
        "packages/hello:latest: done",
        "check\ufffd",
        "packages/hello:latest is there, after 30 s",
    ]
    assert outcome.exit_code == 0


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED, State.INTERRUPTED])
def test_build_without_an_image(terminal: Terminal, state: State) -> None:
    """If there is no image in the end, the status is 1 and the reason is told."""
    error = "it was\nno good \x1b[2J"
    terminal.control.works.coming = [evolve(RUNNING, state=state, error=error)]
    outcome = terminal.type("build", "packages/hello")
    assert outcome.exit_code == 1
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("forge-registry: ") and line.endswith(
        r"it was no good \x1b[2J"
    )


def test_leaving_a_build(terminal: Terminal) -> None:
    """Who presses ctrl-C while watching is told that the build goes on."""
    terminal.is_patient = False
    outcome = terminal.type("build", "packages/hello")
    assert outcome.exit_code == 130
    assert "'forge-registry cancel b2' ends it" in outcome.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["build", "--no-wait", "packages/hello"], "b2\tpackages/hello:latest\tbuild"),
        (["cancel", "b2"], "b2\tpackages/hello:latest\tcancelled"),
        (["retry", "b1"], "b3\tpackages/broken:latest\tqueued"),
        (["sweep"], "freed 50.0 MiB: 1 images, 3 blobs; 1.0 GiB stay"),
        (["sweep", "--dry-run"], "would free 50.0 MiB"),
    ],
)
def test_steering(terminal: Terminal, words: list[str], said: str) -> None:
    """Each command says in a line what has come of it."""
    outcome = terminal.type(*words)
    assert outcome.exit_code == 0
    assert outcome.stdout.splitlines()[-1].startswith(said)


def test_swept_images(terminal: Terminal) -> None:
    """A sweep names each image that goes, and why."""
    line, _ = terminal.type("sweep", "--dry-run").stdout.splitlines()
    assert line == "packages/old:latest: 50.0 MiB, last pulled never: never pulled"
    assert terminal.control.works.asked == [("sweep", True)]


def test_token(terminal: Terminal, tmp_path: Path) -> None:
    """Who may change things shows it by a token, which is in a file."""
    terminal.control.token = "secret"
    outcome = terminal.type("cancel", "b2")
    assert outcome.exit_code == 1
    assert "only whoever has the token" in outcome.stderr
    assert "--token-file" in outcome.stderr
    (tmp_path / "token").write_text("secret\n")
    path = str(tmp_path / "token")
    assert terminal.type("cancel", "b2", "--token-file", path).exit_code == 0
    assert terminal.type("cancel", "b2", FORGE_ADMIN_TOKEN_FILE=path).exit_code == 0
    (tmp_path / "token").write_text("other\n")
    outcome = terminal.type("cancel", "b2", "--token-file", path)
    assert "--token-file" not in outcome.stderr


@pytest.mark.parametrize(
    "content", [b"", b"two words", b"\xff\xfe", b"a\nb", b"\xc3\xa4"]
)
def test_tokens_that_are_none(
    terminal: Terminal, tmp_path: Path, content: bytes
) -> None:
    """A token file with something else is refused, without repeating what it has."""
    (tmp_path / "token").write_bytes(content)
    outcome = terminal.type("cancel", "b2", "--token-file", str(tmp_path / "token"))
    (line,) = outcome.stderr.splitlines()
    assert outcome.exit_code == 1 and line.startswith("forge-registry: --token-file")
    assert "words" not in line and terminal.urls == []


def test_no_token_file(terminal: Terminal, tmp_path: Path) -> None:
    """A token file that cannot be read is named."""
    for path in (str(tmp_path), str(tmp_path / "none")):
        outcome = terminal.type("cancel", "b2", "--token-file", path)
        assert outcome.exit_code == 1 and path in outcome.stderr


def test_where_the_registry_is(terminal: Terminal) -> None:
    """The option goes before the environment, and that before the default."""
    terminal.type("builds")
    terminal.type("builds", FORGE_URL="https://forge.test/")
    terminal.type("builds", "--url", "http://[::1]:1", FORGE_URL="https://forge.test")
    expected = ["http://localhost:6443", "https://forge.test", "http://[::1]:1"]
    assert terminal.urls == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6443",
        "ftp://forge.test",
        "http://",
        "http://a:b",
        "http://a:99999",
    ]
    + ["http://me:secret@forge.test", "http://forge.test?x", "http://forge.test/#x"]
    + [
        "http://a b",
        "http://[",
        f"http://{'x' * 99}.test",
        "http://\xe4",
        "http://a\n",
    ],
)
def test_no_url(terminal: Terminal, url: str) -> None:
    """A URL that is none is refused in one line, which does not repeat it."""
    outcome = terminal.type("builds", f"--url={url}")
    (line,) = outcome.stderr.splitlines()
    assert (outcome.exit_code, terminal.urls) == (1, [])
    assert "--url must be" in line and "secret" not in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["log", "b9"], "no build is called 'b9'"),
        (["cancel", "b1"], "the build is over"),
        (["cancel", ".."], "no build is called"),
        (["retry", "a/b?c"], "is nothing here"),
        (["log", ""], "is nothing here"),
        (["build", "packages/none"], "there is no packages/none:latest"),
        (["build", "Packages"], "'Packages' is not a repository name"),
    ],
)
def test_refusals(terminal: Terminal, words: list[str], said: str) -> None:
    """What the registry refuses is told in its own words."""
    outcome = terminal.type(*words)
    (line,) = outcome.stderr.splitlines()
    assert outcome.exit_code == 1
    assert line.startswith("forge-registry: ") and said in line


@pytest.mark.parametrize("words", [["brew"], ["cancel"], ["builds", "x"], ["log"]])
def test_mistyping(terminal: Terminal, words: list[str]) -> None:
    """Who mistypes is told how it is used."""
    outcome = terminal.type(*words)
    assert outcome.exit_code == 2
    assert "Usage: forge-registry" in outcome.stderr
