"""Secrets encrypted into a pipeline file with the repo's own key.

Source: Drone's AES-GCM cipher (reference: pipeline format, section 7). It stands here and not in
`pipeline` because that needs a library.
"""

from __future__ import annotations

import base64
import binascii
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pipeline.errors import UserError

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12


class BadEncryption(UserError):
    """A key of the wrong length, or data that this key did not encrypt."""

    code = "secret:encryption"


def encrypt(key: str, text: str, *, nonce: bytes | None = None) -> str:
    """Base64 of nonce, AES-256-GCM ciphertext and tag; the nonce is random unless given.

    Raises: BadEncryption for a key that is not 32 bytes long.
    """
    nonce = os.urandom(NONCE_BYTES) if nonce is None else nonce
    sealed = _cipher(key).encrypt(nonce, text.encode(), None)
    return base64.b64encode(nonce + sealed).decode()


def decrypt(key: str, data: str) -> str:
    """The text that `encrypt` made `data` of; white space in `data` does not matter.

    Raises: BadEncryption.
    """
    cipher = _cipher(key)
    try:
        raw = base64.b64decode("".join(data.split()), validate=True)
        return cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], None).decode()
    except (binascii.Error, InvalidTag, ValueError) as fault:
        raise BadEncryption("the data was not encrypted with this repository's key") from fault


def _cipher(key: str) -> AESGCM:
    raw = key.encode()
    if len(raw) != KEY_BYTES:
        raise BadEncryption(f"the key has {len(raw)} bytes, it needs {KEY_BYTES}")
    return AESGCM(raw)
