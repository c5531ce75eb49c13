import torch

from examples.time_series import ConvNet, SeriesData


def test_sequences_are_split():
    torch.manual_seed(7)
    random = torch.get_rng_state()
    data = SeriesData()
    data.setup("fit")
    sizes = [tuple(series.shape) for series, _ in (data.train, data.val, data.test)]
    assert sizes == [(3200, 1, 40), (800, 1, 40), (1000, 1, 40)]
    assert torch.bincount(data.test[1]).min() > 70
    series = torch.cat([part for part, _ in (data.train, data.val, data.test)])
    assert series.mean().abs() < 1e-3
    assert (series.std() - 1).abs() < 1e-3
    assert torch.equal(torch.get_rng_state(), random)
    assert ConvNet(width=8)(data.test[0][:3]).shape == (3, 10)
