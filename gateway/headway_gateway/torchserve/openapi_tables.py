"""The words of TorchServe's descriptions of itself: what operations ask for, and what they answer.

Knows: names, types and texts, as clients read them. Must not know: operations, paths.
"""

from __future__ import annotations

from headway_gateway.torchserve.openapi_parts import (
    Json,
    integer,
    listed,
    parameter,
    query,
    record,
    text,
    typed,
)

# ---- what is answered ----

FAILURE = record(
    "code type message",
    code=integer("Error code."),
    type=text("Error type."),
    message=text("Error message."),
)
STATUS = record("status", status=text("Error type."))
PING_STATUS = record("status", status=text("Overall status of the TorchServe."))
NAMES = {
    202: "Accepted",
    210: "Partial Success",
    400: "Bad request",
    404: "Model not found or Model version not found",
    408: "Request Timeout Error",
    409: "Model already registered",
    500: "Internal Server Error",
    503: "No worker is available to serve request",
}
BYTES = {"type": "string", "format": "binary"}
DESCRIPTOR = record("openapi info paths", openapi=text(), info=typed("object"), paths=typed("object"))
METRICS_SCHEMA: Json = {
    "type": "object",
    "required": ["# HELP", "# TYPE", "metric"],
    "properties": {
        "# HELP": text("Help text for TorchServe metric."),
        "# TYPE": text("Type of TorchServe metric."),
        "metric": text("TorchServe application metric."),
    },
}
_PAGE = (
    "Use this parameter in a subsequent request after you receive a response with truncated results."
    " Set it to the value of NextMarker from the truncated response you just received."
)
_MODEL = record(
    "modelName modelUrl", modelName=text("Name of the model."), modelUrl=text("URL of the model.")
)
MODELS = record("models", nextPageToken=text(_PAGE), models=listed(_MODEL, "A list of registered models."))
_WORKER = record(
    "id startTime status",
    id=text("Worker id"),
    startTime=text("Worker start time"),
    gpu=typed("boolean", "If running on GPU"),
    status=typed("string", "Worker status", enum=["READY", "LOADING", "UNLOADING"]),
)
DESCRIBED = record(
    "modelName modelVersion modelUrl minWorkers maxWorkers status workers metrics jobQueueStatus",
    modelName=text("Name of the model."),
    modelVersion=text("Version of the model."),
    modelUrl=text("URL of the model."),
    minWorkers=integer("Configured minimum number of worker."),
    maxWorkers=integer("Configured maximum number of worker."),
    batchSize=integer("Configured batch size."),
    maxBatchDelay=integer("Configured maximum batch delay in ms."),
    status=text("Overall health status of the model"),
    workers=listed(_WORKER, "A list of active backend workers."),
    metrics=record(
        "rejectedRequests waitingQueueSize requests",
        rejectedRequests=integer("Number requests has been rejected in last 10 minutes."),
        waitingQueueSize=integer("Number requests waiting in the queue."),
        requests=integer("Number requests processed in last 10 minutes."),
    ),
    jobQueueStatus=record(
        "remainingCapacity pendingRequests",
        remainingCapacity=integer("Number of new requests that can be queued."),
        pendingRequests=integer("Number of requests waiting in the queue."),
    ),
)

# ---- what is asked ----

TIMEOUT = query(
    "timeout",
    "integer",
    "Waiting up to the specified wait time if necessary for a worker to complete all pending requests."
    " Use 0 to terminate backend worker process immediately. Use -1 for wait infinitely.",
    "-1",
)
SYNCHRONOUS = query(
    "synchronous", "boolean", "Decides whether the call is synchronous or not, default: false.", "false"
)
SCALING = [
    query("min_worker", "integer", "Minimum number of worker processes.", "1"),
    query("max_worker", "integer", "Maximum number of worker processes.", "1"),
    query("number_gpu", "integer", "Number of GPU worker processes to create.", "0"),
    SYNCHRONOUS,
    TIMEOUT,
]
LISTING = [
    query(
        "limit",
        "integer",
        "Use this parameter to specify the maximum number of items to return. When this value is present,"
        " TorchServe does not return more than the specified number of items, but it might return fewer. This"
        " value is optional. If you include a value, it must be between 1 and 1000, inclusive. If you do not"
        " include a value, it defaults to 100.",
        "100",
    ),
    query(
        "next_page_token",
        "string",
        "The token to retrieve the next set of results. TorchServe provides the token when the"
        " response from a"
        " previous call has more results than the maximum page size.",
    ),
]
_RUNTIME = parameter(
    "query",
    "runtime",
    {"type": "string", "enum": ["PYTHON", "PYTHON3", "LSP"]},
    "Runtime for the model custom service code. This value will override runtime in MANIFEST.json"
    " if present.",
)
REGISTERING = [
    query(
        "url",
        "string",
        "Model archive download url, support local file or HTTP(s) protocol. For S3, consider use"
        " pre-signed url.",
        required=True,
    ),
    query(
        "model_name",
        "string",
        "Name of model. This value will override modelName in MANIFEST.json if present.",
    ),
    query(
        "handler",
        "string",
        "Inference handler entry-point. This value will override handler in MANIFEST.json if present.",
    ),
    _RUNTIME,
    query("batch_size", "integer", "Inference batch size, default: 1.", "1"),
    query("max_batch_delay", "integer", "Maximum delay for batch aggregation, default: 100.", "100"),
    query(
        "response_timeout",
        "integer",
        "Maximum time, in seconds, the TorchServe waits for a response from the model inference code,"
        " default: 120.",
        "2",
    ),
    query(
        "startup_timeout",
        "integer",
        "Maximum time, in seconds, the TorchServe waits for the model to startup/initialize, default: 120.",
        "120",
    ),
    query("initial_workers", "integer", "Number of initial workers, default: 0.", "0"),
    query(
        "synchronous",
        "boolean",
        "Decides whether creation of worker synchronous or not, default: false.",
        "false",
    ),
    query(
        "s3_sse_kms",
        "boolean",
        "Model mar file is S3 SSE KMS(server side encryption) enabled or not, default: false.",
        "false",
    ),
]
