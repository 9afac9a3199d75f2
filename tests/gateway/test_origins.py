"""headway_gateway.origins: where models may come from, and no way around it."""

from __future__ import annotations

import pytest

from headway.errors import InvalidInput, SettingsError
from headway_gateway.origins import check_url, is_zip, prefix_of, shown, wanted

ALLOWED = tuple(map(prefix_of, ("https://models.example/a/b", "http://10.0.0.1:9000", "file:///srv/models/")))


@pytest.mark.parametrize(
    "url",
    [
        "https://models.example/a/b",
        "https://models.example/a/b/m.zip",
        "https://MODELS.example:443/a/b/c/d/m.tar.gz?signature=1%2F2",
        "http://10.0.0.1:9000/m.zip",
        "HTTP://10.0.0.1:9000/m.zip",
        "file:///srv/models/m.zip",
    ],
)
def test_what_is_below_a_prefix_may_be_fetched(url):
    check_url(url, ALLOWED)


@pytest.mark.parametrize(
    "url",
    [
        "https://models.example/a/bc/m.zip",
        "https://models.example/a/",
        "https://models.example/A/b/m.zip",
        "http://models.example/a/b/m.zip",
        "https://models.example:444/a/b/m.zip",
        "https://models.example.evil/a/b/m.zip",
        "https://evil.models.example/a/b/m.zip",
        "https://models.example@evil/a/b/m.zip",
        "https://user:pass@models.example/a/b/m.zip",
        "https://evil#@models.example/a/b/m.zip",
        "https://evil\\@models.example/a/b/m.zip",
        "https://models.example/a/b/../../m.zip",
        "https://models.example/a/b/%2e%2e/%2E./m.zip",
        "https://models.example/a/b/%252e%252e/m.zip",
        "https://models.example/a/b%2f..%2f../m.zip",
        "https://models.example/a/b/..%5cm.zip",
        "https://models.example/a%2fb/m.zip",
        "https://models.example/a/b/m.zip\r\nX: y",
        "https://models.example/a/b/\u0661.zip",
        "//models.example/a/b/m.zip",
        "http://10.0.0.1/m.zip",
        "http://10.0.0.1:90000/m.zip",
        "http://[::1/m.zip",
        "http:///m.zip",
        "file:///etc/passwd",
        "file:///srv/models/../../etc/passwd",
        "file://localhost/srv/models/m.zip",
        "file:///srv/modelsx/m.zip",
        "ftp://10.0.0.1:9000/m.zip",
        "data:application/zip;base64,",
        "/srv/models/m.zip",
        "",
    ],
)
def test_what_is_not_or_could_be_read_in_two_ways_may_not(url):
    with pytest.raises(InvalidInput):
        check_url(url, ALLOWED)


@pytest.mark.parametrize("said", ["models.example", "ftp://x/", "https://u@x/", "https://x/../y"])
def test_a_prefix_that_is_none_is_a_wrong_setting(said):
    with pytest.raises(SettingsError, match="register_urls"):
        prefix_of(said)


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("m.zip", ("m", "1")),
        ("m-2.tar.gz", ("m", "2")),
        ("m_v1.2.3.tgz", ("m", "1.2.3")),
        ("efficientnet_lite0.zip", ("efficientnet_lite0", "1")),
        ("yolo-v8-3.TGZ", ("yolo-v8", "3")),
        ("resnet-50.zip", ("resnet", "50")),
        ("m.v2.zip", ("m.v2", "1")),
    ],
)
def test_a_files_name_says_name_and_version(file, found):
    assert wanted(f"https://x/y/{file}?a=b.zip") == found


def test_what_the_caller_says_wins_over_the_files_name():
    assert wanted("https://x/resnet-50.zip", "resnet-50") == ("resnet-50", "50")
    assert wanted("https://x/m-2.zip", "n", "7") == ("n", "7")
    assert wanted("https://x/m-2.zip", "", "1.0-rc1") == ("m", "1.0-rc1")


@pytest.mark.parametrize(
    ("url", "name", "version"),
    [
        ("https://x/m.rar", "", ""),
        ("https://x/.zip", "", ""),
        ("https://x/", "m", "1"),
        ("https://x/m%20n.zip", "", ""),
        ("https://x/%2Fetc.zip", "../m", ""),
        ("https://x/m.zip", ".hidden", ""),
        ("https://x/m.zip", "", "../1"),
        ("https://x/m.zip", "", "1.tmp"),
        ("https://x/m.zip", "", "-1"),
        ("https://x/m.zip", "a/b", ""),
    ],
)
def test_a_name_or_version_that_no_model_can_have_is_refused(url, name, version):
    with pytest.raises(InvalidInput):
        wanted(url, name, version)


def test_a_url_is_shown_without_what_may_be_secret():
    assert shown("https://x/m.zip?signature=secret#secret") == "https://x/m.zip"


def test_the_kind_of_an_archive_is_that_of_its_name():
    assert [is_zip(f"https://x/{name}?a") for name in ("m.zip", "m.ZIP", "m.tgz")] == [True, True, False]
