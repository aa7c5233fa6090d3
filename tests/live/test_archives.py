"""Images as the tools that people have write them, built into a flake and pulled."""

from __future__ import annotations

import gzip
import json
import lzma
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from backports import zstd

from tests import archives as writers
from tests import daemon
from tests.daemon import ROOT, Daemon
from tests.live.clients import Containerd, Docker, Outcome, Podman, Skopeo

#: Each is packages/<name> of the flake; the ending is how the archive is packed.
ARCHIVES = (
    "docker",
    "docker-by-id",
    "docker-repeated",
    "docker-gz",
    "docker-zst",
    "docker-xz",
    "podman",
    "podman-several",
    "skopeo",
)

#: Those whose manifests and layers are served byte for byte.
LAYOUTS = (
    "docker-26",
    "podman-oci",
    "podman-platforms",
    "skopeo-oci",
    "skopeo-oci-plain",
    "skopeo-oci-zst",
)


def docker_26(registry: Daemon) -> bytes:
    """Write an image as docker does since 25, with the layers that hello has."""
    base = "/v2/packages/hello"
    manifest = registry.ask(f"{base}/manifests/latest").json
    config = registry.ask(f"{base}/blobs/{manifest['config']['digest']}").json
    layers = tuple(
        writers.layer_of(
            registry.ask(f"{base}/blobs/{each['digest']}").body, writers.gz
        )
        for each in manifest["layers"]
    )
    recipe = writers.Recipe(layers, more={"config": config["config"]})
    return writers.tar(writers.docker_save_26(recipe))


def save_platforms(podman: Podman, hello: str, context: Path, target: Path) -> None:
    """Have podman write a layout of an image for two platforms."""
    (context / "file").write_text("for another machine\n")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY file /\n")
    for command in (
        ("build", "--platform=linux/arm64", "--tag=localhost/arm:1", str(context)),
        ("manifest", "create", "localhost/both:1"),
        ("manifest", "add", "localhost/both:1", f"containers-storage:{hello}"),
        ("manifest", "add", "localhost/both:1", "containers-storage:localhost/arm:1"),
        ("manifest", "push", "--all", "localhost/both:1", f"oci:{target}:1"),
    ):
        outcome = podman.call(*command)
        assert outcome.status == 0, outcome.text


@pytest.fixture(scope="module")
def archives(
    tmp_path_factory: pytest.TempPathFactory,
    registry: Daemon,
    podman: Podman,
    docker: Docker,
    skopeo: Skopeo,
) -> Path:
    """A directory of archives and layouts, written by docker, podman and skopeo."""
    folder = tmp_path_factory.mktemp("archives")
    hello, single = (
        registry.ref(f"packages/{name}:latest") for name in ("hello", "hello-single")
    )
    done: list[Outcome] = []
    for client in (docker, podman):
        done += [client.pull(ref) for ref in (hello, single)]
    done.append(docker.save(hello, folder / "docker"))
    identity = docker.call("inspect", "--format", "{{.Id}}", hello).out.strip()
    done.append(docker.save(identity, folder / "docker-by-id"))
    # Two equal steps make two equal layers, of which docker writes one.
    context = tmp_path_factory.mktemp("context")
    (context / "file").write_text("the same\n")
    (context / "Dockerfile").write_text(f"FROM {hello}\nCOPY file /\nCOPY file /\n")
    done.append(
        docker.call("build", "--network=none", "--tag=repeated:1", str(context))
    )
    done.append(docker.save("repeated:1", folder / "docker-repeated"))
    plain = (folder / "docker").read_bytes()
    (folder / "docker-gz").write_bytes(gzip.compress(plain))
    (folder / "docker-zst").write_bytes(zstd.compress(plain))
    (folder / "docker-xz").write_bytes(lzma.compress(plain))
    (folder / "docker-26").write_bytes(docker_26(registry))
    done += [
        podman.save(hello, folder / "podman"),
        podman.save(hello, folder / "podman-oci", "--format=oci-archive"),
        podman.call("save", "-m", "-o", str(folder / "podman-several"), single, hello),
    ]
    save_platforms(podman, hello, context, folder / "podman-platforms")
    for target, *options in (
        ("docker-archive:skopeo:hello:2.12",),
        ("oci:skopeo-oci:latest",),
        ("oci:skopeo-oci-plain:latest", "--dest-oci-accept-uncompressed-layers"),
        ("oci-archive:skopeo-oci-zst:latest", "--dest-compress-format=zstd"),
    ):
        form, _, path = target.partition(":")
        done.append(
            skopeo.copy(f"docker://{hello}", f"{form}:{folder}/{path}", *options)
        )
    assert [each.text for each in done if each.status] == []
    return folder


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, archives: Path, store: Path
) -> Iterator[Daemon]:
    """A registry that serves these archives."""
    tmp = tmp_path_factory.mktemp("served")
    reference = daemon.flake(ROOT / "tests" / "flakes" / "archives", tmp / "flake")
    shutil.copytree(archives, tmp / "flake" / "archives")
    with daemon.registry(tmp, reference, "--store", str(store)) as running:
        yield running


