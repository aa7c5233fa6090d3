"""
Write what is asked of nix: arguments, queries, attributes. Pure.

Source: nix manual, "nix flake metadata", "nix eval", "nix build"; each was tried on
2.8 and 2.26.
"""

from __future__ import annotations

import json
import re
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Any

from attrs import frozen

#: The oldest nix whose command line is understood here.
OLDEST = (2, 8)

_VERSION = re.compile(r"(\d+)\.(\d+)[^\s()]*\s*\Z")
_ATTRIBUTE_CHARACTERS = frozenset(ascii_lowercase + ascii_uppercase + digits + "._-")

_BASE = (
    "nix",
    "--extra-experimental-features",
    "nix-command flakes",
    "--log-format",
    "internal-json",
)
#: A flake's own nixConfig is code that runs outside the sandbox; two builds of one
#: derivation look for each other's end every second rather than every five.
_OPTIONS = (
    "--option",
    "accept-flake-config",
    "false",
    "--option",
    "build-poll-interval",
    "1",
)

_LOWER = (
    "lower = builtins.replaceStrings"
    f" [ {' '.join(json.dumps(c) for c in ascii_uppercase)} ]"
    f" [ {' '.join(json.dumps(c) for c in ascii_lowercase)} ];"
)

#: What is there of a package, and how its output is called; one evaluation.
#: Repository names are lower case and attributes need not be.
_PACKAGE = """
ps:
let
  want = "%(attribute)s";
  output = "%(output)s";
  %(lower)s
  try = default: x: let r = builtins.tryEval x; in if r.success then r.value else default;
  names = if builtins.hasAttr want ps then [ want ]
    else builtins.filter (n: lower n == want) (builtins.attrNames ps);
in
if names == [ ] then {
    status = "no-package";
    # Of packages there may be very many, each of which takes time to look at.
    names = if output != "containers" then builtins.attrNames ps
      else builtins.filter (n: try false (ps.${n} ? containers)) (builtins.attrNames ps);
  }
else if builtins.length names > 1 then { status = "ambiguous"; inherit names; }
else
  let
    attribute = builtins.head names;
    p = ps.${attribute};
    text = x: try null (if builtins.isString x then x else null);
  in
  if !(p ? ${output}) then {
    status = "no-output";
    inherit attribute;
    has = builtins.filter (o: p ? ${o}) [ "image" "containers" ];
    program = text (p.meta.mainProgram or null);
  }
  else if !(p.${output} ? drvPath) then { status = "no-derivation"; }
  else {
    status = "ok";
    inherit attribute;
    derivation = p.${output}.drvPath;
    version = text (p.version or null);
  }
"""

#: What the flake lists; a package that cannot be evaluated hides only itself. The
#: names of an application's images are known unbuilt where it was made by linkFarm.
_CATALOGUE = """
ps:
let
  try = default: x: let r = builtins.tryEval x; in if r.success then r.value else default;
%(words)s
in map (name: {
  inherit name;
  image = try false (ps.${name} ? image);
  containers = try false (ps.${name} ? containers);
  entries = try [ ] (
    let e = ps.${name}.containers.entries or { };
    in if builtins.isAttrs e then builtins.attrNames e else [ ]);
%(details)s
}) (builtins.attrNames ps)
"""

#: How what packages say of themselves is read: each text by itself, and no more of it
#: than is shown, cut between two characters of UTF-8.
_WORDS = """
  isRest = byte: "~" < byte && byte < builtins.substring 0 1 "¡";
  cut = most: x:
    if builtins.stringLength x <= most then x
    else builtins.substring 0 (builtins.head (builtins.filter
      (n: !(isRest (builtins.substring n 1 x)))
      [ most (most - 1) (most - 2) (most - 3) 0 ])) x;
  text = most: x: try null (if builtins.isString x then cut most x else null);
  some = xs: builtins.genList (builtins.elemAt xs)
    (if builtins.length xs < 8 then builtins.length xs else 8);
  list = x: try [ ] (if builtins.isList x then some x else [ x ]);
  texts = most: xs: builtins.filter builtins.isString (map (text most) xs);
  licence = x: if builtins.isAttrs x then x.spdxId or x.shortName or x.fullName or null
    else x;"""

_DETAILS = """
  version = text 100 (ps.${name}.version or null);
  description = text 1000 (ps.${name}.meta.description or null);
  licences = texts 100 (map licence (list (ps.${name}.meta.license or null)));
  homepages = texts 1000 (list (ps.${name}.meta.homepage or null));"""


#: Source: nix `src/libstore/builtins/buildenv.cc`; tried on 2.8.
_TRIAL = """
derivation {
  name = "forge-registry-doctor";
  system = "%s";
  builder = "builtin:buildenv";
  derivations = [ ];
  manifest = "/none";
  nonce = "%s";
}
"""

#: How images name what Nix names otherwise.
_MACHINES = {
    "x86_64": "amd64",
    "i686": "386",
    "aarch64": "arm64",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "powerpc64le": "ppc64le",
    "loongarch64": "loong64",
}


