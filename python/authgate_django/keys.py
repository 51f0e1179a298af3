"""The public keys that verify signed identities, each bound to one algorithm. It imports PyJWT: the extra `signed`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWK, PyJWTError

RSA_BITS = 2048


@dataclass(frozen=True, eq=False)
class PublicKey:
    """A key, and the only algorithm that it verifies: what a token says of its algorithm chooses nothing.

    Keys that were loaded again are other keys: see `signed._verified`.
    """

    algorithm: str
    key: Any
    # `None`: a key in PEM. It verifies tokens with any key id.
    kid: str | None = None


def parse(raw: Any) -> tuple[PublicKey, ...]:
    """The keys of the setting: PEM texts, JWKs or a JWK Set. Raises `ValueError`."""
    if isinstance(raw, dict) and isinstance(raw.get("keys"), list):
        raw = raw["keys"]
    elif isinstance(raw, (str, bytes, dict)):
        raw = [raw]
    if not isinstance(raw, (list, tuple)) or not raw:
        raise ValueError("there is no key")
    return tuple(from_jwk(each) if isinstance(each, dict) else from_pem(each) for each in raw)


def from_pem(text: Any) -> PublicKey:
    """A key in PEM. Raises `ValueError`."""
    encoded = text.encode() if isinstance(text, str) else text
    if not isinstance(encoded, bytes):
        raise ValueError("a key is neither text in PEM nor a JWK")
    if b"PRIVATE KEY" in encoded:
        raise ValueError("a private key belongs to the gateway alone; `openssl pkey -in KEY -pubout` prints the public")
    try:
        key = load_pem_public_key(encoded)
    except Exception:  # cryptography has many; none of them may show the text
        raise ValueError("a key does not begin with -----BEGIN PUBLIC KEY-----, or is broken") from None
    return PublicKey(_algorithm(key), key)


def from_jwk(jwk: dict[str, Any]) -> PublicKey:
    """A key of a JWK Set. Raises `ValueError`."""
    if jwk.get("kty") not in ("OKP", "EC", "RSA"):
        raise ValueError(f"a JWK has the type {jwk.get('kty')!r}: write the public key of OKP, EC or RSA")
    if "d" in jwk:
        raise ValueError("a JWK is private: such keys belong to the gateway alone")
    if jwk.get("use", "sig") != "sig":
        raise ValueError("a JWK is not for signatures")
    try:
        key = PyJWK(jwk).key
    except PyJWTError:
        raise ValueError("a JWK is broken, or of another algorithm") from None
    algorithm, kid = _algorithm(key), jwk.get("kid")
    if jwk.get("alg", algorithm) != algorithm:
        raise ValueError(f"a JWK is for {jwk['alg']}")
    if kid is not None and not isinstance(kid, str):
        raise ValueError("the `kid` of a JWK is no text")
    return PublicKey(algorithm, key, kid)


def parse_set(body: bytes) -> dict[str, PublicKey]:
    """The usable keys of a JWK Set, by their ids. Other keys are ignored. Raises `ValueError` if none is usable."""
    decoded = json.loads(body)
    listed = decoded.get("keys") if isinstance(decoded, dict) else None
    found: dict[str, PublicKey] = {}
    for key in _usable(listed if isinstance(listed, list) else []):
        if key.kid is not None:
            found.setdefault(key.kid, key)
    if not found:
        raise ValueError("it has no usable key with a `kid`")
    return found


def _usable(jwks: Iterable[Any]) -> Iterable[PublicKey]:
    for jwk in jwks:
        try:
            yield from_jwk(jwk if isinstance(jwk, dict) else {})
        except ValueError:
            continue


def _algorithm(key: Any) -> str:
    if isinstance(key, Ed25519PublicKey):
        return "EdDSA"
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return "ES256"
    if isinstance(key, RSAPublicKey) and key.key_size >= RSA_BITS:
        return "RS256"
    raise ValueError(f"a key is neither Ed25519, nor EC on P-256, nor RSA of {RSA_BITS} bits or more")
