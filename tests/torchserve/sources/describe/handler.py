"""Describes itself."""

from ts.torch_handler.base_handler import BaseHandler


class Described(BaseHandler):
    def initialize(self, context):
        self.initialized = True

    def handle(self, data, context):
        if context.get_request_header(0, "describe") == "True":
            return [self.describe_handle()]
        return ["a prediction"] * len(data)

    def describe_handle(self):
        return {"data_type": "text", "labels": ["yes", "no"], "threshold": 0.5}
