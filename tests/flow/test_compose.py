"""Tests for `forgereg.flow.compose`."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from forgereg.flow.compose import MAX_BYTES, image_meant, parse_compose
from forgereg.oci.errors import ArchiveInvalid

NEW = "localhost:6443/applications/shop/web@sha256:0"


def find(reference: str) -> str | None:
    return NEW if image_meant(reference, ["web"]) else None


def rewritten(text: str) -> str:
    return parse_compose(text.encode()).rewritten(find)


def service(text: str) -> Any:
    """Rewrite a service, and read it as compose does."""
    return yaml.safe_load(rewritten(f"services:\n  x: {text}\n"))["services"]["x"]


def test_nothing_else_changes() -> None:
    """Comments, order and layout stay as they were written."""
    text = """\
# a shop
x-labels: &labels   {a: b}
services:
    web:
      labels: *labels
      image:    'localhost/web:latest'   # ours
      ports: [ "80:80",
               "81:81" ]
    db: { image: postgres:15, environment: {image: web} }
volumes: {web: }
"""
    assert rewritten(text) == text.replace("'localhost/web:latest'", f'"{NEW}"')


@pytest.mark.parametrize(
    "image",
    [
        "web",
        "'web'",
        '"web:1"',
        "localhost/web",
        "docker.io/library/web:1",
        "ghcr.io:443/acme/web:1@sha256:" + "0" * 64,
        "!!str web",
        "!!str &anchor web",
        "&anchor web",
        "|\n      web:latest",
        ">-\n      web\n\n",
        "localhost/web:${TAG:-latest}",
        "localhost/web:$TAG",
        "${REGISTRY-localhost}/web:${TAG:?say which}",
        "${A:-${B:-web}}",
    ],
)
def test_images_of_the_application(image: str) -> None:
    """However an image of the application is written, it is found."""
    assert service(f"\n    image: {image}") == {"image": NEW}


@pytest.mark.parametrize(
    "image",
    ["postgres:15", "web2", "web/x", "''", "1", "null", "[web]", "'${IMAGE}'", "$web"],
)
def test_other_images(image: str) -> None:
    """What is no image of the application stays as it is."""
    text = f"services: {{x: {{image: {image}}}}}\n"
    assert rewritten(text) == text


def test_choices() -> None:
    """A variable that chooses the image goes on to do so."""
    chosen = service("{image: '${IMAGE:-localhost/web:latest}'}")
    assert chosen == {"image": f"${{IMAGE:-{NEW}}}"}
    assert service("{image: '${IMAGE-web:$TAG}'}") == {"image": f"${{IMAGE-{NEW}}}"}


def test_shared_services() -> None:
    """What services share by anchors and merges is replaced where it is written."""
    text = """\
x-web: &web
  image: &image web
  pull_policy: never
x-more: &more [ *web, {image: other} ]
services:
  a: *web
  b: {<<: *web, image: postgres:15}
  c: {<<: *more}
  d: {image: *image}
  e: &e {<<: [*e, *web]}
"""
    read = yaml.safe_load(rewritten(text.replace("[*e, *web]", "*web")))["services"]
    images = {name: each["image"] for name, each in read.items()}
    assert images == {n: "postgres:15" if n == "b" else NEW for n in "abcde"}
    assert {read[n]["pull_policy"] for n in "abce"} == {"missing"}
    assert rewritten(text).count(NEW) == 1


@pytest.mark.parametrize(
    "build", ["build: .", '"build": {context: .}', "build:\n      context: ."]
)
def test_services_that_are_built(build: str) -> None:
    """A service whose image is here is not built: what it would be made of is not."""
    read = service(f"\n    {build}\n    image: web")
    assert read.keys() == {"x-build", "image"}
    read = service(f"\n    {build}\n    image: other")
    assert read.keys() == {"build", "image"}


@pytest.mark.parametrize(
    ("policy", "becomes"),
    [("never", "missing"), ("build", "missing"), ("always", "always"), ("daily",) * 2],
)
def test_pull_policies(policy: str, becomes: str) -> None:
    """An image that had to be there before is pulled."""
    assert service(f"{{image: web, pull_policy: {policy}}}")["pull_policy"] == becomes


def test_several_documents() -> None:
    """Each of several documents is rewritten, and compose's own tags are borne."""
    text = "services: {a: {image: web}}\n---\nservices: {a: {ports: !reset []}}\n"
    assert rewritten(text) == text.replace("web", f'"{NEW}"')


