"""The first thousand numbers of an image."""


class Model:
    def infer(self, x):
        return {"y": x.flatten(1)[:, :1000]}
