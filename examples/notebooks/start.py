# ---
# jupyter:
#   jupytext: {formats: 'py:percent'}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # The first compressed model
#
# A classifier of digits is trained, 90 % of its weights become zero and the others integers, and the file is
# checked.
# `pip install lightning-compress scikit-learn matplotlib`

# %%
import warnings

import lightning as L
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightning_compress import CompressionReport, PruningCallback, QATCallback, load_compressed, plan
from lightning_compress.schedules import Cubic

warnings.filterwarnings("ignore", ".*does not have many workers.*")
EPOCHS = 10


# %% [markdown]
# ## An ordinary module


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


def trainer(*callbacks):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return L.Trainer(max_epochs=EPOCHS, accelerator="cpu", callbacks=list(callbacks), **quiet)


module = Classifier()
trainer().fit(module, *loaders)

# %% [markdown]
# ## A prediction, before any training
#
# `plan` shows the layers that the callbacks would compress, and the bytes of the file. The last expression of a
# cell is shown as a table.

# %%
plan(module, [PruningCallback(0.9), QATCallback(8)], val[0][0][None])

# %% [markdown]
# ## Compression while it trains
#
# The schedule begins at once, since the model is trained. The report is printed, and written to the folder
# `report`.

# %%
pruning = PruningCallback(0.9, schedule=Cubic(begin=0.0, until=0.5))
report = CompressionReport("report")
trainer(pruning, QATCallback(8), report).fit(module, *loaders)

# %%
report.result  # noqa: B018

# %% [markdown]
# ## The file
#
# The archive holds every bit of the model that was validated.

# %%
loaded = load_compressed(Classifier, "report/model.lcz")
inputs, targets = val[:]
with torch.no_grad():
    accuracy = (loaded(inputs).argmax(1) == targets).float().mean().item()
print(f"accuracy of the file: {accuracy:.4f}")

# %% [markdown]
# ## The weights that are left
#
# For each pixel, the weights of the first layer that are left. Pixels at the left and right edges are never dark,
# and their weights are gone.

# %%
kept = (module.net[0].weight.detach() != 0).float().sum(0).view(8, 8)
plt.imshow(kept, cmap="viridis")
plt.colorbar(label="weights that are left")
plt.title("Pixels that the first layer still reads")
plt.show()
