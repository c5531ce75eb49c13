"""Loading: a compressed module, with all that a checkpoint or an archive carries beside the state dict."""

from lightning_compress.loading.modules import load_compressed

__all__ = ["load_compressed"]
