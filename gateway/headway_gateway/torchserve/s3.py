"""The headers of a GET that S3 answers: signed with Signature Version 4 of Amazon Web Services.

    canonical request ──► text to sign ──► signed with a key made of the secret, day, region and service

The URL is an object's `https://` one, of the bucket's host or with the bucket in its path. No body is signed.

Pure. Knows: the signature. Must not know: the clock, where keys are from, who sends the request.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import parse_qsl, quote, unquote, urlsplit

ALGORITHM = "AWS4-HMAC-SHA256"
VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN")
_NO_BODY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Keys:
    """`session`: of keys that expire, "" for others."""

    id: str
    secret: str = field(repr=False)
    region: str
    session: str = field(default="", repr=False)


def keys_of(said: Mapping[str, str]) -> Keys | None:
    """By the names of VARIABLES; None where one of the first three is not there."""
    id, secret, region, session = (said.get(name, "") for name in VARIABLES)
    return Keys(id, secret, region, session) if id and secret and region else None


def signed_headers(
    url: str, keys: Keys, now: datetime, more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What to send besides Host. `now` is in UTC; `more`: other headers, which are signed too."""
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {**(more or {}), "x-amz-content-sha256": _NO_BODY, "x-amz-date": stamp}
    if keys.session:
        headers["x-amz-security-token"] = keys.session
    request, names = _canonical(url, headers)
    scope = f"{stamp[:8]}/{keys.region}/s3/aws4_request"
    text = "\n".join((ALGORITHM, stamp, scope, hashlib.sha256(request.encode()).hexdigest()))
    signature = hmac.digest(_signing_key(keys, stamp[:8]), text.encode(), "sha256").hex()
    said = f"Credential={keys.id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "Authorization": f"{ALGORITHM} {said}"}


def _canonical(url: str, headers: Mapping[str, str]) -> tuple[str, str]:
    """The request as both sides write it, and the names of its headers."""
    parts = urlsplit(url)
    sent = {"host": parts.netloc, **{name.lower(): " ".join(text.split()) for name, text in headers.items()}}
    lines = "".join(f"{name}:{text}\n" for name, text in sorted(sent.items()))
    names = ";".join(sorted(sent))
    path = quote(unquote(parts.path or "/"), safe="/-_.~")
    pairs = [
        (_escaped(name), _escaped(text)) for name, text in parse_qsl(parts.query, keep_blank_values=True)
    ]
    query = "&".join(f"{name}={text}" for name, text in sorted(pairs))
    return "\n".join(("GET", path, query, lines, names, _NO_BODY)), names


def _escaped(text: str) -> str:
    return quote(text, safe="-_.~")


def _signing_key(keys: Keys, day: str) -> bytes:
    key = f"AWS4{keys.secret}".encode()
    for part in (day, keys.region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
