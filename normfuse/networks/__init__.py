"""Networks: tensors in, distributions or their means out; they know no cohorts and no images."""
from .mlp import MlpDecoder, MlpEncoder, TopDown, mlp
from .wide import PrincipalAxes, WideDecoder, WideEncoder

__all__ = ["MlpDecoder", "MlpEncoder", "PrincipalAxes", "TopDown", "WideDecoder", "WideEncoder",
           "mlp"]
