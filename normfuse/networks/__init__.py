"""Networks: tensors in, distributions or their means out; they know no cohorts and no images."""
from .mlp import MlpDecoder, MlpEncoder, TopDown, mlp

__all__ = ["MlpDecoder", "MlpEncoder", "TopDown", "mlp"]
