"""K-means of ten million weights into 16 clusters, against scikit-learn; process CPU time, A B A B.

Run: ``python -m benchmarks.kmeans [weights] [rounds]``
"""

import sys
import time

import torch
from sklearn.cluster import KMeans

from lightning_compress.sharing.initial_centers import linear, plus_plus
from lightning_compress.sharing.kmeans import assign, fit


def inertia(values: torch.Tensor, codebook: torch.Tensor) -> float:
    """Sum of squared distances to the nearest center."""
    return float((values.double() - codebook.double()[assign(values, codebook)]).square().sum())


def reference(values: torch.Tensor, start: str | torch.Tensor) -> torch.Tensor:
    """Centers of scikit-learn with its defaults, one start."""
    init = start if isinstance(start, str) else start[:, None].numpy()
    model = KMeans(16, init=init, n_init=1, random_state=0).fit(values[:, None].numpy())
    return torch.from_numpy(model.cluster_centers_[:, 0]).float().sort().values


def main(weights: int = 10_000_000, rounds: int = 2) -> None:
    """Print seconds and inertia of both, with the same initialization."""
    torch.set_num_threads(1)
    values = torch.randn(weights, generator=torch.Generator().manual_seed(0)) * 0.05
    starts = {"linear": (linear, linear(values.sort().values, 16)), "k-means++": (plus_plus, "k-means++")}
    print(f"{'init':<12}{'ours s':>8}{'sklearn s':>11}{'ratio':>8}{'ours inertia':>15}{'sklearn inertia':>17}")
    for name, (init, start) in starts.items():
        for _ in range(rounds):
            t0 = time.process_time()
            ours = fit(values, 16, init)
            t1 = time.process_time()
            theirs = reference(values, start)
            t2 = time.process_time()
            row = f"{name:<12}{t1 - t0:>8.3f}{t2 - t1:>11.3f}{(t2 - t1) / (t1 - t0):>8.1f}"
            print(f"{row}{inertia(values, ours):>15.4f}{inertia(values, theirs):>17.4f}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
