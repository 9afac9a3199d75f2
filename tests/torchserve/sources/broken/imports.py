"""Imports what is not there."""

import module_that_is_not_there


def handle(data, context):
    return module_that_is_not_there.run(data)
