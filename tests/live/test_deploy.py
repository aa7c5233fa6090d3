"""What deployments are made of, as the programs that deploy it read it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import daemon
from tests.daemon import ROOT, Daemon
from tests.live.clients import Docker

SYSTEMD = ROOT / "deploy" / "systemd"
KUBERNETES = ROOT / "deploy" / "kubernetes"

#: How much systemd thinks that the service could do: 10 is everything.
EXPOSURE = 3.1

#: Flakes that are put together: ours with the tests' nixpkgs, and what is asked of both.
ASKED = """
{{
  inputs.nixpkgs.url = "path:{tmp}/nixpkgs";
  inputs.registry.url = "path:{tmp}/registry";
  inputs.registry.inputs.nixpkgs.follows = "nixpkgs";
  outputs = {{ self, nixpkgs, registry }}: {{ asked = {asked}; }};
}}
"""

PACKAGE = """
let package = registry.packages.x86_64-linux.forge-registry; in {
  same = package == registry.packages.x86_64-linux.default;
  image = package.image.arguments.config;
  dependencies = map (each: each.name) package.arguments.dependencies;
}
"""

MODULE = """
let
  module = registry.nixosModules.default {
    inherit (nixpkgs) lib;
    pkgs = nixpkgs.legacyPackages.x86_64-linux;
    config = {
      nix.settings.allowed-users = [ "*" ];
      services.forge-registry = {
        enable = true;
        package = module.options.services.forge-registry.package.default;
        environmentFile = null;
        openFirewall = false;
        socket = null;
        secretFiles = { };
        settings = { };
      } // ({ %s });
    };
  };
  broken = builtins.filter (each: !each.assertion) module.config.assertions;
in {
  unit = module.config.systemd.services.forge-registry;
  sockets = module.config.systemd.sockets;
  ports = module.config.networking.firewall.allowedTCPPorts;
  broken = map (each: each.message) broken;
}
"""


def run(*argv: str | Path, **env: str) -> str:
    """Run a command to its end, which must be a good one; give what it said."""
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=120,
        env={**daemon.environment(), **env},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def ask(tmp: Path, asked: str) -> Any:
    """Have nix evaluate something of our flake."""
    registry = tmp / "registry"
    registry.mkdir()
    for name in ("flake.nix", "pyproject.toml", ".env.example"):
        shutil.copy(ROOT / name, registry)
    shutil.copytree(ROOT / "deploy", registry / "deploy")
    shutil.copytree(ROOT / "tests" / "flakes" / "nixpkgs", tmp / "nixpkgs")
    shutil.copy(ROOT / "pyproject.toml", tmp / "nixpkgs")
    (tmp / "asked").mkdir()
    (tmp / "asked" / "flake.nix").write_text(ASKED.format(tmp=tmp, asked=asked))
    argv = (
        "nix", "--extra-experimental-features", "nix-command flakes",
        "--store", tmp / "store", "eval", "--json", f"path:{tmp}/asked#asked",
    )  # fmt: skip
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        env=daemon.environment(XDG_CACHE_HOME=str(tmp / "cache")),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units, with a program that is there."""
    found = []
    for unit in SYSTEMD.iterdir():
        text = unit.read_text().replace(
            "/opt/forge-registry/bin/forge-registry", "/bin/true"
        )
        found.append(tmp_path / unit.name)
        found[-1].write_text(text)
    return found


def test_units(units: list[Path]) -> None:
    """systemd finds nothing to say about the units."""
    assert run("systemd-analyze", "verify", "--man=no", *units) == ""


def test_exposure(units: list[Path]) -> None:
    """The service can do no more than the documentation says."""
    (service,) = (unit for unit in units if unit.suffix == ".service")
    said = run("systemd-analyze", "security", "--offline=true", "--no-pager", service)
    (level,) = re.findall(r"exposure level for \S+ ([0-9.]+)", said)
    assert float(level) <= EXPOSURE
    assert f"exposure level is {EXPOSURE}" in (ROOT / "docs/operations.md").read_text()


def deployment() -> Any:
    """Give the Deployment that kubectl makes of the kustomization."""
    made = yaml.safe_load_all(run("kubectl", "kustomize", KUBERNETES))
    (found,) = (each for each in made if each["kind"] == "Deployment")
    return found


def test_kustomization() -> None:
    """kubectl puts everything together, and the names lead to one another."""
    made = list(yaml.safe_load_all(run("kubectl", "kustomize", KUBERNETES)))
    kinds = {each["kind"]: each["metadata"]["name"] for each in made}
    assert len(kinds) == len(made) == 4
    pod = deployment()["spec"]["template"]["spec"]
    (settings,) = pod["containers"][0]["envFrom"]
    assert settings["configMapRef"]["name"] == kinds["ConfigMap"]
    claim = pod["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert claim == kinds["PersistentVolumeClaim"]
    monitor = yaml.safe_load(run("kubectl", "kustomize", KUBERNETES / "monitoring"))
    (service,) = (each for each in made if each["kind"] == "Service")
    assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]