@frozen
class Command:
    """
    How nix is called here.

    :ivar system: such as ``x86_64-linux``; whose packages are served.
    :ivar store: as ``nix --store`` has it; empty for nix's own choice.
    """

    system: str
    store: str = ""

    @property
    def packages(self) -> str:
        """The attribute under which everything that can be served lies."""
        return f"packages.{self.system}"

    def lock(self, flake: str) -> list[str]:
        """Resolve a flake ref; prints JSON whose ``url`` is the locked ref."""
        return self._nix(
            "flake", "metadata", "--json", "--refresh", "--no-write-lock-file",
            "--", flake,
        )  # fmt: skip

    def evaluate(self, locked: str, query: str, *, builds: bool = True) -> list[str]:
        """
        Apply a query to the packages of a locked flake; prints JSON.

        :param builds: whether the flake may build something to evaluate the rest.
        """
        pure = () if builds else ("--option", "allow-import-from-derivation", "false")
        return self._nix(
            "eval", "--json", "--no-write-lock-file", *pure, "--apply", query,
            "--", f"{_ref(locked)}#{self.packages}",
        )  # fmt: skip

    def build(self, locked: str, attribute: str, link: str) -> list[str]:
        """
        Build one attribute of a locked flake; prints JSON.

        :param attribute: as `installable` writes it.
        :param link: path of the link to the output, which is a GC root.
        """
        return self._nix(
            "build", "--json", "--out-link", link, "--no-write-lock-file",
            "--", f"{_ref(locked)}#{attribute}",
        )  # fmt: skip

    def closure(self, path: str) -> list[str]:
        """Ask what a store path, or that of a file below it, refers to; prints lines."""
        return self._nix("path-info", "--recursive", "--", path)

    def probe(self) -> list[str]:
        """Evaluate a trifle that needs flakes and the store; prints ``true``."""
        return self._nix("eval", "--expr", "builtins ? getFlake")

    def trial(self, nonce: str) -> list[str]:
        """
        Build an empty directory, by what nix itself can build.

        :param nonce: another one each time, or nothing is built; letters and digits.
        """
        return self._nix("build", "--no-link", "--expr", _TRIAL % (self.system, nonce))

    def _nix(self, *words: str) -> list[str]:
        store = ("--store", self.store) if self.store else ()
        return [*_BASE, *store, *_OPTIONS, *words]

    def installable(self, attribute: str, output: str) -> str:
        """
        Write what `build` takes: a quoted attribute, confined to the packages.

        :param attribute: letters, digits and ``. _ -`` only, which nix does not
            interpret within quotes.
        """
        if not attribute or not _ATTRIBUTE_CHARACTERS.issuperset(attribute):
            raise ValueError(attribute)
        return f'{self.packages}."{attribute}".{output}'


def limited(argv: list[str], memory_bytes: int) -> list[str]:
    """
    Bound the memory that a command may have.

    Its writable memory, rather than its addresses, of which some runtimes reserve any
    number. Source: setrlimit(2), RLIMIT_DATA; prlimit(1).

    :param memory_bytes: 0 for no bound.
    """
    return ["prlimit", f"--data={memory_bytes}", *argv] if memory_bytes else argv


def abandoned(argv: list[str]) -> list[str]:
    """
    Have a command killed when the registry is gone, rather than told to end.

    An evaluation of nix 2.8 takes no notice of SIGTERM, and may go on for ever. What it
    has built meanwhile, if anything, ends by itself. Source: prctl(2), PR_SET_PDEATHSIG.
    """
    return ["setpriv", "--pdeathsig", "KILL", "--", *argv]


def _ref(locked: str) -> str:
    return locked.partition("#")[0]


def package_query(attribute: str, output: str) -> str:
    """
    Ask what there is of a package.

    :param attribute: a component of a repository name, which needs no escaping.
    :param output: ``image`` or ``containers``.
    """
    values = {"attribute": attribute, "output": output, "lower": _LOWER}
    return _PACKAGE % values


def catalogue_query(*, details: bool = False) -> str:
    """
    Ask which packages and applications there are.

    :param details: also what they say of themselves, which may be so broken that
        nothing is answered at all.
    """
    if details:
        return _CATALOGUE % {"words": _WORDS, "details": _DETAILS}
    return _CATALOGUE % {"words": "", "details": ""}


def parse_locked(metadata: Any) -> str | None:
    """
    Read what ``nix flake metadata --json`` printed.

    :returns: the locked flake ref. Of a git tree with changes that are not committed,
        which nix does not lock: its ref, ``#``, and the hash of its content.
    """
    match metadata:
        case {"url": str(url), "revision": str()}:
            return url
        case {"url": str(url), "locked": {"narHash": str(content)}}:
            return url if "narHash=" in url else f"{url}#{content}"
        case {"url": str(url)}:
            return url if "narHash=" in url else f"{url}#"
    return None


def platform_of(system: str) -> str:
    """
    Write a Nix system as images name platforms, such as ``linux/amd64``.

    Source: OCI image-spec v1.1, "Image Index", platform; Go, GOARCH.
    """
    machine, _, kernel = system.partition("-")
    return f"{kernel}/{_MACHINES.get(machine, machine)}"


def is_pure(locked: str) -> bool:
    """Whether it names a content, rather than whatever a git tree is just now."""
    return "#" not in locked


def is_here(locked: str) -> bool:
    """Whether a flake is a directory of this machine, which changes under our hands."""
    return locked.startswith(("path:", "git+file:"))


def parse_version(text: str) -> tuple[int, int] | None:
    """
    Read what ``nix --version`` prints, of Nix itself and of its relatives.

    :returns: major and minor; None where there is no version in it.
    """
    match = _VERSION.search(text.strip())
    return None if match is None else (int(match[1]), int(match[2]))


def parse_outputs(text: bytes) -> tuple[str, str | None]:
    """
    Read what ``nix build --json`` printed for one installable.

    :returns: store paths of the output ``out``, or of the only one, and of the
        derivation, if it was one.
    :raises ValueError: it is of no shape that any version prints.
    """
    match json.loads(text):
        case [str(path)]:
            return path, None
        case [{"outputs": dict(outputs)} as built] if outputs:
            path = outputs.get("out", next(iter(outputs.values())))
            if isinstance(path, str):
                return path, built.get("drvPath")
    raise ValueError("not the outputs of one installable")
