"""Has no memory to be loaded."""


class Hungry:
    def initialize(self, context):
        raise MemoryError("too big")

    def handle(self, data, context):
        return data
