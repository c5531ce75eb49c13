# ---
# jupyter:
#   jupytext: {formats: 'py:percent'}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A transformer in int8
#
# A BERT learns to tell the docstrings of three packages apart, and is then fine-tuned on integer grids. The texts
# come from installed packages, so nothing is downloaded; `from_pretrained` would take the place of the small
# configuration.
# `pip install 'lightning-compress[onnx]' transformers scikit-learn`

# %%
import ast
import warnings
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split
from transformers import BertConfig, BertForSequenceClassification

from lightning_compress import QATCallback, export
from lightning_compress.metrics import Agreement

warnings.filterwarnings("ignore", ".*does not have many workers.*")
EPOCHS = 4
PACKAGES, COUNT, LENGTH, WORDS = ("numpy", "scipy", "sklearn"), 300, 32, 2000


# %% [markdown]
# ## Texts


# %%
def docstrings(package):
    """The first docstrings of functions and classes of a package, as lists of words."""
    found = []
    for path in sorted(Path(find_spec(package).origin).parent.rglob("*.py")):
        if "test" in str(path):
            continue
        for node in ast.walk(ast.parse(path.read_text(errors="ignore"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
                found.append([word for word in text.lower().split() if word.isalpha()][:LENGTH])
                if len(found[-1]) < 8:
                    found.pop()
        if len(found) >= COUNT:
            break
    return found[:COUNT]


texts = [(words, label) for label, package in enumerate(PACKAGES) for words in docstrings(package)]
common = Counter(word for words, _ in texts for word in words).most_common(WORDS - 2)
numbers = {word: number for number, (word, _) in enumerate(common, start=2)}
tokens = torch.zeros(len(texts), LENGTH, dtype=torch.long)  # 0 is padding, 1 an unknown word
for row, (words, _) in enumerate(texts):
    tokens[row, : len(words)] = torch.tensor([numbers.get(word, 1) for word in words])
labels = torch.tensor([label for _, label in texts])

L.seed_everything(0)
train, val = random_split(TensorDataset(tokens, labels), [0.8, 0.2])
loaders = DataLoader(train, 32, shuffle=True), DataLoader(val, 256)


# %%
class Texts(L.LightningModule):
    def __init__(self):
        super().__init__()
        sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
        self.model = BertForSequenceClassification(BertConfig(vocab_size=WORDS, num_labels=len(PACKAGES), **sizes))

    def forward(self, input_ids):
        return self.model(input_ids=input_ids, attention_mask=(input_ids > 0).long()).logits

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-3)


def fit(module, *callbacks):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(max_epochs=EPOCHS, accelerator="cpu", callbacks=list(callbacks), **quiet)
    trainer.fit(module, *loaders)
    return trainer.callback_metrics["val_acc"].item()


# %% [markdown]
# ## Float, then integers
#
# Linear layers and embeddings are quantized, normalization stays float; the plan that is printed names each.

# %%
module = Texts()
before = fit(module)
inputs = val[:][0]
with torch.no_grad():
    outputs = module.eval()(inputs)
size = export(module, "float.lcz").stat().st_size
after = fit(module, QATCallback(8))

# %%
agreement = Agreement()
with torch.no_grad():
    agreement.update(module.eval()(inputs), outputs)
small = export(module, "int8.lcz").stat().st_size
print(f"float: {size:,} bytes, accuracy {before:.4f}")
print(f"int8:  {small:,} bytes, accuracy {after:.4f}, the same class in {agreement.compute():.1%} of the texts")

# %% [markdown]
# ## The file for ONNX Runtime
#
# It is run and compared with the module before it takes its name.

# %%
path = export(module, "int8.onnx", inputs[:2])
print(f"{path.stat().st_size:,} bytes")
