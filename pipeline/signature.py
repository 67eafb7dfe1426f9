"""Sign pipeline files and check their signature.

Source: drone-yaml's signer (reference: pipeline format, section 7).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from pipeline.errors import UserError
from pipeline.yamltext import MAP, Node, Part, YamlError, compose, split

KIND: Final = "signature"
MIN_KEY_BYTES: Final = 32


class KeyTooShort(UserError):
    """The key has less than 32 bytes."""

    code = "signature:key"


def sign(text: str, key: str) -> str:
    """The HMAC-SHA256 of every document that is not a signature, in lower-case hex.

    Raises: KeyTooShort.
    """
    return _digest(split(text), key)


def verify(text: str, key: str) -> bool:
    """Whether `text` holds a signature document that fits the rest; the first one counts.

    Raises: KeyTooShort.
    """
    parts = split(text)
    found = next((value for part in parts if (value := _signature(part)) is not None), "")
    return bool(found) and hmac.compare_digest(found.encode(), _digest(parts, key).encode())


def with_signature(text: str, key: str) -> str:
    """`text` with a signature document at its end instead of what signatures it had.

    Raises: KeyTooShort.
    """
    return attach(text, sign(text, key))


def attach(text: str, signature: str) -> str:
    """`text` with a document that holds this signature; see `with_signature`."""
    documents = [part.text for part in split(text) if _signature(part) is None]
    documents.append(f"kind: {KIND}\nhmac: {signature}\n\n")
    return "".join(f"---\n{document}" for document in documents) + "...\n"


def _digest(parts: list[Part], key: str) -> str:
    secret = key.encode()
    if len(secret) < MIN_KEY_BYTES:
        raise KeyTooShort(f"the key has {len(secret)} bytes, it needs {MIN_KEY_BYTES}")
    signed = "".join(part.text for part in parts if _signature(part) is None)
    return hmac.new(secret, signed.encode(), hashlib.sha256).hexdigest()


def _signature(part: Part) -> str | None:
    """The `hmac` of a signature document, None for any other."""
    if KIND not in part.text:
        return None
    try:
        root = compose(part)
    except YamlError:
        return None
    if root is None or _text(root, "kind") != KIND:
        return None
    return _text(root, "hmac")


def _text(root: Node, name: str) -> str:
    """The text of a top-level key; the last one counts."""
    if root.kind != MAP:
        return ""
    found = [value.value for key, value in root.value if key.value == name]
    return found[-1] if found and isinstance(found[-1], str) else ""
