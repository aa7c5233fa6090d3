"""Tests for `forgereg.flow.builds`: applications, which are directories of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from tests.archives import PACKS, Recipe, build_layered_image, layer, tar
from tests.doubles import Output, Package, store_path
from tests.registry import ANY_FORM, Served, archive

WEB, DB = Recipe((layer("web"),)), Recipe((layer("db"),))
BYTES = {
    ".tar.gz": PACKS["gz"](tar(build_layered_image(WEB))),
    ".tar.zst": PACKS["zst"](tar(build_layered_image(WEB))),
    ".tar": tar(build_layered_image(WEB)),
    ".tgz": PACKS["gz"](tar(build_layered_image(WEB))),
    "": tar(build_layered_image(WEB)),
}

Add = Callable[[Mapping[str, bytes | str | Output]], Output]


@pytest.fixture
def shop(served: Served) -> Add:
    """Give the application ``shop`` these entries in its directory."""

    def add(entries: Mapping[str, bytes | str | Output]) -> Output:
        output = served.store.folder("shop-containers", entries)
        served.nix.packages["shop"] = Package("1.0", {"containers": output})
        return output

    return add


def only_layer(served: Served, name: str, tag: str = "latest") -> str:
    (one,) = served.pull(name, tag)["layers"]
    digest: str = one["digest"]
    return digest


def refusal(served: Served, name: str) -> tuple[int, str]:
    answer = served.get(f"/v2/{name}/manifests/latest", ANY_FORM)
    return answer.status, answer.error[1]


@pytest.mark.parametrize("ending", BYTES)
def test_each_kind_of_archive(served: Served, shop: Add, ending: str) -> None:
    """An application's image may be compressed in any way, or not at all."""
    shop({f"web{ending}": BYTES[ending]})
    digest = f"sha256:{WEB.layers[0].hex}"
    assert only_layer(served, "applications/shop/web") == digest
    assert only_layer(served, "applications/shop/web", "1.0") == digest


@pytest.mark.parametrize("ending", BYTES)
def test_links_to_archives(served: Served, shop: Add, ending: str) -> None:
    """An application may be a farm of links to images that are built on their own."""
    image = served.store.file(f"docker-image-web{ending}", BYTES[ending])
    shop({f"web{ending}": image})
    assert only_layer(served, "applications/shop/web") == f"sha256:{WEB.layers[0].hex}"


def test_ending_does_not_matter(served: Served, shop: Add) -> None:
    """How an archive is compressed is told by its bytes, not by its name."""
    shop({"web.tar.gz": BYTES[".tar.zst"]})
    served.pull("applications/shop/web")


def test_images_are_read_on_their_own(served: Served, shop: Add) -> None:
    """Two images of one application are one build, and two reads."""
    shop({"web.tar.gz": archive(WEB), "db.tar.gz": archive(DB)})
    web = only_layer(served, "applications/shop/web")
    db = only_layer(served, "applications/shop/db")
    assert web != db
    assert len(served.readers.calls) == 2


def test_two_images_at_once(served: Served, shop: Add) -> None:
    """Whoever pulls a whole application at once has it built once."""
    shop({"web.tar.gz": archive(WEB), "db.tar.gz": archive(DB)})
    served.nix.pause()
    clients = [
        served.begin(f"/v2/applications/shop/{image}/manifests/latest", ANY_FORM)
        for image in ("web", "db")
    ]
    served.nix.finish()
    assert len({client.answer().body for client in clients}) == 2
    assert served.nix.counts == (1, 1, 1)


def test_unknown_image(served: Served, shop: Add) -> None:
    """Whoever asks for an image that an application has not reads which it has."""
    shop({"web.tar.gz": archive(WEB), "db.tar": archive(DB), "README": b"read me"})
    assert refusal(served, "applications/shop/wep") == (
        404,
        "the application 'shop' has no image 'wep'; it has: db, web",
    )


def test_application_without_images(served: Served, shop: Add) -> None:
    """Whoever asks an empty application for an image reads that it has none."""
    shop({"README": b"read me"})
    assert refusal(served, "applications/shop/web")[1].endswith("it has none at all")


def test_many_images(served: Served, shop: Add) -> None:
    """The list of an application's images is kept short enough to be read."""
    shop({f"i{n:02}.tar": b"" for n in range(30)})
    message = refusal(served, "applications/shop/x")[1]
    assert "i00, i01" in message and "i19" in message and "i20" not in message


