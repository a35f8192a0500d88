"""Matrices of Numba kernels: the address of an array and the length of its rows.

Numba passes an array in seven numbers and counts references to it at each call; for rows of a few hundred channels
that costs as much as the work. A matrix is two numbers and owns nothing: who makes one keeps the array (`keep`), which
a function's caller does for its arguments. Indices are not negative and not checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.core import cgutils
from numba.core.extending import intrinsic, models, register_model


def emitted(function: Callable[..., Any]) -> Any:
    """A function of a kernel, given as its signature and a generator of its LLVM instructions."""
    return intrinsic(function)


class Matrix(types.Type):
    """Rows of numbers that lie one behind the other: where they begin, and how long they are."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        super().__init__(name=f"matrix({dtype})")


@register_model(Matrix)
class _MatrixModel(models.StructModel):
    def __init__(self, manager: Any, matrix: Matrix) -> None:
        super().__init__(manager, matrix, [("data", types.CPointer(matrix.dtype)), ("width", types.intp)])  # type: ignore[no-untyped-call]


@emitted
def matrix(typing: Any, array: Any) -> Any:
    """Of a C-contiguous array with one dimension (one row) or two."""
    if array.layout != "C" or array.ndim > 2:
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source = context.make_array(sig.args[0])(context, builder, args[0])
        return _matrix(context, builder, sig, source.data, builder.extract_value(source.shape, array.ndim - 1))

    return Matrix(array.dtype)(array), generate


@emitted
def keep(typing: Any, array: Any) -> Any:
    """Numba gives an array back behind its last use, and the use of its matrix is none: this is one."""
    return types.void(array), lambda context, builder, sig, args: context.get_dummy_value()


@emitted
def shaped(typing: Any, old: Any, width: Any) -> Any:
    """The same numbers in rows of another length."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _matrix(context, builder, sig, _struct(context, builder, sig, args).data, args[1])

    return old(old, types.intp), generate


@emitted
def at(typing: Any, old: Any, row: Any, column: Any) -> Any:
    """The matrix that begins there, with rows of the same length."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        width = _struct(context, builder, sig, args).width
        return _matrix(context, builder, sig, address(context, builder, sig, args), width)

    return old(old, types.intp, types.intp), generate


@emitted
def columns(typing: Any, of: Any) -> Any:
    """The length of a row."""
    return types.intp(of), lambda context, builder, sig, args: _struct(context, builder, sig, args).width


@emitted
def number(typing: Any, like: Any, value: Any) -> Any:
    """The value in a matrix's dtype."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.cast(builder, args[1], sig.args[1], sig.return_type)

    return like.dtype(like, value), generate


@emitted
def get(typing: Any, source: Any, row: Any, column: Any) -> Any:
    """source[row, column]."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(address(context, builder, sig, args))

    return source.dtype(source, types.intp, types.intp), generate


@emitted
def put(typing: Any, array: Any, row: Any, column: Any, value: Any) -> Any:
    """array[row, column] = value, of the array's dtype."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[3], address(context, builder, sig, args))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, array.dtype), generate


def address(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Of the element that the second and third argument are the row and column of, in the first."""
    source = _struct(context, builder, sig, args)
    return builder.gep(source.data, [builder.add(builder.mul(args[1], source.width), args[2])])


def _struct(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return cgutils.create_struct_proxy(sig.args[0])(context, builder, args[0])


def _matrix(context: Any, builder: Any, sig: Any, data: Any, width: Any) -> Any:
    made = cgutils.create_struct_proxy(sig.return_type)(context, builder)
    made.data, made.width = data, width
    return made._getvalue()
