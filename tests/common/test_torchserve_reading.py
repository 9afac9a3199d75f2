"""Properties from the file, the command line and the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headway.errors import SettingsError
from headway.torchserve.properties import Properties, load_properties
from headway.torchserve.reading import MEANINGLESS, SWITCHES, Given, Read, models_of, read_properties

HERE = Path("/work-folder")
# As TorchServe's documentation of its configuration lists them.
THEIRS = """
inference_address management_address metrics_address grpc_inference_address grpc_management_address
grpc_inference_port grpc_management_port grpc_inference_max_connection_age_ms
grpc_management_max_connection_age_ms grpc_inference_max_connection_age_grace_ms
grpc_management_max_connection_age_grace_ms enable_grpc_ssl enable_metrics_api model_store load_models models
model_snapshot workflow_store default_workers_per_model install_py_dep_per_model enable_model_api allowed_urls
use_env_allowed_urls job_queue_size default_response_timeout default_startup_timeout unregister_model_timeout
max_request_size max_response_size decode_input_request limit_max_image_pixels default_service_handler
service_envelope prefer_direct_buffer ts_open_inference_protocol ts_header_key_sequence_id
ts_header_key_sequence_start ts_header_key_sequence_end number_of_netty_threads netty_client_threads
number_of_gpu initial_worker_port initial_distribution_port vmargs use_native_io io_ratio ipex_enable
ipex_gpu_enable cpu_launcher_enable cpu_launcher_args blacklist_env_vars keystore keystore_pass keystore_type
private_key_file certificate_file disable_token_authorization token_expiration_min cors_allowed_origin
cors_allowed_methods cors_allowed_headers metrics_config metrics_mode model_metrics_auto_detect
disable_system_metrics system_metrics_cmd metric_time_interval async_logging cpp_log_config debug plugins_path
model_server_home enable_envvars_config
"""


def read(file: dict[str, str] | None = None, **more: Any) -> Read:
    return read_properties(Given(HERE, file or {}, **more))


def test_nothing_said_is_torchserves_defaults_and_logs_and_keys_here() -> None:
    found = read()
    assert found.warnings == ()
    assert found.properties == Properties(
        log_location="/work-folder/logs",
        metrics_location="/work-folder/logs",
        key_file="/work-folder/key_file.json",
    )


def test_every_property_of_torchserves_is_accounted_for() -> None:
    fields = set(Properties.__dataclass_fields__)
    assert [key for key in THEIRS.split() if key not in fields | {*MEANINGLESS, *SWITCHES}] == []
    assert not fields & {*MEANINGLESS, *SWITCHES}


def test_values_have_the_types_of_the_properties() -> None:
    found = read(
        {
            "inference_address": "https://0.0.0.0",
            "model_store": "store",
            "job_queue_size": " 7 ",
            "enable_model_api": "TRUE",
            "token_expiration_min": "0.5",
            "metrics_mode": "Prometheus",
            "number_of_gpu": "-1",
            "keystore": "/abs/k.p12",
        }
    )
    assert found.warnings == ()
    properties = found.properties
    assert properties.model_store == properties.workflow_store == "/work-folder/store"
    assert (properties.job_queue_size, properties.token_expiration_min) == (7, 0.5)
    assert (properties.enable_model_api, properties.metrics_mode) == (True, "prometheus")
    assert (properties.keystore, properties.number_of_gpu) == ("/abs/k.p12", -1)
    assert properties.said["job_queue_size"] == " 7 "


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ({"job_queue_size": "many"}, "c.cfg: job_queue_size: 'many' is not a whole number"),
        ({"max_request_size": "0"}, "c.cfg: max_request_size: '0' is not between 1 and"),
        ({"grpc_inference_port": "70000"}, "grpc_inference_port: '70000' is not between 0 and 65535"),
        ({"token_expiration_min": "soon"}, "token_expiration_min: 'soon' is not a number"),
        ({"token_expiration_min": "nan"}, "token_expiration_min: 'nan' is not between"),
        ({"inference_address": "127.0.0.1:8080"}, "inference_address: Invalid binding address"),
        ({"metrics_address": "http://h:99999"}, "metrics_address: Invalid port number: 99999"),
        ({"models": "[1]"}, "c.cfg: models is not JSON by name and version"),
        ({"model_store": "$$NO_SUCH$$/x"}, "c.cfg: Invalid Environment Variable NO_SUCH"),
    ],
)
def test_what_is_wrong_is_said_with_its_key_and_file(file: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read(file, where="c.cfg")
    assert said in str(raised.value)


def test_what_does_nothing_is_said_in_one_line_each() -> None:
    file = {"vmargs": "-Xmx1g", "io_ratio": "50", "speed": "1", "colour": "red", "version": "0.12.0"}
    assert read(file).warnings == (
        "properties without a meaning here: io_ratio, vmargs",
        "unknown properties: colour, speed",
    )


def test_truth_values_are_as_java_reads_them() -> None:
    found = read({"enable_model_api": "yes", "ts_open_inference_protocol": "oip"})
    assert (found.properties.enable_model_api, found.properties.ts_open_inference_protocol) == (False, False)
    assert found.warnings[0] == "enable_model_api: 'yes' is not true or false; it counts as false"


def test_values_of_the_environment_are_filled_in() -> None:
    environment = {"HOST": "0.0.0.0", "PORT": "8085"}
    found = read({"inference_address": "http://$$HOST$$:$$PORT$$"}, environment=environment)
    assert found.properties.inference_address == "http://0.0.0.0:8085"


def test_the_environment_is_over_the_command_line_which_is_over_the_file() -> None:
    file = {"model_store": "a", "load_models": "x.mar", "job_queue_size": "5"}
    line = {"model_store": "b", "load_models": "y.mar"}
    environment = {
        "TS_MODEL_STORE": "c",
        "TS_TOKEN_EXPIRATION_TIME_MIN": "9",
        "TS_HEADER_KEY_SEQUENCE_ID": "seq",
        "TS_SOMETHING": "1",
        "LOG_LOCATION": "/var/log/ts",
    }
    off = read(file, line=line, environment=environment).properties
    assert (off.model_store, off.load_models, off.job_queue_size) == ("/work-folder/b", "y.mar", 5)
    assert (off.log_location, off.metrics_location) == ("/var/log/ts", "/work-folder/logs")
    on = read({**file, "enable_envvars_config": "true"}, line=line, environment=environment)
    assert (on.properties.model_store, on.properties.load_models) == ("/work-folder/c", "y.mar")
    assert (on.properties.token_expiration_min, on.properties.ts_header_key_sequence_id) == (9.0, "seq")
    assert on.warnings == ()


def test_allowed_urls_of_the_environment_need_a_word_of_their_own() -> None:
    environment = {"TS_ALLOWED_URLS": "https://.*"}
    file = {"enable_envvars_config": "true"}
    assert read(file, environment=environment).properties.allowed_urls == ""
    file["use_env_allowed_urls"] = "true"
    assert read(file, environment=environment).properties.allowed_urls == "https://.*"


@pytest.mark.parametrize(("said", "on"), [("oip", True), ("no", False), ("", True)])
def test_the_open_inference_protocol_is_switched_by_its_variable_first(said: str, on: bool) -> None:
    environment = {"TS_OPEN_INFERENCE_PROTOCOL": said, "TS_X": ""}
    file = {"ts_open_inference_protocol": "true", "enable_envvars_config": "true"}
    assert read(file, environment=environment).properties.ts_open_inference_protocol is on


def test_models_are_found_by_name_and_version() -> None:
    found = read({"models": '{"noop": {"1.0": {"batchSize": 4}}}'}).properties
    assert models_of(found) == {"noop": {"1.0": {"batchSize": 4}}}


def test_the_gateway_reads_what_the_command_wrote(tmp_path: Path) -> None:
    found = read({"model_store": "s", "keystore_pass": "ü"}).properties
    found.write(tmp_path / "p.json")
    assert load_properties(tmp_path / "p.json") == found
    assert (tmp_path / "p.json").stat().st_mode & 0o077 == 0