def refs(served: Daemon, name: str) -> tuple[str, str]:
    """Give an image's reference by tag, and by digest."""
    answer = served.ask(f"/v2/packages/{name}/manifests/latest", "HEAD")
    digest = answer.headers["docker-content-digest"]
    tagged, pinned = f"packages/{name}:latest", f"packages/{name}@{digest}"
    return served.ref(tagged), served.ref(pinned)


@pytest.mark.parametrize("name", ARCHIVES)
def test_runs(served: Daemon, podman: Podman, name: str) -> None:
    """An archive is served whoever wrote it, and what is in it runs."""
    podman.forget()
    for reference in refs(served, name):
        run = podman.run(reference)
        assert run.status == 0, run.text
        assert run.out.splitlines()[0] in ("Hello, world!", "single")


@pytest.mark.parametrize("name", ["docker", *LAYOUTS])
def test_runs_with_every_client(
    served: Daemon,
    podman: Podman,
    docker: Docker,
    containerd: Containerd,
    skopeo: Skopeo,
    tmp_path: Path,
    name: str,
) -> None:
    """Every client has an image by tag and by digest, and those that can run it."""
    tagged, pinned = refs(served, name)

    def engine(client: Podman | Docker) -> list[Outcome]:
        client.forget()
        return [client.run(tagged), client.pull(pinned)]

    def node() -> list[Outcome]:
        containerd.forget()
        pulls = [containerd.pull(pinned), containerd.pull(tagged)]
        return [containerd.run(tagged), *pulls]

    def copy() -> list[Outcome]:
        whole = skopeo.copy(f"docker://{tagged}", f"dir:{tmp_path}/copy")
        return [whole, skopeo.inspect(pinned)]

    with ThreadPoolExecutor() as pool:
        works = pool.submit(engine, podman), pool.submit(node), pool.submit(copy)
        of_docker = pool.submit(engine, docker).result()
        of_podman, of_containerd, of_skopeo = (work.result() for work in works)
    if name == "skopeo-oci-zst":
        # docker before 23 knows no layers that are packed with zstd
        assert "failed to register layer" in of_docker[0].err
        of_docker = []
    outcomes = [*of_docker, *of_podman, *of_containerd, *of_skopeo]
    assert [each.text for each in outcomes if each.status] == []
    for run in (of_podman[0], of_containerd[0], *of_docker[:1]):
        assert run.out.splitlines()[0] == "Hello, world!"


def in_layout(path: Path, name: str) -> bytes:
    """Read a file of a layout, which is a directory or an archive."""
    if path.is_dir():
        return (path / name).read_bytes()
    with tarfile.open(path) as archive:
        file = archive.extractfile(name)
        assert file is not None
        return file.read()


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_kept_to_the_byte(
    served: Daemon, archives: Path, skopeo: Skopeo, name: str
) -> None:
    """The manifest that a tool wrote is that which clients get, with its digest."""
    (head,) = json.loads(in_layout(archives / name, "index.json"))["manifests"]
    written = in_layout(archives / name, f"blobs/sha256/{head['digest'][7:]}")
    shown = skopeo.inspect(served.ref(f"packages/{name}:latest"), "--raw")
    assert (shown.status, shown.out.encode()) == (0, written)
    answer = served.ask(f"/v2/packages/{name}/manifests/{head['digest']}")
    assert answer.body == written


def test_each_machine_gets_its_own(
    served: Daemon, docker: Docker, containerd: Containerd, skopeo: Skopeo
) -> None:
    """Of an image for several platforms each client gets that which it asks for."""
    reference = served.ref("packages/podman-platforms:latest")
    arm = "--platform=linux/arm64"
    assert docker.pull(reference, arm).status == 0
    form = "--format={{.Architecture}}"
    assert docker.call("inspect", form, reference).out == "arm64\n"
    assert containerd.pull(reference, arm).status == 0
    for architecture in ("amd64", "arm64"):
        shown = skopeo.call(
            f"--override-arch={architecture}", "inspect", "--tls-verify=false",
            f"docker://{reference}",
        )  # fmt: skip
        assert json.loads(shown.out)["Architecture"] == architecture, shown.text


def test_config_is_kept_to_the_byte(served: Daemon, archives: Path) -> None:
    """The image's id is the same from the registry as from `docker load`."""
    manifest = served.ask("/v2/packages/docker/manifests/latest").json
    digest = manifest["config"]["digest"]
    member = f"{digest.removeprefix('sha256:')}.json"
    in_archive = subprocess.run(
        ["tar", "-xOf", archives / "docker", member], capture_output=True, check=True
    ).stdout
    assert served.ask(f"/v2/packages/docker/blobs/{digest}").body == in_archive
