"""The models of AlgebraNets: each over any algebra, with float or few-bit weights."""

from .char_gru import CharGRU
from .cifar import CifarResNet
from .imagenet import MobileNetV1, ResNet
from .transformer_xl import TransformerXL

__all__ = ["CharGRU", "CifarResNet", "MobileNetV1", "ResNet", "TransformerXL"]
