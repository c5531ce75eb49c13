import torch
from torch import nn

from lightning_compress.channels.latencies import relative_latency


def test_a_model_that_does_twice_the_work_takes_longer():
    layers = [nn.Linear(512, 512) for _ in range(16)]
    short, long = nn.Sequential(*layers[:2]), nn.Sequential(*layers)
    assert relative_latency(short, long, torch.zeros(64, 512)) < 0.6  # an eighth of the work
