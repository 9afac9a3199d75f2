"""`model.toml`: every key has a type and limits, and is refused by its name."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.errors import SettingsError
from headway.messages import BATCH_ROWS_MAX, TIMEOUT_MS_MAX
from headway.models import ModelSpec, TensorSpec, checked, parse_model
from headway.tensors import BY_NAME, RANK_MAX

INPUT = {"name": "x", "dtype": "float32", "shape": [-1, 3]}


def parsed(name="tiny", version="1", **table):
    return parse_model({"backend": "python", **table}, name, version, "/models/tiny/1")


def refusal(**table):
    with pytest.raises(SettingsError) as caught:
        parsed(**table)
    return str(caught.value)


def test_the_least_model_has_every_default():
    assert parsed() == ModelSpec("tiny", "1", "/models/tiny/1", "python")
    assert parsed().key == ("tiny", "1")


def test_every_key_can_be_set():
    table = {
        "file": "model.py",
        "processing": "sub/processing.py",
        "device": "cuda:1",
        "batch_size_max": 8,
        "batch_delay_ms": 2.5,
        "batch_buckets": [1, 4, 8],
        "slo_ms": 50.0,
        "continuous": False,  # with which others mean nothing
        "in_flight_max": 0,
        "batch_clock": "worker",
        "batch_early": False,
        "share": 2.0,
        "response_timeout_s": 5.0,
        "load_timeout_s": 9.0,
        "queue_size_max": 10,
        "queue_bytes_max": 1000,
        "copies": 2,
        "idempotent": False,
        "copies_min": 1,
        "copies_max": 4,
        "memory_mb": 512,
        "decode_ahead": False,
        "sequences_max": 0,
        "sequence_queue_max": 3,
        "sequence_idle_ms": 500.0,
        "sequence_timeout_ms": 9000.0,
        "sequence_opens": "any",
        "precision": "bfloat16",
        "channels_last": True,
        "cuda_graphs": True,
        "inputs": [{**INPUT, "pad_value": 0.0, "mask": "m", "warmup_shape": [4, 3]}],
        "outputs": [{"name": "y", "dtype": "int64", "shape": []}],
        "options": {"any": ["thing"]},
    }
    given_by_the_store = {"name", "version", "folder", "backend"}
    assert set(table) == {f.name for f in fields(ModelSpec)} - given_by_the_store
    spec = parsed(**table)
    assert spec.inputs == (TensorSpec("x", "float32", (-1, 3), 0.0, "m", (4, 3)),)
    assert spec.outputs == (TensorSpec("y", "int64", ()),)
    assert spec.batch_buckets == (1, 4, 8)
    plain = [k for k in table if "puts" not in k and k != "batch_buckets"]
    assert {k: getattr(spec, k) for k in plain} == {k: table[k] for k in plain}


def test_the_backend_must_be_named():
    with pytest.raises(SettingsError, match="backend is missing"):
        parse_model({}, "tiny", "1", "/")


@pytest.mark.parametrize("key", ["batch_dealy_ms", "Backend", "", "name", "version", "folder"])
def test_an_unknown_key_is_refused_by_name(key):
    with pytest.raises(SettingsError, match=f"^{key} is not known; known are backend, file,"):
        parse_model({"backend": "python", key: "x"}, "tiny", "1", "/")


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("backend", [1, None, ["python"]]),
        ("file", [1, True]),
        ("processing", [1]),
        ("device", [0]),
        ("batch_size_max", [1.0, "1", True, None]),
        ("batch_delay_ms", ["1", True, [1]]),
        ("slo_ms", ["50", True]),
        ("share", ["1", False]),
        ("response_timeout_s", ["1", True]),
        ("queue_size_max", [1.5, True]),
        ("queue_bytes_max", ["1 MB", True]),
        ("copies", [1.0, False]),
        ("idempotent", [0, 1, "yes"]),
        ("decode_ahead", [0, 1, "yes"]),
        ("channels_last", [0, "yes"]),
        ("cuda_graphs", [1, "yes"]),
        ("precision", [16, True]),
        ("batch_buckets", [8, "8", {}]),
        ("inputs", [{}, "x", 1]),
        ("outputs", [{"name": "y"}, 1]),
        ("options", [[], "x"]),
    ],
)
def test_a_key_of_a_wrong_type_is_refused_by_name(key, values):
    for value in values:
        assert refusal(**{key: value}).startswith(f"{key} must be of type ")


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("batch_size_max", [0, -1, BATCH_ROWS_MAX + 1]),
        ("batch_delay_ms", [-0.1, math.nan, math.inf, TIMEOUT_MS_MAX + 1, 10**400]),
        ("slo_ms", [-1, math.nan, TIMEOUT_MS_MAX + 1]),
        ("share", [0, -1, math.nan, 1001]),
        ("response_timeout_s", [0, 0.0, -1, math.nan, math.inf, 86_401.0, 10**400]),
        ("load_timeout_s", [-1, math.nan, 86_401.0]),
        ("batch_clock", ["", "Worker", "arrivals"]),
        ("queue_size_max", [-1, 2**64]),
        ("queue_bytes_max", [0, 2**64]),
        ("copies", [-1, 2**64]),
        ("device", ["", "cuda:", "cuda:x", "gpu", "CPU", "cpu ", "cuda:1\n"]),
        ("file", ["../x", "a/../../x", "/etc/passwd", ".."]),
        ("processing", ["../x.py", "/x.py"]),
        ("precision", ["", "half", "float64"]),
        ("batch_buckets", [[0, 1], [1.0], [True], ["1"], [2], [1, 1], [2, 1]]),
    ],
)
def test_a_key_beyond_its_limits_is_refused_by_name(key, values):
    for value in values:
        assert refusal(**{key: value}).startswith(key)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("batch_size_max", [1, BATCH_ROWS_MAX]),
        ("batch_delay_ms", [0, 0.5, 3]),
        ("response_timeout_s", [0.001, 1, 86_400]),
        ("copies", [0, 8]),
        ("precision", ["float32", "float16", "bfloat16"]),
        ("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:15"]),
        ("file", ["model..pt", "a/b.pt", "...", ""]),
    ],
)
def test_a_key_at_its_limits_is_taken(key, values):
    for value in values:
        assert getattr(parsed(**{key: value}), key) == value


def test_whole_numbers_are_good_floats():
    assert type(parsed(batch_delay_ms=2).batch_delay_ms) is float


# ---- tensors


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"naem": "x"}, "inputs[1].naem is not known"),
        ({"name": 1}, "inputs[1].name"),
        ({"name": ""}, "inputs[1].name"),
        ({"name": "x" * 257}, "inputs[1].name"),
        ({"dtype": "float"}, "inputs[1].dtype"),
        ({"dtype": "FP32"}, "inputs[1].dtype"),
        ({"shape": 3}, "inputs[1].shape"),
        ({"shape": [0]}, "inputs[1]: a shape"),
        ({"shape": [-2]}, "inputs[1]: a shape"),
        ({"shape": [True]}, "inputs[1]: a shape"),
        ({"shape": [1.0]}, "inputs[1]: a shape"),
        ({"shape": ["n"]}, "inputs[1]: a shape"),
        ({"shape": [[1]]}, "inputs[1]: a shape"),
        ({"shape": [1] * RANK_MAX}, "inputs[1]: a shape"),
        ({"warmup_shape": [0]}, "inputs[1]: a shape"),
        ({"pad_value": "0"}, "inputs[1].pad_value"),
        ({"pad_value": True}, "inputs[1].pad_value"),
        ({"mask": 1}, "inputs[1].mask"),
    ],
)
def test_a_wrong_tensor_is_refused_by_its_place_and_key(wrong, where):
    assert refusal(inputs=[INPUT, {**INPUT, "name": "second", **wrong}]).startswith(where)


@pytest.mark.parametrize("key", ["name", "dtype", "shape"])
def test_a_tensor_needs_a_name_a_dtype_and_a_shape(key):
    assert f"outputs[0].{key} is missing" in refusal(outputs=[{k: v for k, v in INPUT.items() if k != key}])


def test_a_tensor_must_be_a_table():
    assert refusal(inputs=[1]) == "inputs[0] must be a table"


@pytest.mark.parametrize(
    "inputs",
    [
        [INPUT, INPUT],
        [{**INPUT, "mask": "x"}],
        [INPUT, {**INPUT, "name": "m"}, {**INPUT, "name": "z", "mask": "m"}],
    ],
)
def test_two_tensors_of_one_name_are_refused(inputs):
    assert refusal(inputs=inputs) == "inputs: two tensors have one name"


def test_an_input_and_an_output_may_share_a_name():
    assert parsed(inputs=[INPUT], outputs=[INPUT]).inputs == parsed(outputs=[INPUT]).outputs


@pytest.mark.parametrize("dtype", BY_NAME)
def test_every_dtype_can_be_named(dtype):
    assert parsed(inputs=[{**INPUT, "dtype": dtype}]).inputs[0].dtype == dtype


def test_a_shape_to_warm_up_with_is_known_where_no_size_is_open():
    spec = TensorSpec("x", "float32", (3, 4))
    assert spec.example_shape == (3, 4)
    assert TensorSpec("x", "float32", (-1, 4)).example_shape is None
    assert TensorSpec("x", "float32", (-1, 4), warmup_shape=(5, 4)).example_shape == (5, 4)
    assert TensorSpec("x", "float32", ()).example_shape == ()


# ---- names


@pytest.mark.parametrize("name", ["tiny", "0", "_a", "a.b-c_d", "A" * 128, "1.0"])
def test_a_good_name_is_taken(name):
    assert parsed(name=name).name == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".a", "-a", "a b", "a/b", "ä", "a\n", "a\0", "A" * 129, "\ud800"]
)
def test_a_name_that_no_model_can_have_is_refused(name):
    assert "is no name for a model" in refusal(name=name)


@pytest.mark.parametrize(
    "version", ["1", "01", "1.2", "1.2.3.4.5", "20240131", "v2", "1.0-rc1", "2.0+cu118", "a_b", "x" * 128]
)
def test_a_good_version_is_taken(version):
    assert parsed(version=version).version == version


@pytest.mark.parametrize(
    "version", ["", ".1", "..", "-1", "+1", "_1", "1\n", "1 2", "1/2", "\u0663", "1" * 129, "1.tmp", "1~"]
)
def test_a_version_that_is_none_is_refused(version):
    assert "is no version" in refusal(version=version)


TABLES = st.dictionaries(
    st.sampled_from([f.name for f in fields(ModelSpec)]),
    st.recursive(
        st.integers() | st.floats() | st.booleans() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([f.name for f in fields(TensorSpec)]), inner, max_size=4)
        ),
        max_leaves=6,
    ),
    max_size=4,
)


@settings(max_examples=60)
@given(TABLES)
def test_no_table_raises_anything_but_a_settings_error(table):
    try:
        spec = parse_model({"backend": "python"} | table, "tiny", "1", "/")
    except SettingsError:
        return
    assert spec.response_timeout_s * 1000 <= TIMEOUT_MS_MAX


def test_any_dataclass_can_be_checked():
    assert checked(TensorSpec, {"name": "x", "dtype": "bool", "shape": []}) == {
        "name": "x",
        "dtype": "bool",
        "shape": (),
    }


def test_batches_that_run_beside_one_another_are_so_many():
    assert parsed().abreast_max == 0
    assert parsed(continuous=True, batch_size_max=6).abreast_max == 6
    assert parsed(in_flight_max=9, batch_size_max=6).abreast_max == 9


def test_what_means_nothing_where_batches_run_beside_one_another_is_refusal():
    assert refusal(continuous=True, in_flight_max=2).startswith("in_flight_max: a continuous batch")
    assert refusal(continuous=True, slo_ms=5.0) == (
        "slo_ms: means nothing with continuous, where batches run beside one another"
    )
    assert refusal(in_flight_max=2, cuda_graphs=True).startswith("cuda_graphs: means nothing with in_flight")
    assert refusal(continuous=True, sequences_max=2).startswith(
        "sequences_max: means nothing with continuous"
    )


def test_a_model_with_sequences_runs_nothing_twice_and_refuses_nothing_early():
    assert parsed().may_run_again and not parsed(idempotent=False).may_run_again
    assert not parsed(sequences_max=1).may_run_again
    assert "slo_ms: a model with sequences" in refusal(sequences_max=1, slo_ms=50.0)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"sequence_opens": "all"}, "sequence_opens: 'all' is not one of start, any"),
        ({"sequence_idle_ms": 0}, "sequence_idle_ms must be from 1"),
        ({"sequences_max": -1}, "sequences_max must be from 0"),
    ],
)
def test_what_is_wrong_with_sequences_is_named(table, said):
    assert said in refusal(**table)
