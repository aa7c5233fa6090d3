"""
The one table from what went wrong to what the client reads.

Source: OCI distribution-spec v1.1, "Error codes". Which status makes which client show
the message, and which makes it try again in vain: docs/http-api.md.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus

from attrs import frozen

from forgereg.oci import errors

#: exception → (HTTP status, error code). What nix makes of a flake is no fault of the
#: server: on a 5xx docker and podman drop the message, and podman tries thrice again
#: on any code but these.
TABLE: dict[type[errors.RegistryError], tuple[int, str]] = {
    errors.NameInvalid: (HTTPStatus.BAD_REQUEST, "NAME_INVALID"),
    errors.NameUnknown: (HTTPStatus.NOT_FOUND, "NAME_UNKNOWN"),
    errors.DigestInvalid: (HTTPStatus.BAD_REQUEST, "DIGEST_INVALID"),
    errors.ManifestUnknown: (HTTPStatus.NOT_FOUND, "MANIFEST_UNKNOWN"),
    errors.ReferrersUnknown: (HTTPStatus.NOT_FOUND, "MANIFEST_UNKNOWN"),
    errors.BlobUnknown: (HTTPStatus.NOT_FOUND, "BLOB_UNKNOWN"),
    errors.PageInvalid: (HTTPStatus.BAD_REQUEST, "PAGINATION_NUMBER_INVALID"),
    errors.RangeNotSatisfiable: (
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        "RANGE_INVALID",
    ),
    errors.FlakeUnavailable: (HTTPStatus.UNPROCESSABLE_ENTITY, "MANIFEST_UNKNOWN"),
    errors.EvaluationFailed: (HTTPStatus.UNPROCESSABLE_ENTITY, "MANIFEST_UNKNOWN"),
    errors.BuildFailed: (HTTPStatus.UNPROCESSABLE_ENTITY, "MANIFEST_UNKNOWN"),
    errors.BuildCancelled: (HTTPStatus.UNPROCESSABLE_ENTITY, "MANIFEST_UNKNOWN"),
    errors.BuildTimedOut: (HTTPStatus.UNPROCESSABLE_ENTITY, "MANIFEST_UNKNOWN"),
    errors.ArchiveInvalid: (HTTPStatus.UNPROCESSABLE_ENTITY, "MANIFEST_UNKNOWN"),
    errors.DiskFull: (HTTPStatus.INSUFFICIENT_STORAGE, "UNKNOWN"),
    errors.NixEnded: (HTTPStatus.SERVICE_UNAVAILABLE, "UNKNOWN"),
    errors.ShuttingDown: (HTTPStatus.SERVICE_UNAVAILABLE, "UNKNOWN"),
    errors.TooManyBuilds: (HTTPStatus.TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
    errors.StillBuilding: (HTTPStatus.TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
    errors.BuildUnknown: (HTTPStatus.NOT_FOUND, "UNKNOWN"),
    errors.BuildOver: (HTTPStatus.CONFLICT, "UNSUPPORTED"),
    errors.RequestInvalid: (HTTPStatus.BAD_REQUEST, "UNSUPPORTED"),
    errors.Forbidden: (HTTPStatus.FORBIDDEN, "DENIED"),
}

#: What may stand in a status line: RFC 9112, section 4, without what is not ASCII.
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]+")
#: How long a reason phrase may be, in characters.
_MAX_REASON = 240


@frozen
class Problem:
    """
    An error as HTTP has it.

    :ivar reason: for the status line; where a client drops the body, it prints this.
    :ivar body: JSON.
    """

    status: int
    reason: bytes
    body: bytes


def problem(status: int, code: str, message: str, see: str = "") -> Problem:
    """
    Write an error down as the specification has it.

    :param see: the address of a page that tells more; it is never cut off.
    """
    end = f"see {see}" if see else ""
    reason = _NOT_PRINTABLE.sub(" ", message).strip()
    room = _MAX_REASON - len(f" {end}" * bool(end))
    if len(reason) > room:
        reason = reason[: max(0, room - 3)] + "..."
    whole = "\n".join(filter(None, (message, end)))
    body = json.dumps({"errors": [{"code": code, "message": whole}]})
    return Problem(status, f"{reason} {end}".rstrip().encode(), body.encode())


def describe(error: errors.RegistryError, see: str = "") -> Problem:
    """
    Write down one of the registry's own errors.

    :param see: the address of a page that tells more.
    """
    kind = next(each for each in type(error).__mro__ if each in TABLE)
    status, code = TABLE[kind]
    return problem(status, code, str(error), see)
