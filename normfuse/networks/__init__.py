"""Networks: tensors in, distributions (or their means) out; they know neither cohorts nor images."""
from .mlp import MlpDecoder, MlpEncoder, mlp

__all__ = ["MlpDecoder", "MlpEncoder", "mlp"]
