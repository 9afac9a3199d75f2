"""`ts.protocol.otf_message_handler`: the older place of `send_intermediate_predict_response`."""

from headway_worker.torchserve.ts.handler_utils.utils import send_intermediate_predict_response

__all__ = ["send_intermediate_predict_response"]
