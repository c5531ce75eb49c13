"""Quantization-aware training: ``train(run)`` returns the function that writes files into a folder.

``plain(run)`` is the run without the tool. The lines between the markers are those that a user writes.
"""