def test_no_field_is_misspelt(tmp_path: Path) -> None:
    """Every field of the Deployment is one that Kubernetes knows."""
    wanted = deployment()
    file = tmp_path / "deployment.yaml"
    file.write_text(yaml.safe_dump(wanted))
    image = wanted["spec"]["template"]["spec"]["containers"][0]["image"]
    known = json.loads(
        run(
            "kubectl", "set", "image", "--local", "-f", file,
            f"registry={image}x", "-o", "json",
        )
    )  # fmt: skip
    # Newer than Debian's kubectl.
    wanted["spec"]["template"]["spec"].pop("hostUsers")

    def check(want: Any, have: Any) -> None:
        if isinstance(want, dict):
            for key, value in want.items():
                assert key in have, key
                check(value, have[key])
        elif isinstance(want, list):
            for each, other in zip(want, have, strict=True):
                check(each, other)
        else:
            assert have in (want, f"{want}x")

    check(wanted, known)


def test_compose() -> None:
    """docker-compose reads the file, and takes another image's name."""
    said = run(
        "docker-compose", "-f", ROOT / "compose.yaml", "config",
        FORGE_IMAGE="registry.example/forge-registry:1",
    )  # fmt: skip
    service = yaml.safe_load(said)["services"]["registry"]
    assert service["image"] == "registry.example/forge-registry:1"


#: As registries do: nix builds, and bubblewrap runs what nix has built.
BUILD = """
nix --extra-experimental-features 'nix-command flakes' --store /data/store \\
  build --no-link "path:/flake#packages.x86_64-linux.hello.image"
exec bwrap --unshare-all --die-with-parent --cap-drop ALL --hostname localhost \\
  --ro-bind /usr /usr --ro-bind /lib /lib --ro-bind-try /lib64 /lib64 --ro-bind /bin /bin \\
  --proc /proc --dev /dev --tmpfs /tmp -- echo sandboxed
"""


def test_sandbox_in_a_container(
    registry: Daemon, docker: Docker, example: str, tmp_path: Path
) -> None:
    """What compose.yaml allows is enough for Nix and for images that are scripts."""
    data, settings = tmp_path / "data", tmp_path / "nix"
    settings.mkdir()
    (settings / "nix.conf").write_text(daemon.NIX_CONFIG)
    data.mkdir()
    os.chown(data, 1000, 1000)
    service = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"][
        "registry"
    ]
    ours = [each for each in ("/usr", "/lib", "/lib64", "/nix") if Path(each).exists()]
    mounts = {example.removeprefix("path:"): "/flake", str(settings): "/etc/nix"}
    reference = registry.ref("packages/hello:latest")
    assert docker.pull(reference).status == 0
    outcome = docker.call(
        "run", "--rm", "--network=none", "--user=1000:1000", "--tmpfs=/tmp:mode=1777",
        *(f"--cap-drop={each}" for each in service["cap_drop"]),
        *(f"--security-opt={each}" for each in service["security_opt"]),
        *(f"--volume={each}:{each}:ro" for each in ours),
        *(f"--volume={here}:{there}:ro" for here, there in mounts.items()),
        f"--volume={data}:/data", "--env=HOME=/data", "--env=USER=forge-registry",
        f"--env=PATH={os.environ['PATH']}", "--entrypoint=", reference,
        "sh", "-euc", BUILD,
    )  # fmt: skip
    subprocess.run(["chmod", "-R", "u+w", data], check=True)
    assert outcome.status == 0, outcome.text
    assert outcome.out == "sandboxed\n"


def test_package(tmp_path: Path) -> None:
    """The flake's package needs what pyproject.toml does, and has an image of itself."""
    package = ask(tmp_path, PACKAGE)
    assert package["same"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["traces"]]
    names = (re.split(r"[^A-Za-z0-9._-]", each)[0] for each in needed)
    assert sorted(package["dependencies"]) == sorted(
        re.sub(r"[._]", "-", name) for name in names
    )
    image = package["image"]
    assert image["Entrypoint"][-1].endswith("/forge-registry/bin/forge-registry")
    assert image["Healthcheck"]["Interval"] == 30 * 10**9


def test_module(tmp_path: Path) -> None:
    """NixOS starts the package with the settings and the secrets that are given."""
    module = ask(
        tmp_path,
        MODULE
        % """
        settings = { FORGE_TAGS = [ "v*" "branch:main" ]; FLASK_PORT = 7000; FORGE_PINS = "a%b"; };
        secretFiles = { FORGE_TOKEN_FILE = "/run/keys/token"; other = "/run/keys/other"; };
        openFirewall = true;
        """,
    )
    assert module["broken"] == []
    assert module["ports"] == [7000]
    unit = module["unit"]
    assert unit["environment"] == {
        "FLASK_PORT": "7000",
        "FORGE_PINS": "a%%b",
        "FORGE_TAGS": "v* branch:main",
        "FORGE_TOKEN_FILE": "%d/FORGE_TOKEN_FILE",
    }
    loaded = unit["serviceConfig"]["LoadCredential"]
    assert loaded == ["FORGE_TOKEN_FILE:/run/keys/token", "other:/run/keys/other"]
    assert unit["serviceConfig"]["ExecStart"][1].endswith("/bin/forge-registry")


def test_module_refuses(tmp_path: Path) -> None:
    """NixOS tells of a setting that there is none of, before anything is started."""
    wrong = 'settings.FORGE_TAG_TLL = 3; socket = "[::1]:7000"; openFirewall = true;'
    module = ask(tmp_path, MODULE % wrong)
    assert module["unit"]["environment"]["FLASK_PORT"] == "systemd:domain=INET6:index=0"
    unknown, port = module["broken"]
    assert "there is no setting FORGE_TAG_TLL; there are" in unknown
    assert "the port is not known" in port
