"""Fashion-MNIST classified by LeNet-300-100, LeNet-5 and small ResNets."""

from examples.fashion_mnist.data import FashionData
from examples.fashion_mnist.models import LeNet5, LeNet300, ResNet
from examples.fashion_mnist.module import FashionClassifier

__all__ = ["FashionClassifier", "FashionData", "LeNet5", "LeNet300", "ResNet"]
