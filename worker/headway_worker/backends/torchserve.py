"""Backend `torchserve`: a TorchServe archive, unchanged.

    backend = "torchserve"
    file = "resnet.mar"        # a .mar, a .tar.gz, or a folder, in the version's folder

Options: `handler` and `envelope`, in place of the manifest's; `retry_alone` (true: a batch that fails is run
again request by request; TorchServe fails all of it); `decode_input` (false: JSON and text reach the handler
as bytes); `limit_image_pixels` (false: Pillow may decode images of any size); `unpickle` (true: the default
handlers may read weights that are pickled Python objects); `unpacked_bytes_max`; `metrics_config` (the path
of a `metrics.yaml` that declares what handlers may record).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from headway.errors import SettingsError
from headway.models import ModelSpec
from headway.torchserve.config import read_config
from headway_worker.backends import refuse_unknown
from headway_worker.casting import refuse_casting
from headway_worker.continuous import Step
from headway_worker.request import ModelRequest
from headway_worker.torchserve.archive import Archive, open_archive
from headway_worker.torchserve.data import asks_itself
from headway_worker.torchserve.service import Service, Wishes, meta_of
from headway_worker.tracks import Share

log = logging.getLogger("headway.worker")
OPTIONS: dict[str, type[Any]] = {
    "handler": str,
    "envelope": str,
    "retry_alone": bool,
    "decode_input": bool,
    "limit_image_pixels": bool,
    "unpickle": bool,
    "unpacked_bytes_max": int,
    "metrics_config": str,
    "packages": str,
}


class TorchServe:
    """An archive and its handler."""

    retries_alone = False
    wants_gradients = True  # for explanations
    _service: Service | None = None
    _archive: Archive | None = None

    def load(self, spec: ModelSpec, device: torch.device) -> None:
        _check(spec)
        self.retries_alone = bool(spec.options.get("retry_alone", False))
        path = _path(spec)
        self._archive = open_archive(path, int(spec.options.get("unpacked_bytes_max", 0)))
        manifest = self._archive.manifest
        config = read_config(self._archive.folder, manifest.config_file)
        if notes := config.notes(spec):
            log.warning("model %s version %s: %s", *spec.key, notes)
        if manifest.requirements_file and not spec.options.get("packages"):
            what = manifest.requirements_file
            log.warning("model %s version %s: %s is not installed: do that yourself", *spec.key, what)
        self._service = Service(self._archive, config, device, _wishes(spec))
        self._service.open()

    def answer(self, requests: Sequence[ModelRequest]) -> list[Share]:
        assert self._service, "it is loaded"
        return self._service.answer(requests)

    def rides(self, request: ModelRequest) -> bool:
        return not asks_itself(request)

    def step(self, requests: Sequence[ModelRequest]) -> list[Step]:
        assert self._service, "it is loaded"
        return self._service.step(requests)

    async def answer_later(self, requests: Sequence[ModelRequest]) -> list[Share]:
        assert self._service, "it is loaded"
        return await self._service.answer_later(requests)

    def error_meta(self, error: BaseException) -> dict[str, Any]:
        return meta_of(error)

    def describe(self) -> dict[str, Any]:
        assert self._archive, "it is loaded"
        assert self._service, "it is loaded"
        manifest = self._archive.manifest
        return {
            "kind": f"TorchServe archive ({self._archive.kind})",
            "handler": self._service.handler,
            "archive": f"{manifest.model_name} {manifest.model_version}",
        }

    def close(self) -> None:
        service, archive = self._service, self._archive
        self._service = self._archive = None
        if service:
            service.close()
        elif archive:
            archive.close()


def _check(spec: ModelSpec) -> None:
    """Raises: SettingsError naming what an archive cannot have."""
    refuse_unknown(spec, tuple(OPTIONS))
    refuse_casting(spec, "an archive's handler loads its model itself")
    for key, value in spec.options.items():
        if type(value) is not OPTIONS[key]:
            wanted = OPTIONS[key].__name__
            raise SettingsError(f"options.{key} must be of type {wanted}, not {type(value).__name__}")


def _path(spec: ModelSpec) -> Path:
    if not spec.file:
        raise SettingsError('file: say which archive, such as file = "resnet.mar"')
    path = Path(spec.folder) / spec.file
    if not path.exists():
        raise SettingsError(f"file: there is no {path.name} in {path.parent}")
    return path


def _wishes(spec: ModelSpec) -> Wishes:
    options = spec.options
    return Wishes(
        model=spec.name,
        handler=options.get("handler", ""),
        envelope=options.get("envelope", ""),
        batch_size=spec.batch_size_max,
        decodes=options.get("decode_input", True),
        limits_pixels=options.get("limit_image_pixels", True),
        may_unpickle=options.get("unpickle", False),
        metrics_config=options.get("metrics_config", ""),
        packages=options.get("packages", ""),
    )
