"""headway_gateway.predictions: ping, raw bodies, forms."""

from __future__ import annotations

import pytest

from headway.body import Body
from headway.errors import BrokerUnreachable
from headway.stub import AsyncStubClient


def test_a_body_goes_to_the_model_and_its_answer_comes_back_with_its_media_type(site):
    answer = site.post("/predictions/echo", content=b"\x00\xff", headers={"Content-Type": "image/png"})
    assert (answer.status_code, answer.content) == (200, b"\x00\xff")
    assert answer.headers["content-type"] == "image/png"


def test_a_body_without_content_type_is_bytes(site):
    answer = site.post("/predictions/echo", content=b"abc")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert site.client.calls[0].options["types"] == {"body": "application/octet-stream"}


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "application/json", "no/such"])
def test_no_media_type_is_parsed_on_the_way(site, content_type):
    answer = site.post("/predictions/echo", content=b"{not json", headers={"Content-Type": content_type})
    assert (answer.status_code, answer.content) == (200, b"{not json")


def test_the_version_travels_and_is_empty_when_not_said(site):
    site.post("/predictions/echo", content=b"")
    site.post("/predictions/echo/2.1", content=b"")
    assert [call.version for call in site.client.calls] == ["", "2.1"]


def test_put_works_as_post_does(site):
    assert site.call("PUT", "/predictions/echo", content=b"abc").content == b"abc"


def test_an_unknown_model_is_404(site):
    answer = site.post("/predictions/nobody", content=b"")
    assert (answer.status_code, answer.json()["type"]) == (404, "ModelNotFoundException")


def test_the_parts_of_a_form_reach_the_model_by_name(site):
    files = {"image": ("a.png", b"PNG", "image/png"), "note": (None, b"hi")}
    answer = site.post("/predictions/parts", files=files)
    assert answer.json() == {"image": ["image/png", "PNG"], "note": ["text/plain", "hi"]}


def test_of_two_parts_with_one_name_the_last_counts(site):
    answer = site.post("/predictions/parts", files=[("a", (None, b"1")), ("a", (None, b"2"))])
    assert answer.json() == {"a": ["text/plain", "2"]}


def form(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("latin1")


PART = "--B\nContent-Disposition: form-data; name={}\n\n1\n"
BROKEN = {
    "no boundary in the header": (form(PART.format("a") + "--B--\n"), "multipart/form-data"),
    "not a form": (b"hello", "multipart/form-data; boundary=B"),
    "no end": (form(PART.format("a")), "multipart/form-data; boundary=B"),
    "no parts": (form("--B--\n"), "multipart/form-data; boundary=B"),
    "no name": (form("--B\nContent-Type: a/b\n\n1\n--B--\n"), "multipart/form-data; boundary=B"),
    "long name": (form(PART.format("n" * 300) + "--B--\n"), "multipart/form-data; boundary=B"),
    "name not utf-8": (form(PART.format("\xff") + "--B--\n"), "multipart/form-data; boundary=B"),
    "type not ascii": (
        form('--B\nContent-Disposition: form-data; name="a"\nContent-Type: \xff\n\n1\n--B--\n'),
        "multipart/form-data; boundary=B",
    ),
}


@pytest.mark.parametrize(("body", "content_type"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_form_is_400(site, body, content_type):
    answer = site.post("/predictions/parts", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 400
    assert answer.json()["type"] == "BadRequestException"
    assert answer.json()["message"]


def test_a_form_with_too_many_parts_is_400(over, settings):
    object.__setattr__(settings, "body_bytes_max", 1 << 20)
    site = over(AsyncStubClient({"parts": lambda body: Body(b"%d" % len(body.parts))}))
    files = [(f"p{i}", (None, b"x")) for i in range(65)]
    assert site.post("/predictions/parts", files=files[:64]).content == b"64"
    assert site.post("/predictions/parts", files=files).status_code == 400


@pytest.mark.parametrize("said", ["a/b\r\nX-Evil: 1", "caf\xe9", ""])
def test_a_media_type_that_cannot_stand_in_a_header_is_replaced(over, said):
    site = over(AsyncStubClient({"odd": lambda body: Body(b"x", said)}))
    answer = site.post("/predictions/odd", content=b"")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "x-evil" not in answer.headers


class TimedStub(AsyncStubClient):
    async def reply(self, asked, timeout_s=None):
        self.timeout_s = timeout_s
        return self._reply(asked)


def test_the_timeout_is_the_headers_or_the_default(over):
    site = over(TimedStub({"echo": lambda body: body}))
    site.post("/predictions/echo", content=b"")
    assert site.client.timeout_s == 60.0
    site.post("/predictions/echo", content=b"", headers={"Headway-Timeout-Ms": "250"})
    assert site.client.timeout_s == 0.25


def test_ping_is_healthy_while_the_broker_answers(site):
    answer = site.get("/ping")
    assert (answer.status_code, answer.json()) == (200, {"status": "Healthy"})


def test_ping_is_unhealthy_when_no_broker_answers(over):
    class Alone(AsyncStubClient):
        async def models(self):
            raise BrokerUnreachable("nobody there")

    answer = over(Alone({})).get("/ping")
    assert (answer.status_code, answer.json()) == (500, {"status": "Unhealthy"})
