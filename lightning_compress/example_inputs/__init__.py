"""Example inputs: an example from the data, and one way to run a module on it that leaves the module as it was."""

from lightning_compress.example_inputs.batches import (
    example_in,
    first_batch,
    first_examples,
    first_samples,
    readings,
    small_example_in,
)
from lightning_compress.example_inputs.calls import (
    ExampleInput,
    as_arguments,
    call,
    check_example_input,
    check_runs,
    device_of,
    entries_of,
    evaluating,
    float_outputs,
    line_of,
    on_device,
    shapes_of,
    tensors_in,
    unwrapped,
)

__all__ = [
    "ExampleInput",
    "as_arguments",
    "call",
    "check_example_input",
    "check_runs",
    "device_of",
    "entries_of",
    "evaluating",
    "example_in",
    "first_batch",
    "first_examples",
    "first_samples",
    "float_outputs",
    "line_of",
    "on_device",
    "readings",
    "shapes_of",
    "small_example_in",
    "tensors_in",
    "unwrapped",
]
