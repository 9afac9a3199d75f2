"""headway_gateway.torchserve.serving: when TorchServe's ping is unhealthy."""

from __future__ import annotations

from typing import Any

from headway.torchserve.registration import Registration
from headway_gateway.torchserve.serving import Serving


class Registry:
    def of(self, model: str, version: str = "") -> Registration | None:
        return Registration(model, version, "", "", retry_timeout_s=10) if model == "brief" else None


def model(name: str, ready: int, wanted: int = 1, default: bool = True) -> dict[str, Any]:
    return {"name": name, "version": "1", "ready": ready, "wanted": wanted, "default": default}


def test_a_model_that_never_served_does_not_count_whatever_it_lacks() -> None:
    serving = Serving(Registry())
    assert serving.is_healthy([], 0)
    assert all(serving.is_healthy([model("m", 0)], now) for now in (0, 299, 301, 10_000))


def test_a_model_that_served_may_be_away_for_as_long_as_its_recovery_may_take() -> None:
    serving = Serving(Registry())
    for name, recovery_s in (("m", 300), ("brief", 10)):
        assert serving.is_healthy([model(name, 1)], 0)
        assert serving.is_healthy([model(name, 0)], 5)
        assert serving.is_healthy([model(name, 0)], 5 + recovery_s)
        assert not serving.is_healthy([model(name, 0)], 6 + recovery_s)
        assert serving.is_healthy([model(name, 1)], 7 + recovery_s)
        assert serving.is_healthy([model(name, 0)], 8 + recovery_s)  # it is counted anew


def test_too_few_copies_count_as_none() -> None:
    serving = Serving(Registry())
    assert serving.is_healthy([model("m", 2, 2)], 0)
    assert serving.is_healthy([model("m", 1, 2)], 1)
    assert not serving.is_healthy([model("m", 1, 2)], 302)


def test_only_default_versions_that_shall_serve_count() -> None:
    for gone in ([], [model("m", 0, 0)], [model("m", 0, default=False)]):
        serving = Serving(Registry())
        assert serving.is_healthy([model("m", 1)], 0)
        assert serving.is_healthy(gone, 1) and serving.is_healthy(gone, 1000)
