"""
What can go wrong, in the registry's own words.

Nothing here knows HTTP: `forgereg.web.problem` holds the one table that turns
these into responses.
"""

from __future__ import annotations

from attrs import define, field


@define
class RegistryError(Exception):
    """
    A request cannot be answered, and it is not a bug.

    :ivar detail: what the client reads about it: what went wrong and what to do;
        never a secret.
    :ivar is_repeated: whether it is remembered from before, and nothing was tried.
    :ivar build_id: of the build that it is about, if there is one to be looked at.
    """

    detail: str
    is_repeated: bool = False
    build_id: str | None = field(default=None, eq=False)

    def __str__(self) -> str:
        return self.detail


class NameInvalid(RegistryError):
    """The repository name breaks the grammar of names."""


class NameUnknown(RegistryError):
    """The name is well formed, but nothing in the flake has it."""


class DigestInvalid(RegistryError):
    """The digest breaks the grammar of digests."""


class ManifestUnknown(RegistryError):
    """There is no such tag or digest, or not in a form that the client reads."""


class ReferrersUnknown(ManifestUnknown):
    """A tag by which clients look for what refers to a manifest: nothing does."""


class BlobUnknown(RegistryError):
    """No image of this name has a blob of this digest."""


class PageInvalid(RegistryError):
    """A listing was asked for with a page size that is not a number."""


class RangeNotSatisfiable(RegistryError):
    """
    Every stretch that was asked for begins past the end of the blob.

    :ivar detail: the blob's size in bytes, in words.
    """


class FlakeUnavailable(RegistryError):
    """The flake could not be fetched or read."""


class EvaluationFailed(RegistryError):
    """Nix could not evaluate what the flake says about the image."""


class BuildFailed(RegistryError):
    """Nix ended with a non-zero status."""


class BuildCancelled(RegistryError):
    """Somebody who may has ended the build."""


class BuildTimedOut(RegistryError):
    """Nix was still at work when its time was up."""


class NixEnded(RegistryError):
    """Nix was ended, or never began, and not by us; it may do better next time."""


class ArchiveInvalid(RegistryError):
    """What Nix built is not an archive that can be served."""


class DiskFull(RegistryError):
    """There is no room on the disk for what was to be written."""


class ShuttingDown(RegistryError):
    """The registry is stopping, and what was asked for needs work."""


class TooManyBuilds(RegistryError):
    """The queue of builds is full."""


class StillBuilding(RegistryError):
    """The build goes on, and the client is not to wait any longer for it now."""


class BuildUnknown(RegistryError):
    """No build that is remembered has this id."""


class BuildOver(RegistryError):
    """The build has ended, and what was asked for needs one that runs."""


class RequestInvalid(RegistryError):
    """What was sent to the control API makes no sense."""


class Forbidden(RegistryError):
    """Who asks may not change anything here."""
