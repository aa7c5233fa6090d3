"""Let twistd know of the registry."""

from twisted.application.service import ServiceMaker

forge_registry = ServiceMaker(
    "forge-registry",
    "forgereg.tap",
    "An OCI registry whose images Nix builds when they are pulled.",
    "forge-registry",
)
