"""Tests for `forgereg.flow.applications`: compose files, with images that are here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import yaml
from attrs import evolve

from forgereg.flow.compose import FILES
from forgereg.values import FlakeSetting
from tests.archives import Recipe, layer
from tests.client import HOST, Answer
from tests.doubles import Output, Package, ScriptedNix, store_path
from tests.registry import Served, archive, serving

WEB, DB = Recipe((layer("web"),)), Recipe((layer("db"),))
COMPOSE = b"""\
# a shop
services:
  web: {image: localhost/web:latest}
  db:
    image: db  # its own
  cache:
    image: redis:7
"""

Add = Callable[..., Output]


@pytest.fixture
def shop(served: Served) -> Add:
    """Give the application ``shop`` these entries beside two images."""

    def add(
        entries: Mapping[str, bytes | str | Output] = {"compose.yaml": COMPOSE},
        name: str = "shop",
    ) -> Output:
        images = {"web.tar.gz": archive(WEB), "db.tar": archive(DB)}
        output = served.store.folder(f"{name}-containers", {**images, **entries})
        served.nix.packages[name] = Package("1.0", {"containers": output})
        return output

    return add


def ask(served: Served, application: str = "shop", query: str = "") -> Answer:
    return served.get(f"/-/applications/{application}/compose.yaml{query}")


def images(answer: Answer) -> dict[str, str]:
    assert answer.status == 200, answer.body
    services = yaml.safe_load(answer.body)["services"]
    return {name: service["image"] for name, service in services.items()}


def refusal(served: Served, application: str = "shop") -> tuple[int, str]:
    answer = ask(served, application)
    assert answer["Cache-Control"] == "no-store"
    return answer.status, answer.error[1]


def test_images_are_pinned(served: Served, shop: Add) -> None:
    """Whoever starts the application gets the images that are here now, as they are."""
    shop()
    answer = ask(served)
    expected = {
        name: f"{HOST}/applications/shop/{name}@{served.digests(path)[0]}"
        for name in ("web", "db")
        for path in [f"applications/shop/{name}"]
    }
    assert images(answer) == {**expected, "cache": "redis:7"}
    assert answer.body.startswith(b"# a shop\n") and b"# its own" in answer.body
    assert answer["Content-Type"] == "application/yaml"
    assert answer["Vary"] == "Host"
    assert answer["Cache-Control"] == "no-store"
    for reference in expected.values():
        name, _, digest = reference.removeprefix(f"{HOST}/").partition("@")
        served.pull(name, digest)


def test_built_once(served: Served, shop: Add) -> None:
    """An application that is there is not built again for its compose file."""
    shop()
    first = ask(served)
    calls = len(served.nix.argvs)
    assert ask(served).body == first.body
    assert len(served.nix.argvs) == calls


def test_head(served: Served, shop: Add) -> None:
    """HEAD says of a compose file what GET does."""
    shop()
    body = ask(served).body
    answer = served.head("/-/applications/shop/compose.yaml")
    assert (answer.status, answer["Content-Length"]) == (200, str(len(body)))


def test_images_that_are_called_otherwise(served: Served, shop: Add) -> None:
    """A service may call an image as its archive does; nothing is read needlessly."""
    front = archive(evolve(WEB, tags=("localhost/shop-front:1.0",)))
    compose = COMPOSE.replace(b"redis:7", b"shop-front")
    shop(
        {
            "compose.yaml": compose,
            "front.tar.gz": front,
            "bad.tar": b"",
            "gone.tar": "x",
        }
    )
    found = images(ask(served))
    assert "/applications/shop/front@sha256:" in found["cache"]
    assert "/applications/shop/web@sha256:" in found["web"]
    reads = len(served.readers.calls)
    ask(served)
    assert len(served.readers.calls) == reads


@pytest.mark.parametrize("file", FILES)
def test_names_of_compose_files(served: Served, shop: Add, file: str) -> None:
    """The file may be called as compose looks for it, and may be a link."""
    linked = served.store.file("compose", COMPOSE)
    shop({file: linked})
    assert "@sha256:" in images(ask(served))["web"]


def test_tags(served: Served, shop: Add) -> None:
    """A tag chooses the revision of the application, and so of its images."""
    shop()
    served.nix.refs["refs/tags/v1"] = served.nix.revision
    served.set(tags=("v*",))
    old = images(ask(served, query="?tag=v1"))
    served.nix.push()
    shop({"compose.yaml": COMPOSE, "web.tar.gz": archive(DB)}, "shop")
    assert images(ask(served, query="?tag=v1")) == old
    assert images(ask(served, query="?tag=1.0"))["db"] == old["db"]
    answer = ask(served, query="?tag=v2")
    assert answer.status == 404
    assert "no tag 'v2'" in answer.error[1]


@pytest.mark.parametrize(
    ("query", "status"), [("?tag=-x", 404), ("?tag=sha256:" + "0" * 64, 400)]
)
def test_tags_that_are_none(served: Served, shop: Add, query: str, status: int) -> None:
    """What can be no tag is refused without a build."""
    shop()
    assert ask(served, query=query).status == status
    assert served.nix.argvs == []


def test_no_application(served: Served, shop: Add) -> None:
    """Whoever mistypes an application reads which one may have been meant."""
    shop()
    shop(name="forum")
    assert refusal(served, "shops") == (
        404,
        "the flake github:acme/forge has no application 'shops'; did you mean shop?",
    )
    assert refusal(served, "zzz")[1].endswith(
        "has no application 'zzz'; it has: forum, shop"
    )


def test_no_compose_file(served: Served, shop: Add) -> None:
    """Whoever asks an application without a compose file reads what it has."""
    shop({"README": b"read me", "other.yaml": COMPOSE})
    status, message = refusal(served)
    assert status == 404
    assert "add a compose.yaml" in message
    assert message.endswith("applications/shop/db, applications/shop/web")


def test_package(served: Served) -> None:
    """Whoever asks a package for a compose file reads how to pull it instead."""
    status, message = refusal(served, "hello")
    assert status == 404
    assert "pull packages/hello" in message


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (b"a: [", "compose.yaml of applications/shop: the compose file is not YAML"),
        ("/etc/passwd", "out of the Nix store"),
        ("compose.yaml", "in circles"),
        (store_path("gone"), "nothing is there"),
    ],
)
def test_what_is_no_compose_file(
    served: Served, shop: Add, entry: bytes | str, message: str
) -> None:
    """A compose file that cannot be read is said to be broken, and leaks nothing."""
    served.store.write("/etc/passwd", b"services: {}")
    shop({"compose.yaml": entry})
    status, said = refusal(served)
    assert status == 422
    assert message in said


def test_directory_in_place_of_a_compose_file(served: Served, shop: Add) -> None:
    """A directory that is called like a compose file is said to be one."""
    shop({"compose.yaml": served.store.folder("inner", {"x": b"x"})})
    assert refusal(served) == (
        422,
        "compose.yaml of applications/shop is a directory",
    )


def test_failed_build(served: Served, shop: Add) -> None:
    """Whoever asks for an application that cannot be built reads why."""
    shop()
    served.nix.fail("build", "error: builder failed")
    status, message = refusal(served)
    assert status == 422
    assert "builder failed" in message


def test_broken_image(served: Served, shop: Add) -> None:
    """Whoever asks for an application with a broken image reads which one it is."""
    shop({"compose.yaml": COMPOSE, "web.tar.gz": b"no archive"})
    status, message = refusal(served)
    assert status == 422
    assert "archive" in message


def test_collected_directory(served: Served, shop: Add) -> None:
    """An application that nix has let go of is built again."""
    output = shop()
    first = ask(served)
    served.restart()
    digests = ask(served).body
    real = served.store.real(output.path)
    served.assembly.parts.failures.forget()
    for file in real.iterdir():
        file.unlink()
    real.rmdir()
    served.restart()
    assert ask(served).body == digests == first.body


def test_held_while_building(served: Served, shop: Add) -> None:
    """Whoever asks waits for the build, as for an image, and is answered at its end."""
    shop()
    served.nix.pause()
    client = served.begin("/-/applications/shop/compose.yaml")
    served.clock.advance(200)
    assert client.silent
    (build,) = served.get("/-/api/builds").json["builds"]
    assert build["image"] == "applications/shop:latest"
    served.nix.finish()
    assert client.answer().status == 200


def test_bounded_wait(served: Served, shop: Add) -> None:
    """Where clients may not wait for long, they are told to come again."""
    shop()
    served.set(max_hold=10.0)
    served.nix.pause()
    client = served.begin("/-/applications/shop/compose.yaml")
    served.clock.advance(10)
    answer = client.answer()
    assert (answer.status, answer["Retry-After"]) == (429, "60")
    assert "applications/shop:latest is still" in answer.error[1]
    served.nix.finish()


def test_redirected_wait(served: Served, shop: Add) -> None:
    """Behind a proxy that is impatient, clients are sent here again, with their tag."""
    shop()
    served.set(redirect_hold=10.0)
    served.nix.pause()
    client = served.begin("/-/applications/shop/compose.yaml?tag=1.0")
    served.clock.advance(10)
    answer = client.answer()
    assert answer.status == 307
    location = "/-/applications/shop/compose.yaml?tag=1.0&hop=1"
    assert answer["Location"] == location
    served.nix.finish()


def test_leaving(served: Served, shop: Add) -> None:
    """Whoever leaves while an application is built leaves nothing behind."""
    shop()
    served.nix.pause()
    served.begin("/-/applications/shop/compose.yaml").hang_up()
    served.nix.finish()
    assert ask(served).status == 200


def test_several_flakes(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An application of a flake with a prefix is found below that prefix alone."""
    main = ScriptedNix()
    main.others = [ScriptedNix(flake="github:team/a")]
    flakes = (FlakeSetting("team/a", "github:team/a"),)
    folder = tmp_path_factory.mktemp("several")
    with serving(folder, nix=main, flakes=flakes) as served:
        entries = {"web.tar.gz": archive(WEB), "compose.yaml": COMPOSE}
        output = served.store.folder("shop", entries)
        main.others[0].packages["shop"] = Package("1.0", {"containers": output})
        web = images(ask(served, "team/a/shop"))["web"]
        assert web.startswith(f"{HOST}/team/a/applications/shop/web@sha256:")
        assert refusal(served)[0] == 404
        status, message = refusal(served, "team/b/shop")
        assert status == 404
        assert "team/b/applications/shop" in message


def test_out_of_date(served: Served, shop: Add) -> None:
    """Where a flake cannot be reached, the file says that it may be out of date."""
    shop()
    ask(served)
    served.nix.fail("metadata", "error: unable to download")
    served.clock.advance(300)
    answer = ask(served)
    assert answer.status == 200
    assert "unable to download" in (answer["Warning"] or "")
