# ---
# jupyter:
#   jupytext: {formats: 'py:percent'}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A faster ResNet
#
# A residual network loses half of its multiply-accumulates while it trains: channels are removed, and, with
# `remove_blocks`, whole residual branches. Every runtime is faster for it.
# `pip install 'lightning-compress[channels,onnx]' scikit-learn`

# %%
import copy
import time
import warnings

import lightning as L
import onnxruntime
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightning_compress import ChannelPruningCallback, export, load_compressed
from lightning_compress.macs import count_macs
from lightning_compress.schedules import Cubic

warnings.filterwarnings("ignore", ".*does not have many workers.*")
EPOCHS = 4


# %%
class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x):
        inner = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return (inner + self.shortcut(x)).relu()


class ResNet(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2), Block(32, 32, 1), Block(32, 64, 2))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

    def forward(self, images):
        return self.head(self.blocks(self.stem(images)))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 3e-3)


L.seed_everything(0)
images, labels = load_digits(return_X_y=True)
images = torch.tensor(images / 16.0, dtype=torch.float32).view(-1, 1, 8, 8)
digits = TensorDataset(nn.functional.interpolate(images, size=16), torch.tensor(labels))
train, val = random_split(digits, [1437, 360])
loaders = DataLoader(train, 64, shuffle=True), DataLoader(val, 360)


def fit(module, *callbacks):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(max_epochs=EPOCHS, accelerator="cpu", callbacks=list(callbacks), **quiet)
    trainer.fit(module, *loaders)
    return trainer


# %% [markdown]
# ## Half of the operations
#
# The wide model is trained first; the schedule begins at once, and most of the run is recovery.

# %%
dense = ResNet()
accuracies = {"dense": fit(dense).callback_metrics["val_acc"].item()}
narrow = copy.deepcopy(dense)
callback = ChannelPruningCallback(macs=0.5, round_to=8, remove_blocks=True, schedule=Cubic(begin=0.0, until=0.3))
run = fit(narrow, callback)
accuracies["narrow"] = run.callback_metrics["val_acc"].item()
run.save_checkpoint("narrow.ckpt")
print(narrow.blocks)

# %% [markdown]
# ## Operations and time
#
# In ONNX Runtime, on one thread, in turns.

# %%
example = torch.rand(1, 1, 16, 16)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
models = {"dense": dense, "narrow": narrow}
sessions = {
    name: onnxruntime.InferenceSession(export(module, f"{name}.onnx", example), options)
    for name, module in models.items()
}
times = {name: [] for name in models}
for _ in range(60):
    for name, session in sessions.items():
        start = time.perf_counter()
        session.run(None, {session.get_inputs()[0].name: example.numpy()})
        times[name].append(time.perf_counter() - start)
print("model       MACs  parameters  val_acc      ms")
for name, module in models.items():
    parameters = sum(p.numel() for p in module.parameters())
    middle = sorted(times[name])[30] * 1000
    print(f"{name:6} {count_macs(module, example).total:9,} {parameters:11,} {accuracies[name]:8.4f} {middle:7.3f}")

# %% [markdown]
# ## Load it without a Trainer
#
# The class builds the wide model; `load_compressed` removes the channels that the checkpoint does not have.

# %%
loaded = load_compressed(ResNet, "narrow.ckpt")
with torch.no_grad():
    print(torch.allclose(loaded.eval()(example), narrow.eval()(example)))
