"""
Read an application's compose file, and have it name other images. Pure.

Only the words that change are replaced where they stand: comments, order, anchors and
layout stay as their author wrote them, and nothing in the file is made into objects.

Source: the Compose Specification, "Services", "Interpolation", "Fragments", "Merge".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import yaml
from attrs import frozen

from forgereg.oci.errors import ArchiveInvalid

#: What a compose file may be called; the first that is there counts.
#: Source: the Compose Specification, "Compose file".
FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")

#: How large a compose file may be, in bytes.
MAX_BYTES = 2**20
#: How many keys and values it may have, and how deep they may lie in one another.
_MAX_NODES, _MAX_DEPTH = 50_000, 64

_STRING = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"

#: A variable, and what it is where it is not set.
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?-([^{}]*)|:?[?+][^{}]*)?\})")
#: A variable alone that says what it is where it is not set.
_CHOICE = re.compile(r"(\$\{\w+:?-)([^{}]*)(\})")
#: What may stand before a value: a tag, which goes, and an anchor, which stays.
_ANCHOR = re.compile(r"(?:!\S*\s+)?(&\S+)\s")
#: What needs no quotes anywhere.
_PLAIN = re.compile(r"[a-z][a-z-]+")
#: What would keep an image from being pulled.
_NOT_PULLED = ("never", "build")

#: From a reference as somebody wrote it to what is to stand instead, if anything.
Find = Callable[[str], str | None]


class _Loader(yaml.SafeLoader):
    """Reads a file that may have been written to do harm."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._nodes += 1
        self._depth += 1
        if self._nodes > _MAX_NODES or self._depth > _MAX_DEPTH:
            raise ArchiveInvalid(
                "the compose file is not served: it may have no more than"
                f" {_MAX_NODES} keys and values, {_MAX_DEPTH} deep"
            )
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


@frozen
class _Word:
    """
    A word of the file that can be replaced.

    :ivar start: in characters; where the anchor begins, if it has one.
    :ivar anchor: as ``&name``, with a space; empty where it has none.
    """

    value: str
    start: int
    stop: int
    anchor: str

    def edit(self, value: str) -> tuple[int, int, str]:
        """Say what is to stand where it stands."""
        # In quotes it is a string wherever it stands; YAML's are those of JSON, too.
        written = value if _PLAIN.fullmatch(value) else json.dumps(value)
        return self.start, self.stop, self.anchor + written


@frozen
class _Service:
    """
    What a service says of its image.

    :ivar others: by key, what else there is of it, also through merged mappings.
    """

    image: _Word
    others: tuple[tuple[str, _Word], ...]


@frozen
class ComposeFile:
    """A compose file that could be read."""

    text: str
    _services: tuple[_Service, ...]

    def rewritten(self, find: Find) -> str:
        """
        Have services pull other images.

        A variable that chooses the image goes on to do so: what it is where it is not
        set is replaced. A service whose image is replaced is not built, nor kept from
        being pulled.
        """
        edits: set[tuple[int, int, str]] = set()
        for service in self._services:
            new = _replace(service.image.value, find)
            if new is None:
                continue
            edits.add(service.image.edit(new))
            for key, word in service.others:
                if key == "build":
                    edits.add(word.edit("x-build"))
                elif word.value.strip() in _NOT_PULLED:
                    edits.add(word.edit("missing"))
        parts, at = [], 0
        for start, stop, new in sorted(edits):
            parts += [self.text[at:start], new]
            at = stop
        return "".join([*parts, self.text[at:]])

    @property
    def images(self) -> list[str]:
        """What `rewritten` asks for, in the order of the file."""
        return [_default(service.image.value)[1] for service in self._services]


def _replace(reference: str, find: Find) -> str | None:
    before, default, after = _default(reference)
    new = find(default)
    return None if new is None else f"{before}{new}{after}"


def _default(text: str) -> tuple[str, str, str]:
    """
    Say which image is meant where no variable is set.

    :returns: it, and what is to stay before and after it.
    """
    choice = _CHOICE.fullmatch(text)
    before, text, after = choice.groups() if choice else ("", text, "")
    for _ in range(_MAX_DEPTH):
        text, found = _VARIABLE.subn(lambda variable: variable[3] or "", text)
        if not found:
            break
    return before, text, after