def test_unknown_application(served: Served, shop: Add) -> None:
    """Whoever mistypes an application reads which one may have been meant."""
    shop({})
    status, message = refusal(served, "applications/shops/web")
    assert (status, message) == (
        404,
        "the flake github:acme/forge has no application 'shops'; did you mean shop?",
    )


def test_name_without_image(served: Served, shop: Add) -> None:
    """Whoever pulls an application as if it were an image is told how to pull one."""
    shop({"web.tar.gz": archive(WEB)})
    status, message = refusal(served, "applications/shop")
    assert status == 404
    assert "applications/shop/<image>" in message
    assert served.nix.argvs == []


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../etc/passwd", "/nix/store"])
def test_links_out_of_the_store(served: Served, shop: Add, target: str) -> None:
    """An application cannot have a file of the machine served."""
    served.store.write("/etc/passwd", archive(WEB))
    shop({"web.tar.gz": target})
    status, message = refusal(served, "applications/shop/web")
    assert status == 422
    assert "out of the Nix store" in message


def test_links_in_circles(served: Served, shop: Add) -> None:
    """An application whose links lead in circles is refused."""
    shop({"web.tar.gz": "db.tar.gz", "db.tar.gz": "web.tar.gz"})
    status, message = refusal(served, "applications/shop/web")
    assert status == 422
    assert "circles" in message


def test_links_to_nothing(served: Served, shop: Add) -> None:
    """An application with a link to what is not there is said to be broken."""
    shop({"web.tar.gz": store_path("gone.tar.gz")})
    status, message = refusal(served, "applications/shop/web")
    assert status == 422
    assert "nothing is there" in message


def test_application_that_is_a_file(served: Served) -> None:
    """An application must be a directory, and whoever pulls from a file reads so."""
    image = served.nix.packages["hello"].outputs["image"]
    served.nix.packages["shop"] = Package("1.0", {"containers": image})
    status, message = refusal(served, "applications/shop/web")
    assert status == 422
    assert message.startswith("shop.containers is not a directory of archives\nsee ")


def test_application_that_is_a_link(served: Served, shop: Add) -> None:
    """An application may be a link to the directory of another."""
    output = shop({"web.tar.gz": archive(WEB)})

    def make() -> None:
        output.make()
        served.store.link(store_path("alias"), output.path)

    alias = Output(store_path("alias"), make, store_path("alias.drv"))
    served.nix.packages["shop"] = Package("1.0", {"containers": alias})
    served.pull("applications/shop/web")


def test_directory_in_place_of_an_archive(served: Served, shop: Add) -> None:
    """A directory with an archive's name is no image."""
    inner = served.store.folder("inner", {"x": b"x"})
    shop({"web.tar.gz": inner})
    status, message = refusal(served, "applications/shop/web")
    assert status == 422
    assert "is a directory" in message


def test_deleted_archive_of_an_application(served: Served, shop: Add) -> None:
    """A blob comes back when the link farm and what it links to are both gone."""
    image = served.store.file("docker-image-web.tar.gz", archive(WEB))
    shop({"web.tar.gz": image})
    digest = only_layer(served, "applications/shop/web")
    for path in (served.state / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()
    served.store.real(image.path).unlink()
    assert served.get(f"/v2/applications/shop/web/blobs/{digest}").status == 200
    assert served.nix.argvs[-1][-1].endswith('."shop".containers')


def test_package_and_application(served: Served, shop: Add) -> None:
    """What is a package and an application is served as both."""
    containers = shop({"web.tar.gz": archive(WEB)})
    image = served.nix.packages["hello"].outputs["image"]
    outputs = {"containers": containers, "image": image}
    served.nix.packages["shop"] = Package("1.0", outputs)
    assert served.pull("packages/shop") != served.pull("applications/shop/web")


def test_file_names_in_capitals(served: Served, shop: Add) -> None:
    """An image whose file has capitals is pulled by its name in lower case."""
    shop({"Web.tar.gz": BYTES[".tar.gz"], ".hidden.tar": b"", "we ird.tar": b""})
    served.pull("applications/shop/web")
    assert refusal(served, "applications/shop/db")[1].endswith("it has: web")
