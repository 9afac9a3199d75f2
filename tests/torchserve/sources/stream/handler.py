"""Streams: as many parts as the body says, then the last."""

from ts.handler_utils.utils import send_intermediate_predict_response


def handle(data, context):
    if data is None:
        return None
    body = data[0].get("body") or data[0].get("data")
    count = int(body if isinstance(body, str) else bytes(body).decode())
    for i in range(count):
        send_intermediate_predict_response(
            [f"part {i};"], context.request_ids, "Intermediate Prediction success", 200, context
        )
    return ["the end"]
