"""Has an entry point of another name."""


def initialize(context):
    raise AssertionError("nobody calls this")


def serve(data, context):
    if data is None:
        serve.folder = context.system_properties["model_dir"]
        return None
    return [type(getattr(serve, "folder", None)).__name__] * len(data)
