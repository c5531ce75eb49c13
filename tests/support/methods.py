"""Small weight methods, to compose with those of the package."""

from lightning_compress.schedules import Constant, Step
from lightning_compress.training import QUANTIZE, WeightCompression


class Halves(WeightCompression):
    """Rounds to multiples of 0.5 with the straight-through gradient: the smallest method there is."""

    def __init__(self, schedule=Constant(), include=("*",), exclude=()):
        super().__init__(order=QUANTIZE, schedule=schedule, every_n_steps=1, include=include, exclude=exclude)

    def check(self, target):
        pass

    def describe(self):
        return "halves"

    def update(self, weights):
        pass

    def project_(self, weights):
        for weight in weights.values():
            weight.mul_(2).round_().div_(2)


class Halved(WeightCompression):
    """Halves every weight, with a state of the shape of the weights."""

    def __init__(self, *, schedule, every_n_steps):
        super().__init__(order=QUANTIZE, schedule=schedule, every_n_steps=every_n_steps, include=("*",), exclude=())

    def begin(self, selection):
        super().begin(selection)
        self.signs = {}

    def check(self, target):
        pass

    def describe(self):
        return "halved"

    def update(self, weights):
        self.signs = {name: weight.sign() for name, weight in weights.items()}

    def project_(self, weights):
        for name, weight in weights.items():
            weight.copy_(self.signs[name] * weight.abs() / 2)

    def tensors(self):
        return {"signs": self.signs}

    def load_tensors(self, tensors):
        self.signs = dict(tensors["signs"])


class Grid(WeightCompression):
    """Rounds to 15 integers, of one scale per tensor or per output channel, straight-through: a tiny quantizer."""

    def __init__(self, per_channel=False, include=("*",), exclude=()):
        super().__init__(order=QUANTIZE, schedule=Step(0.3), every_n_steps=1, include=include, exclude=exclude)
        self.per_channel = per_channel

    def check(self, target):
        pass

    def describe(self):
        return "15 integers"

    def update(self, weights):
        pass

    def project_(self, weights):
        for weight in weights.values():
            weight.div_(self.scale(weight)).round_().mul_(self.scale(weight))

    def scale(self, weight):
        largest = weight.flatten(1).abs().amax(1) if self.per_channel else weight.abs().amax()
        return (2 ** (largest.clamp(min=1e-9) / 7).log2().ceil()).view(-1, *[1] * (weight.ndim - 1))
