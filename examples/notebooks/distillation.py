# ---
# jupyter:
#   jupytext: {formats: 'py:percent'}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Distillation
#
# A large network was trained on many labels. A small one has to replace it, and only 200 images still have their
# labels; the other images are there without. The small network learns from the large one's answers, and is
# compared with its twin that learned from the 200 labels.
# `pip install lightning-compress scikit-learn`

# %%
import copy
import warnings

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset, random_split

from lightning_compress import DistillationCallback, PruningCallback
from lightning_compress.distillation import losses
from lightning_compress.metrics import Agreement

warnings.filterwarnings("ignore", ".*does not have many workers.*")
EPOCHS = 10


# %%
class Classifier(L.LightningModule):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
        )

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
digits = TensorDataset(torch.tensor(images / 16.0, dtype=torch.float32), torch.tensor(labels))
train, val = random_split(digits, [1437, 360])


def fit(module, *callbacks, images=train, epochs=EPOCHS):
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(images, 32, shuffle=True), DataLoader(val, 360))
    return trainer.callback_metrics["val_acc"].item()


teacher = Classifier(width=256)
print(f"teacher: {fit(teacher):.4f}, {sum(p.numel() for p in teacher.parameters()):,} parameters")

# %% [markdown]
# ## A student without labels of its own
#
# Its own loss is zero, so `alpha=1`: the teacher alone teaches. Scores say more than a label: which other digit
# an image is like. Both students begin with the same weights and take about as many steps.


# %%
class Unlabeled(Classifier):
    def training_step(self, batch, batch_idx):
        return self(batch[0]).new_zeros(())


alone, taught = Classifier(width=32), Unlabeled(width=32)
taught.load_state_dict(alone.state_dict())
soft = DistillationCallback(teacher, losses=[losses.SoftTargets(temperature=2.0)], alpha=1.0)
accuracies = {
    "200 labels": fit(alone, images=Subset(train, range(200)), epochs=6 * EPOCHS),
    "the teacher": fit(taught, soft),
}

# %%
inputs = val[:][0]
print(f"{sum(p.numel() for p in alone.parameters()):,} parameters")
for name, student in (("200 labels", alone), ("the teacher", taught)):
    agreement = Agreement()
    with torch.no_grad():
        agreement.update(student(inputs), teacher(inputs))
    print(
        f"by {name:12} val_acc {accuracies[name]:.4f}, the teacher's class for {agreement.compute():.1%} of the images"
    )

# %% [markdown]
# ## A model that is pruned and taught by its dense copy
#
# A teacher is frozen; its copy is to be trained.

# %%
pruned = copy.deepcopy(teacher).requires_grad_(True)
kept = fit(pruned, PruningCallback(0.95), DistillationCallback(teacher, alpha=0.5))
print(f"95 % zeros: {kept:.4f}")
