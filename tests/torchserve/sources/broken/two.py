"""Has two classes, so neither is the handler."""


class One:
    pass


class Two:
    pass
