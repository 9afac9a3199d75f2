"""How a TorchServe door shall behave: what `config.properties`, the environment and the command line said.

Knows: the names, types and defaults of TorchServe's properties that have a meaning here. Must not know: where
they were read (that is `reading`), what they are for.

One field for each property, under its own name; durations in the property's own unit. `headway torchserve`
reads them once and hands them to the gateway as a file of JSON.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.errors import SettingsError


@dataclass(frozen=True)
class Properties:
    """Paths are absolute, "" for none."""

    # addresses
    inference_address: str = "http://127.0.0.1:8080"
    management_address: str = "http://127.0.0.1:8081"
    metrics_address: str = "http://127.0.0.1:8082"
    enable_metrics_api: bool = True
    grpc_inference_address: str = "127.0.0.1"
    grpc_inference_port: int = 7070
    grpc_management_address: str = "127.0.0.1"
    grpc_management_port: int = 7071
    grpc_inference_max_connection_age_ms: int = 0
    grpc_management_max_connection_age_ms: int = 0
    grpc_inference_max_connection_age_grace_ms: int = 0
    grpc_management_max_connection_age_grace_ms: int = 0
    enable_grpc_ssl: bool = False
    enable_grpc: bool = True  # Headway's own
    # models
    model_store: str = ""
    load_models: str = ""
    models: str = ""
    model_snapshot: str = ""
    workflow_store: str = ""
    default_workers_per_model: int = 0
    install_py_dep_per_model: bool = False
    enable_model_api: bool = False
    allowed_urls: str = ""  # Headway: nothing is downloaded unless this says so
    # behaviour
    job_queue_size: int = 100
    default_response_timeout: int = 120  # seconds
    default_startup_timeout: int = 120
    unregister_model_timeout: int = 120
    max_request_size: int = 6_553_500
    max_response_size: int = 6_553_500
    decode_input_request: bool = True
    limit_max_image_pixels: bool = True
    default_service_handler: str = ""
    service_envelope: str = ""
    ts_open_inference_protocol: bool = False
    ts_header_key_sequence_id: str = "ts_request_sequence_id"
    ts_header_key_sequence_start: str = "ts_request_sequence_start"
    ts_header_key_sequence_end: str = "ts_request_sequence_end"
    number_of_gpu: int = -1  # -1: all
    initial_worker_port: int = 9000
    # security
    keystore: str = ""
    keystore_pass: str = "changeit"
    keystore_type: str = "PKCS12"
    private_key_file: str = ""
    certificate_file: str = ""
    disable_token_authorization: bool = False
    token_expiration_min: float = 60.0
    cors_allowed_origin: str = ""
    cors_allowed_methods: str = ""
    cors_allowed_headers: str = ""
    # metrics and logs
    metrics_mode: str = "log"
    metrics_config: str = ""
    model_metrics_auto_detect: bool = False
    disable_system_metrics: bool = False
    metric_time_interval: int = 60  # seconds
    # what the command line says besides
    config_snapshots: bool = True
    log_location: str = ""
    metrics_location: str = ""
    key_file: str = ""
    # Headway's own: "better where it hurts", and how to switch it back
    headway_metrics: bool = True  # /metrics shows Headway's own families too, in every mode
    headway_tokens_survive: bool = False  # keep the keys of an earlier start that have not expired
    headway_truthful_ping: bool = False  # /ping is unhealthy, too, while a model that should serve does not
    headway_one_bad_request_fails_alone: bool = True
    headway_expired_answer: bool = True  # answer requests past clientTimeoutInMills, with 408
    headway_telling_messages: bool = True  # a 503 says whether there is no worker or no room
    headway_batch_delay: bool = True  # false: a batch leaves with what is there as soon as a worker is idle
    headway_batch_early: bool = True  # a batch does not wait for its delay where nobody is left to join it
    headway_copies_per_worker: int = 1  # 0: as many models share a process as fit
    headway_unpickle: bool = False  # default handlers may read pickled objects
    # models that the start was to serve and cannot, and why; see `startup`
    not_started: dict[str, str] = dataclasses.field(default_factory=dict)
    # everything the file said, as it was written there, for snapshots; no meaning otherwise
    said: dict[str, str] = dataclasses.field(default_factory=dict)

    def write(self, path: Path) -> None:
        """As JSON, for nobody else to read: it may hold a password."""
        path.touch(mode=0o600)
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")


def load_properties(path: Path) -> Properties:
    """What `write` wrote. Raises: SettingsError."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        return Properties(**found)
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(f"torchserve: {path}: {error}") from None
