"""`ts.torch_handler`: the default handlers, which archives name or inherit from."""
