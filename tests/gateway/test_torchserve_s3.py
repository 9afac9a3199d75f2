"""headway_gateway.torchserve.s3: signatures as Amazon documents them, and as its own client makes them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from headway_gateway.torchserve.s3 import Keys, keys_of, signed_headers

# The keys and the object of Amazon's documentation ("Signature Calculations for the Authorization Header").
EXAMPLE = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1")
THEN = datetime(2013, 5, 24)
HOST = "https://examplebucket.s3.amazonaws.com"
# Made with botocore 1.44.5, at another time and with other keys.
LATER = datetime(2026, 11, 23, 4, 5, 6)
OWN = Keys("AKID", "SECRET", "eu-west-1")


def signature(url: str, keys: Keys, now: datetime, **more: str) -> str:
    return signed_headers(url, keys, now, more)["Authorization"].rpartition("Signature=")[2]


def test_the_documented_request_has_the_documented_signature() -> None:
    found = signed_headers(f"{HOST}/test.txt", EXAMPLE, THEN, {"Range": "bytes=0-9"})
    names = "host;range;x-amz-content-sha256;x-amz-date"
    expected = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    assert found["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        f" SignedHeaders={names}, Signature={expected}"
    )
    assert found["x-amz-date"] == "20130524T000000Z" and found["Range"] == "bytes=0-9"


@pytest.mark.parametrize(
    ("url", "session", "expected"),
    [
        (
            "https://b.s3.eu-west-1.amazonaws.com/a/x.mar",
            "",
            "8b9998a75f5dfa328e59fd22f71b0675f8cf997a13140ba3d546b8430e027018",
        ),
        (
            "https://s3.amazonaws.com/bu%20cket/%C3%A4~_-.x.mar",
            "",
            "6e0c8c30bbe74a348aa108a674d409162fd00ece8908051eaddda5c1cb8f0c74",
        ),
        (
            "https://h:9000/b/x.mar?versionId=a%2Fb&a=&z=1%201",
            "",
            "8ab7dbc21acfb0eb29d85325a7d2ab459421fa0607407195b36c898f1c26ef30",
        ),
        (
            "https://h:9000/b/x.mar",
            "tok/en==",
            "db7fb4777b8044db8c4fef027204a0d845ce90f0b75c793d0439d0bb1fd55190",
        ),
    ],
)
def test_paths_queries_and_sessions_are_signed_as_amazons_client_signs_them(
    url: str, session: str, expected: str
) -> None:
    assert signature(url, replace(OWN, session=session), LATER) == expected


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"])
def test_keys_are_all_there_or_none_are(missing: str) -> None:
    said = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "SECRET", "AWS_DEFAULT_REGION": "eu-west-1"}
    assert keys_of(said) == OWN
    assert keys_of({**said, missing: ""}) is None
    assert "SECRET" not in repr(OWN)
