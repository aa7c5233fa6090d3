"""What `forgereg.oci.reference` reads, and what it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgereg.oci.errors import DigestInvalid, ManifestUnknown, NameInvalid
from forgereg.oci.reference import (
    Digest,
    Name,
    Tag,
    is_tag,
    parse_digest,
    parse_name,
    parse_reference,
    shown,
)

SHA256 = "0123456789abcdef" * 4
SHA512 = SHA256 * 2

_words = st.text("abyz0189", min_size=1, max_size=6)
_separators = st.sampled_from([".", "_", "__", "-", "--", "-----"])
_components = st.lists(st.tuples(_words, _separators), min_size=1, max_size=3).map(
    lambda pairs: "".join(word + separator for word, separator in pairs) + "z"
)
names = st.lists(st.one_of(_words, _components), min_size=1, max_size=4).map("/".join)


@given(names)
def test_name_is_read_and_written_alike(text: str) -> None:
    """A repository name comes out as it went in."""
    name = parse_name(text)
    assert name == Name(text)
    assert parse_name(str(name)) == name
    assert "/".join(name.components) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "/hello",
        "hello/",
        "packages//hello",
        "Hello",
        "packages/Hello",
        "hello world",
        "hello\n",
        "\nhello",
        "hello\0",
        ".hello",
        "hello.",
        "hello..world",
        "hello___world",
        "hello._world",
        "-hello",
        "hello-",
        "_hello",
        "..",
        "packages/..",
        "../etc",
        "packages/./hello",
        "hello:2.12",
        "hello@sha256",
        "héllo",
        "hello\u0660",  # a digit, but not of ours
        "ﬁle",
        "a#b",
        "a%2fb",
        "a\\b",
        "$(id)",
        "a'b",
        'a"b',
    ],
)
def test_name_that_breaks_the_grammar(text: str) -> None:
    """A name that breaks the grammar is refused, and the message shows it."""
    with pytest.raises(NameInvalid) as caught:
        parse_name(text)
    assert shown(text) in str(caught.value)


def test_name_may_be_as_long_as_is_allowed_and_no_longer() -> None:
    """A name may have 255 characters, or as many as the settings say, and no more."""
    assert str(parse_name("a" * 255)) == "a" * 255
    assert str(parse_name("a" * 300, max_length=300)) == "a" * 300
    with pytest.raises(NameInvalid, match="256 characters; 255 are allowed"):
        parse_name("a" * 256)
    with pytest.raises(NameInvalid, match="3 characters; 2 are allowed"):
        parse_name("abc", max_length=2)


@pytest.mark.parametrize("text", ["a-" * 127 + "!", "a" * 254 + "!", "-" * 255])
def test_name_that_is_made_to_take_long_is_refused_at_once(text: str) -> None:
    """A name that is made to confuse the grammar costs no time."""
    with pytest.raises(NameInvalid):
        parse_name(text)


def test_long_name_does_not_flood_the_message() -> None:
    """An error message repeats only the begin of a long name."""
    with pytest.raises(NameInvalid) as caught:
        parse_name("a" * 100_000)
    assert len(str(caught.value)) < 300


@given(st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", fullmatch=True))
def test_tag_is_read_and_written_alike(text: str) -> None:
    """A tag comes out as it went in."""
    assert is_tag(text)
    assert parse_reference(text) == Tag(text)
    assert str(parse_reference(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", ".a", "-a", "a/b", "a b", "a\n", "a\0", "é", "a+b", "a" * 129],
)
def test_text_that_no_tag_can_be(text: str) -> None:
    """Whoever asks for a tag that cannot be is told that no manifest has it."""
    assert not is_tag(text)
    with pytest.raises(ManifestUnknown) as caught:
        parse_reference(text)
    assert shown(text) in str(caught.value)


def test_tag_may_be_as_long_as_is_allowed_and_no_longer() -> None:
    """The settings say how long a tag may be."""
    assert parse_reference("a" * 128) == Tag("a" * 128)
    assert parse_reference("abc", max_tag_length=3) == Tag("abc")
    assert not is_tag("abc", max_length=2)
    with pytest.raises(ManifestUnknown, match="up to 2 letters"):
        parse_reference("abc", max_tag_length=2)


@pytest.mark.parametrize("text", [f"sha256:{SHA256}", f"sha512:{SHA512}"])
def test_digest_is_read_and_written_alike(text: str) -> None:
    """A digest of either registered algorithm comes out as it went in."""
    digest = parse_digest(text)
    assert digest == Digest(*text.split(":"))
    assert str(digest) == text
    assert parse_reference(text) == digest


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256",
        "sha256:",
        f":{SHA256}",
        SHA256,
        f"sha256:{SHA256[:-1]}",
        f"sha256:{SHA256}0",
        f"sha256:{SHA256.upper()}",
        f"sha256:{SHA256[:-1]}g",
        f"sha256:{SHA256}\n",
        f" sha256:{SHA256}",
        f"sha256:{SHA256[:-1]}\u0660",
        f"sha256:sha256:{SHA256}",
        f"sha256:../../{SHA256[6:]}",
        f"SHA256:{SHA256}",
        f"sha512:{SHA256}",
        f"sha256:{SHA512}",
    ],
)
def test_text_that_is_no_digest(text: str) -> None:
    """A malformed digest is refused, and the message shows it."""
    with pytest.raises(DigestInvalid) as caught:
        parse_digest(text)
    assert shown(text) in str(caught.value) or "algorithm" in str(caught.value)


@pytest.mark.parametrize(
    "algorithm", ["md5", "sha1", "sha384", "sha256+b64u", "blake3"]
)
def test_digest_of_an_algorithm_that_is_not_registered(algorithm: str) -> None:
    """Whoever uses another algorithm is told which ones there are."""
    with pytest.raises(DigestInvalid, match="sha256, sha512"):
        parse_digest(f"{algorithm}:{SHA256}")


def test_reference_with_a_colon_is_taken_for_a_digest() -> None:
    """A reference with a colon is never taken for a tag."""
    with pytest.raises(DigestInvalid):
        parse_reference("latest:")


@pytest.mark.parametrize("text", ["a" * 10**5, "a+" * 10**5, "sha256:" + "0" * 10**5])
def test_huge_digest_is_refused_briefly(text: str) -> None:
    """A digest of a megabyte is refused at once, with a short message."""
    with pytest.raises(DigestInvalid) as caught:
        parse_digest(text)
    assert len(str(caught.value)) < 200


@given(st.text())
def test_any_text_is_a_reference_or_is_refused(text: str) -> None:
    """Whatever a client sends is read, or refused in the registry's own words."""
    try:
        assert str(parse_reference(text)) == text
    except (DigestInvalid, ManifestUnknown) as e:
        assert str(e)
    try:
        assert str(parse_name(text)) == text
    except NameInvalid as e:
        assert str(e)


@given(st.text())
def test_shown_text_is_short_and_printable(text: str) -> None:
    """What a message repeats of a client's words is short and has no control codes."""
    quoted = shown(text)
    assert quoted.isprintable()
    assert quoted.encode()
    if len(text) <= 80:
        assert quoted == repr(text)
    else:
        assert quoted == repr(text[:80] + "…")
