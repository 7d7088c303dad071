"""What every choice of a fusion has in common: it can be printed, compared and rebuilt."""
from __future__ import annotations

import inspect
from typing import Any, TypeVar

from ..cards import Shown

T = TypeVar("T")


class Choice(Shown):
    """An object that stands for a choice, rebuilt by ``type(choice)(**choice.options())``.

    Constructor arguments are kept as attributes of the same name and are JSON-ready values or
    choices themselves, so that a saved model can name its fusion without a pickle.

    Examples
    --------
    >>> from normfuse.fusion import Given
    >>> Given([2, 1]).options(), Given([2, 1])
    ({'values': [2.0, 1.0]}, Given(values=[2.0, 1.0]))
    """

    def options(self) -> dict[str, Any]:
        """Constructor arguments by name."""
        return {name: getattr(self, name) for name in _parameters(self)}

    def __repr__(self) -> str:
        parameters = _parameters(self)
        told = {name: value for name, value in self.options().items()
                if repr(value) != repr(parameters[name].default)}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in told.items())})"


def of_type(value: T, kind: type[Any]) -> T:
    """The value itself; refuses what is no object of this kind.

    Examples
    --------
    >>> from normfuse.fusion import Drop
    >>> of_type("prior", Drop)
    Traceback (most recent call last):
    TypeError: expected an object of a subclass of Drop, as in Drop(); got 'prior'
    """
    if not isinstance(value, kind):
        known = sorted(c.__name__ for c in _leaves(kind)) or [kind.__name__]
        raise TypeError(f"expected an object of a subclass of {kind.__name__}, as in "
                        f"{known[0]}(); got {value!r}"
                        + (f" (choose among {', '.join(known)})" if len(known) > 1 else ""))
    return value


def _leaves(kind: type[Any]) -> list[type[Any]]:
    return [c for child in kind.__subclasses__() for c in (_leaves(child) or [child])
            if c.__module__.startswith("normfuse.")]


def _parameters(choice: Choice) -> dict[str, inspect.Parameter]:
    """Those of the constructor; nn.Module's own takes anything and means nothing by it."""
    return {name: p for name, p in inspect.signature(type(choice)).parameters.items()
            if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
