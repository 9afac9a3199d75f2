"""Answers what it was given: names, types and values of the inputs, headers, and the context."""

import os

VOLATILE = {"host", "user-agent", "accept", "content-length", "accept-encoding", "connection"}


def told(value):
    shown = bytes(value).decode("utf-8", "replace") if isinstance(value, (bytes, bytearray)) else value
    return [type(value).__name__, shown]


def known(headers):
    return {name: value for name, value in sorted(headers.items()) if name.lower() not in VOLATILE}


class Echo:
    def initialize(self, context):
        self.manifest = context.manifest

    def handle(self, data, context):
        return [self.answer(i, row, context) for i, row in enumerate(data)]

    def answer(self, i, row, context):
        headers = context.get_all_request_header(i)
        context.set_response_content_type(i, "application/json")
        if headers.get("x-show") == "context":
            return self.of_context(context)
        return {"inputs": {name: told(row[name]) for name in sorted(row)}, "headers": known(headers)}

    def of_context(self, context):
        properties = dict(context.system_properties)
        folder = properties.pop("model_dir")
        manifest = {key: value for key, value in self.manifest.items() if key != "createdOn"}
        return {
            "model_name": context.model_name,
            "manifest": manifest,
            "properties": {name: told(value) for name, value in sorted(properties.items())},
            "is_working_folder": os.path.realpath(folder) == os.path.realpath(os.getcwd()),
            "has_handler": os.path.exists(os.path.join(folder, "handler.py")),
            "yaml": context.model_yaml_config,
            "request_ids": {str(key): type(value).__name__ for key, value in context.request_ids.items()},
            "request_id_is_equal": context.get_request_id(0) == context.request_ids[0],
            "one_header": context.get_request_header(0, "x-show"),
            "response_status": list(context.get_response_status(0)),
            "content_type": context.get_response_content_type(0),
        }
