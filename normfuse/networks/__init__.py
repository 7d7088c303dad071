"""Networks: tensors in, distributions or their means out; they know no cohorts and no images."""
from .mlp import MlpDecoder, MlpEncoder, mlp

__all__ = ["MlpDecoder", "MlpEncoder", "mlp"]
