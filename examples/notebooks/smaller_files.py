# ---
# jupyter:
#   jupytext: {formats: 'py:percent'}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Smaller files
#
# One trained classifier, compressed in five ways; each file is written, and its bytes stand against the accuracy.
# `pip install lightning-compress scikit-learn matplotlib`

# %%
import copy
import warnings

import lightning as L
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightning_compress import CompressionBudget, PruningCallback, QATCallback, WeightSharingCallback, export
from lightning_compress.schedules import Cubic, Linear

warnings.filterwarnings("ignore", ".*does not have many workers.*")
EPOCHS = 10


# %%
class Classifier(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 2e-3)


L.seed_everything(0)
images, labels = load_digits(return_X_y=True)
digits = TensorDataset(torch.tensor(images / 16.0, dtype=torch.float32), torch.tensor(labels))
train, val = random_split(digits, [1437, 360])
loaders = DataLoader(train, 32, shuffle=True), DataLoader(val, 360)


def fit(module, *callbacks):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(max_epochs=EPOCHS, accelerator="cpu", callbacks=list(callbacks), **quiet)
    trainer.fit(module, *loaders)
    size = export(module, "model.lcz").stat().st_size
    return size, trainer.callback_metrics["val_acc"].item()


dense = Classifier()
found = {"dense": fit(dense)}

# %% [markdown]
# ## Zeros, few values, integers
#
# All start from the trained model. Sharing begins when pruning has ended.

# %%
early, later = Cubic(begin=0.0, until=0.5), Cubic(begin=0.5, until=0.7)
ways = {
    "90 % zeros": [PruningCallback(0.9, schedule=early)],
    "16 values": [WeightSharingCallback(16, schedule=early)],
    "8-bit integers": [QATCallback(8, activation_bits=None)],
    "90 % zeros, 16 values": [PruningCallback(0.9, schedule=early), WeightSharingCallback(16, schedule=later)],
    "a budget of 4,000 bytes": [CompressionBudget(bytes=4_000, schedule=Linear(0.0, 0.6))],
}
for name, callbacks in ways.items():
    found[name] = fit(copy.deepcopy(dense), *callbacks)

# %%
print(f"{'way':24}  bytes  smaller  val_acc")
for name, (size, accuracy) in found.items():
    print(f"{name:24} {size:6,} {found['dense'][0] / size:7.1f}x {accuracy:8.4f}")

# %%
for name, (size, accuracy) in found.items():
    plt.scatter(size, accuracy)
    plt.annotate(name, (size, accuracy), xytext=(4, 4), textcoords="offset points")
plt.xscale("log")
plt.xlabel("bytes of the file")
plt.ylabel("accuracy")
plt.show()
