"""Other libraries beside this one: the same data, network, steps and seeds; ``python -m benchmarks.peers``.

Each peer is one file in ``pruning/`` or ``quantization/``. It runs in a virtual environment of its own, with pinned
versions. Its result is measured from outside, in the environment of this package: zeros are counted in the state dict,
and accuracies are those of the file that it wrote.
"""
