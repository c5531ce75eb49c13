# ---
# jupyter:
#   jupytext: {formats: 'py:percent'}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Int8 for CPUs
#
# A network of convolutions is fine-tuned with 8-bit activations and 7-bit weights, exported, and timed in ONNX
# Runtime beside its float twin. 7 bits are exact on every x86 CPU; with VNNI instructions take 8.
# `pip install 'lightning-compress[onnx]' scikit-learn`

# %%
import copy
import time
import warnings
from pathlib import Path

import lightning as L
import onnxruntime
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightning_compress import QATCallback, export

warnings.filterwarnings("ignore", ".*does not have many workers.*")
EPOCHS = 6


# %%
def block(inputs, outputs, stride=1):
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


class Classifier(L.LightningModule):
    def __init__(self, width=32):
        super().__init__()
        layers = [*block(1, width), *block(width, 2 * width, 2), *block(2 * width, 2 * width)]
        self.net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10))

    def forward(self, images):
        return self.net(images)

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
    return trainer.callback_metrics["val_acc"].item()


dense = Classifier()
quantized = copy.deepcopy(dense)
accuracies = {"float": fit(dense)}
quantized.load_state_dict(dense.state_dict())
accuracies["int8"] = fit(quantized, QATCallback(weight_bits=7, activation_bits=8))

# %% [markdown]
# ## Files, and their time on one thread
#
# Both files run in turns, so that a busy machine slows both alike.

# %%
example = torch.rand(1, 1, 16, 16)
paths = {"float": export(dense, "float.onnx", example), "int8": export(quantized, "int8.onnx", example)}
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
sessions = {name: onnxruntime.InferenceSession(path, options) for name, path in paths.items()}
batch = val[:64][0].numpy()


def seconds(session):
    name = session.get_inputs()[0].name
    start = time.perf_counter()
    session.run(None, {name: batch})
    return time.perf_counter() - start


times = {name: [] for name in sessions}
for _ in range(40):
    for name, session in sessions.items():
        times[name].append(seconds(session))
print("model   val_acc    bytes   ms for 64 images")
for name, path in paths.items():
    middle = sorted(times[name])[20] * 1000
    print(f"{name:6} {accuracies[name]:8.4f} {Path(path).stat().st_size:8,} {middle:10.2f}")

# %% [markdown]
# ## Does the file compute what was validated?
#
# `export` has checked it; here is the same by hand.

# %%
inputs = val[:][0]
(scores,) = sessions["int8"].run(None, {sessions["int8"].get_inputs()[0].name: inputs.numpy()})
with torch.no_grad():
    same = (torch.tensor(scores).argmax(1) == quantized.eval()(inputs).argmax(1)).float().mean().item()
print(f"same class as in PyTorch: {same:.2%}")
