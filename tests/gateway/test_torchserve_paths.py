"""headway_gateway.torchserve.paths: which inference route a path names."""

from __future__ import annotations

import pytest

from headway_gateway.inference import Target
from headway_gateway.torchserve.paths import (
    API,
    INVOCATIONS,
    OTHER,
    PING,
    PREDICT,
    READY,
    Route,
    is_inference,
    plain_route,
    route_of,
)


def predict(model: str, version: str = "", **more: object) -> Route:
    return Route(PREDICT, Target(model, version), **more)  # type: ignore[arg-type]


def plain(model: str, version: str = "", url_path: str = "") -> Route:
    return predict(model, version, url_path=url_path, explain=False)


ROUTES = {
    "/": Route(API),
    "/api-description": Route(API),
    "/api-description/x": Route(OTHER),
    "/ping": Route(PING),
    "/ping/x": Route(PING),
    "/ready": Route(READY),
    "/ready/x": Route(OTHER),
    "/predictions": Route(OTHER),
    "/predictions/": Route(OTHER),
    "/predictions/m": plain("m"),
    "/predictions/m/": plain("m"),
    "/predictions/m/1.0": plain("m", "1.0"),
    "/predictions/m/1.0/": plain("m", "1.0"),
    "/predictions/m/1.0/a/b c": plain("m", "1.0", url_path="a/b c"),
    "/predictions/predict": plain("predict"),
    "/explanations/m/1.0/z": predict("m", "1.0", url_path="z", explain=True),
    "/v1/models/m:predict": predict("m", explain=False),
    "/v1/models/m:explain": predict("m", explain=True),
    "/v1/models/m": Route(OTHER),
    "/v1/models/m/1.0:predict": Route(OTHER),
    "/v2/models/m/infer": predict("m", explain=False),
    "/v2/models/m/explain": predict("m", explain=True),
    "/v2/models/m/versions/1/infer": Route(OTHER),
    "/v2/models/m": Route(OTHER),
    "/invocations": Route(INVOCATIONS, takes_query=True),
    "/models/m/invoke": predict("m", takes_query=True),
    "/models/m/1.0/invoke": Route(OTHER),
    "/models/m": Route(OTHER),
    "/m/predict": predict("m", takes_query=True),
    "/m/1.0/predict": predict("m", "1.0", takes_query=True),
    "/m/1.0/x/predict": Route(OTHER),
    "//predictions/m": Route(OTHER),
    "/nope": Route(OTHER),
}


@pytest.mark.parametrize(("path", "route"), ROUTES.items())
def test_a_path_names_one_route(path: str, route: Route) -> None:
    assert route_of(path) == route


def test_what_a_shared_listener_leaves_to_management() -> None:
    assert not any(
        map(is_inference, ("/", "/models", "/models/m", "/models/m/1.0", "/v1/models/m", "/x", "/token"))
    )
    assert all(
        map(is_inference, ("/ping", "/predictions/m", "/models/m/invoke", "/v1/models/m:predict", "/v2"))
    )


def test_only_plain_predictions_may_take_the_short_way() -> None:
    assert plain_route(b"/predictions/m") == (0, Target("m", ""))
    assert plain_route(b"/predictions/m-1_a/1.0+cpu") == (0, Target("m-1_a", "1.0+cpu"))
    others = (b"/predictions/m/", b"/predictions/m/1/x", b"/predictions/m?q", b"/predictions/%6d",
              b"/explanations/m", b"/predictions/m\n")  # fmt: skip
    assert not any(map(plain_route, others))
