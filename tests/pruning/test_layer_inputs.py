import numpy as np
import torch

from lightning_compress.pruning.layer_inputs import mean_square


def test_mean_square_of_a_convolution():
    inputs = torch.randn(2, 5, 7, 7, generator=torch.Generator().manual_seed(0))
    expected = (inputs.numpy().astype(np.float64) ** 2).mean((0, 2, 3)).reshape(1, 5, 1, 1)
    np.testing.assert_allclose(mean_square(inputs, 4), expected, rtol=1e-5)
    np.testing.assert_allclose(
        mean_square(inputs[0], 4), (inputs[0].numpy() ** 2).mean((1, 2)).reshape(1, 5, 1, 1), rtol=1e-5
    )