@pytest.mark.parametrize(
    "text", ["", "#", "a", "[]", "services:", "services: []", "services: {a: , b: []}"]
)
def test_files_without_services(text: str) -> None:
    """What has no services is given as it is."""
    assert rewritten(text) == text


def test_begin_and_end_of_lines() -> None:
    """Files of other machines are read as well, with a mark at the begin."""
    read = rewritten("\ufeffservices:\r\n  a:\r\n    image: web\r\n    x: é🎉\r\n")
    assert f'    image: "{NEW}"\r\n    x: é🎉\r\n' in read


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"a: [", "not YAML"),
        (b"*x", "undefined alias 'x' in line 1"),
        (b"a\n\tb: c", "not YAML"),
        (b"\x00", "not YAML"),
        (b"\xff\xfe", "not text in UTF-8"),
        (b"%YAML 9.0\n---\n", "not YAML"),
        (b"#" * (MAX_BYTES + 1), "more than 1048576 bytes"),
        (b"[" * MAX_BYTES, "no more than 50000 keys and values, 64 deep"),
        (b"- " * (MAX_BYTES // 2), "no more than 50000"),
        (b"{a: " * (MAX_BYTES // 4), "no more than 50000"),
        (b"? " * (MAX_BYTES // 2), "no more than 50000"),
        (b"- a\n" * 60_000, "no more than 50000"),
        (b"---\n" * 60_000, "no more than 50000"),
    ],
    ids=lambda value: value[:9].decode("latin-1") if isinstance(value, bytes) else "",
)
def test_hostile_files(data: bytes, why: str) -> None:
    """A file that is none, or would take too long, is refused with the reason."""
    with pytest.raises(ArchiveInvalid) as invalid:
        parse_compose(data)
    assert why in invalid.value.detail
    assert "\n" not in invalid.value.detail


def test_nothing_is_made_of_a_file() -> None:
    """A file makes no objects, and one that would be endless is not written out."""
    rewritten("services: {a: {image: !!python/object/apply:os.abort []}}")
    bomb = "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 99))
    rewritten(f"a0: &a0 x\n{bomb}services: {{x: {{<<: *a98}}}}\n")
    merges = "".join(
        f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}\n" for n in range(1, 99)
    )
    text = f"m0: &m0 {{image: web}}\n{merges}services: {{x: {{<<: *m98}}}}\n"
    assert rewritten(text) == text.replace("image: web", f'image: "{NEW}"')
    rewritten("services: &s {a: *s, <<: *s}")


_TEXT = st.text(st.sampled_from("\n -:{}[]&*!|>'\"#%,?$ab<\\\té"), max_size=60)


@given(_TEXT)
def test_any_text(text: str) -> None:
    """Whatever a file says, it is given as it is where nothing is found, or refused."""
    for whole in (text, f"services:\n  a:\n    image: {text}"):
        try:
            compose = parse_compose(whole.encode())
        except ArchiveInvalid:
            continue
        assert compose.rewritten(lambda _: None) == whole


@given(_TEXT)
def test_any_image(text: str) -> None:
    """Whatever an image is, a file in which it is replaced can be read."""
    whole = f"services:\n  a:\n    image: {text}\n  b: {{}}\n"
    try:
        compose = parse_compose(whole.encode())
        before = yaml.safe_load(whole)
    except (ArchiveInvalid, yaml.YAMLError, ValueError, TypeError):
        return
    if "$" in text or before["services"]["a"].keys() != {"image"}:
        return
    after = yaml.safe_load(compose.rewritten(lambda _: NEW))
    if isinstance(before["services"]["a"]["image"], str):
        before["services"]["a"]["image"] = NEW
    assert after == before


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("web", "web"),
        ("WEB:1", "web"),
        ("shop-front:1.0", "front"),
        ("localhost/shop-front", "front"),
        ("docker.io/library/shop-front@sha256:0", "front"),
        ("ghcr.io/acme/shop-front", None),
        ("ghcr.io/acme/back:2", "back"),
        ("", None),
        ("/", None),
        (":", None),
    ],
)
def test_which_image_is_meant(reference: str, name: str | None) -> None:
    """An image is known by its name here, else by what its archive calls it."""
    tags = {"front": ["localhost/shop-front:1"], "back": ["ghcr.io/acme/back:1", ":"]}
    assert image_meant(reference, ["web", "front", "back2"], tags) == name
