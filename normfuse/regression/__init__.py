"""What age, sex and site alone predict of every feature: location, scale and shape."""
from .columns import UNSEEN, EffectColumns
from .effects import Effects
from .fitting import fit_effects
from .pooled import PooledRegression, Residuals
from .sinh_arcsinh import SinhArcsinh

__all__ = ["UNSEEN", "EffectColumns", "Effects", "PooledRegression", "Residuals", "SinhArcsinh",
           "fit_effects"]
