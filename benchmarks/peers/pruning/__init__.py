"""Unstructured pruning: ``train(run, sparsity)`` returns the network as its tool leaves it.

``plain(run)`` is the run without the tool. The lines between the markers are those that a user writes; the table counts
them.
"""