def parse_compose(data: bytes) -> ComposeFile:
    """
    Read a compose file.

    :param data: no more than `MAX_BYTES`, and one that tells that there was more.
    :raises ArchiveInvalid: it is none, or would take too long to read.
    """
    if len(data) > MAX_BYTES:
        raise ArchiveInvalid(
            f"the compose file is not served: it has more than {MAX_BYTES} bytes"
        )
    try:
        text = data.decode("utf-8-sig")
        loader = _Loader(text)
        try:
            services: list[_Service] = []
            while loader.check_node():
                document = loader.get_node()
                services += _services(document, text) if document else ()
        finally:
            loader.dispose()
    except UnicodeDecodeError as e:
        raise ArchiveInvalid("the compose file is not text in UTF-8") from e
    except (yaml.YAMLError, ValueError) as e:
        raise ArchiveInvalid(f"the compose file is not YAML: {_why(e)}") from e
    return ComposeFile(text, tuple(services))


def _why(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        what = "; ".join(filter(None, (error.context, error.problem)))
        return f"{what} in line {error.problem_mark.line + 1}"
    return str(error).partition("\n")[0]


def _services(document: yaml.Node, text: str) -> Iterator[_Service]:
    for key, services in _entries(document):
        if key.value != "services":
            continue
        for _, service in _entries(services):
            # The first of a name is its own, the others are of what it merges.
            said: dict[str, tuple[yaml.ScalarNode, yaml.Node]] = {}
            for name, value in _merged(service):
                said.setdefault(name.value, (name, value))
            image = said.get("image", (None, None))[1]
            if not isinstance(image, yaml.ScalarNode) or image.tag != _STRING:
                continue
            others = []
            if "build" in said:
                others.append(("build", _word(said["build"][0], text)))
            policy = said.get("pull_policy", (None, None))[1]
            if isinstance(policy, yaml.ScalarNode):
                others.append(("pull_policy", _word(policy, text)))
            yield _Service(_word(image, text), tuple(others))


def _entries(node: yaml.Node) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield key, value


def _merged(node: yaml.Node) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    """Give a mapping's entries, then those of the mappings that are merged into it."""
    # Each is looked at once, however often the file says so.
    queue, seen = [node], {id(node)}
    for each in queue:
        for key, value in _entries(each):
            if key.tag != _MERGE:
                yield key, value
                continue
            parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
            queue += [part for part in parts if id(part) not in seen]
            seen.update(map(id, parts))


def _word(node: yaml.ScalarNode, text: str) -> _Word:
    start, stop = node.start_mark.index, node.end_mark.index
    # The end of a block of lines is the begin of the next line.
    stop -= len(text[start:stop]) - len(text[start:stop].rstrip())
    anchor = _ANCHOR.match(text, start, stop)
    return _Word(node.value.strip(), start, stop, anchor[1] + " " if anchor else "")


def image_meant(
    reference: str,
    names: Collection[str],
    tags: Mapping[str, Iterable[str]] | None = None,
) -> str | None:
    """
    Say which image of an application a reference means.

    :param reference: such as ``localhost/web:latest``, ``web`` or ``web@sha256:…``.
    :param names: of the application's images: that which the reference ends in counts.
    :param tags: by such a name, the references that its archive has.
    :returns: None where it is no image of the application, such as ``postgres:15``.
    """
    path = _path(reference)
    leaf = path.rpartition("/")[2].lower()
    if leaf in names:
        return leaf
    for name, references in sorted((tags or {}).items()):
        if path and any(_path(each) == path for each in references):
            return name
    return None


def _path(reference: str) -> str:
    """Give a reference's repository, without what stands for no registry at all."""
    path = reference.partition("@")[0]
    head, slash, leaf = path.rpartition("/")
    path = head + slash + leaf.partition(":")[0]
    return re.sub(r"\A(localhost|(index\.)?docker\.io)/(library/)?", "", path)
