import pytest
import torch
from functorch.compile import make_boxed_func, min_cut_rematerialization_partition
from lightning.pytorch import Callback
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.decomposition import select_decomp_table

from lightning_compress.quantization import QATCallback
from lightning_compress.quantization.activations.quantizers import quantizers_of
from tests.support.classifiers import Classifier, Conv, fit, loader


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's compiler looks
@pytest.mark.parametrize("range_lr", [0.0, 0.05])
def test_compiled_code_is_quantized(range_lr):
    eager, compiled = Conv(), Conv()
    compiled.load_state_dict(eager.state_dict())
    compiled.net.compile(backend="eager", fullgraph=True)
    for module in (eager, compiled):
        fit(module, QATCallback(range_lr=range_lr, every_n_steps=2))
    for one, other in zip(quantizers_of(eager).values(), quantizers_of(compiled).values(), strict=True):
        torch.testing.assert_close(one.high, other.high)
    x = loader().__iter__().__next__()[0]
    torch.testing.assert_close(compiled.eval()(x), eager.eval()(x))


def test_several_callbacks_leave_compilation_as_it_was():
    module, graphs = Classifier(), []
    first = next(name for name, layer in module.named_modules() if isinstance(layer, nn.Linear))
    fit(module, QATCallback(include=(first,)), QATCallback(exclude=(first,)))

    def count(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    torch.compile(torch.sin, backend=count)(torch.ones(1))
    assert len(graphs) == 1
    assert torch._functorch.config.ban_recompute_used_far_apart


@pytest.mark.parametrize("first", ["quantized", "float"])
def test_of_two_models_of_a_class_each_runs_its_own_code(first):
    quantized, images = Conv(), next(iter(loader()))[0]
    fit(quantized, QATCallback(activation_bits=4))
    plain = Conv()
    plain.load_state_dict(quantized.state_dict())
    models = [quantized.eval(), plain.eval()]
    eager = [model(images) for model in models]
    assert not torch.allclose(*eager, rtol=0.01)
    torch.compiler.reset()
    compiled = [torch.compile(model, backend="eager") for model in models]
    order = (0, 1) if first == "quantized" else (1, 0)
    for which in (*order, *order):
        torch.testing.assert_close(compiled[which](images), eager[which])


def test_signs_of_a_residual_sum_are_computed_again_and_not_stored():
    stored = []

    def note(graph, example_inputs):
        output = list(graph.graph.nodes)[-1]
        stored.extend(node.meta["val"].dtype for node in output.all_input_nodes)
        return make_boxed_func(graph)

    backend = aot_autograd(
        fw_compiler=note,
        bw_compiler=lambda graph, example_inputs: make_boxed_func(graph),
        partition_fn=min_cut_rematerialization_partition,
        decompositions=select_decomp_table(),
    )
    module = Conv()
    module.net.compile(backend=backend, fullgraph=True)
    fit(module, QATCallback(every_n_steps=100), limit_val_batches=0)
    assert torch.float32 in stored
    assert torch.bool not in stored


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's compiler looks
@pytest.mark.parametrize("range_lr", [0.0, 0.05])
def test_freezing_the_ranges_compiles_nothing(range_lr):
    module, graphs = Classifier(), []

    def count(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    frozen = []

    class Count(Callback):
        def on_train_batch_start(self, trainer, module, *args) -> None:
            frozen.append(len(graphs))

    module.net.compile(backend=count, fullgraph=True)
    fit(
        module,
        QATCallback(range_lr=range_lr, freeze_ranges_at=0.5, every_n_steps=2),
        Count(),
        limit_val_batches=0,
    )
    assert frozen[8] == frozen[-1] > 0
