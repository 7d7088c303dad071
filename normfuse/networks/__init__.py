"""Networks: tensors in, distributions or their means out; they know no cohorts and no images."""
from .conv import ConvDecoder, ConvEncoder, Convolutional
from .images import BentDecoder, BentEncoder, Grid
from .mlp import MlpDecoder, MlpEncoder, TopDown, mlp
from .wide import PrincipalAxes, WideDecoder, WideEncoder

__all__ = ["BentDecoder", "BentEncoder", "ConvDecoder", "ConvEncoder", "Convolutional", "Grid",
           "MlpDecoder", "MlpEncoder", "PrincipalAxes", "TopDown", "WideDecoder", "WideEncoder",
           "mlp"]
