"""Vectors of a processor's registers in Numba kernels: `load`, arithmetic, `store`.

LLVM's own vectoriser guards each loop against arrays that overlap and compiles it twice; for short rows the guard
costs as much as the loop. A kernel that says itself what is a vector needs neither. `load` and `store` take a row and
a column of a `Matrix`, and a count of lanes where there are fewer left than a vector has (None: all of them; the
others load as 0). `a * b + c` is one operation where there is one.
"""

from __future__ import annotations

import operator
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.extending import lower_builtin, models, register_model
from numba.core.typing.templates import AbstractTemplate, infer_global, signature

from mhc_lab.ops.matrices import address, emitted


def _bytes() -> int:
    features = llvmlite.binding.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") else 16


REGISTER = _bytes()
FUSED = ("contract",)


class Vector(types.Type):
    """A register of fp32 or fp64 lanes."""

    def __init__(self, scalar: types.Float) -> None:
        self.scalar = scalar
        self.lanes = REGISTER // (scalar.bitwidth // 8)
        super().__init__(name=f"vector({scalar}, {self.lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, ir.VectorType(manager.lookup(vector.scalar).get_value_type(), vector.lanes))  # type: ignore[no-untyped-call]


def lanes_of(dtype: Any) -> int:
    """Lanes of a vector of a NumPy dtype."""
    return REGISTER // int(np.dtype(dtype).itemsize)


@emitted
def lanes(typing: Any, array: Any) -> Any:
    """How many lanes a vector of the array's dtype has."""
    count = Vector(array.dtype).lanes
    return types.intp(array), lambda context, builder, sig, args: context.get_constant(types.intp, count)


@emitted
def load(typing: Any, array: Any, row: Any, column: Any, count: Any) -> Any:
    """array[row, column : column + lanes]."""
    vector = Vector(array.dtype)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        scalar, register = llvm_types(context, vector)
        at = address(context, builder, sig, args)
        if sig.args[3] == types.none:
            return builder.load(builder.bitcast(at, register.as_pointer()), align=scalar.width_in_bytes)
        buffer = cgutils.alloca_once_value(builder, ir.Constant(register, None))
        builder.store(ir.Constant(register, None), buffer)
        _copy(builder, at, builder.bitcast(buffer, at.type), args[3])
        return builder.load(buffer)

    return vector(array, types.intp, types.intp, _count(count)), generate


@emitted
def store(typing: Any, array: Any, row: Any, column: Any, count: Any, value: Any) -> Any:
    """array[row, column : column + lanes] = value."""
    if value != Vector(array.dtype):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        scalar, register = llvm_types(context, value)
        at = address(context, builder, sig, args)
        if sig.args[3] == types.none:
            builder.store(args[4], builder.bitcast(at, register.as_pointer()), align=scalar.width_in_bytes)
        else:
            buffer = cgutils.alloca_once_value(builder, args[4])
            builder.store(args[4], buffer)
            _copy(builder, builder.bitcast(buffer, at.type), at, args[3])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, _count(count), value), generate


@emitted
def splat(typing: Any, value: Any) -> Any:
    """A vector with the same number in all lanes."""
    vector = Vector(value)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _splat(builder, args[0], vector.lanes)

    return vector(value), generate


@emitted
def spread(typing: Any, array: Any, row: Any, column: Any) -> Any:
    """A vector with array[row, column] in all lanes."""
    vector = Vector(array.dtype)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _splat(builder, builder.load(address(context, builder, sig, args)), vector.lanes)

    return vector(array, types.intp, types.intp), generate


@emitted
def largest(typing: Any, one: Any, other: Any) -> Any:
    """The larger in each lane; `one` where a lane of either is NaN."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", *args), args[1], args[0])

    return one(one, other), generate


def _arithmetic(function: Any, name: str) -> None:
    @infer_global(function)
    class Template(AbstractTemplate):
        def generic(self, args: Any, keywords: Any) -> Any:
            assert not keywords
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                return signature(args[0], *args)
            return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, name)(*args, flags=FUSED)

    lower_builtin(function, Vector, Vector)(generate)


for _function, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _arithmetic(_function, _name)
    _arithmetic(getattr(operator, f"i{_function.__name__}"), _name)


def _count(count: Any) -> Any:
    return types.none if isinstance(count, types.NoneType) else types.intp


def llvm_types(context: Any, vector: Vector) -> tuple[Any, Any]:
    scalar = context.get_value_type(vector.scalar)
    scalar.width_in_bytes = vector.scalar.bitwidth // 8
    return scalar, context.get_value_type(vector)


def _splat(builder: Any, scalar: Any, count: int) -> Any:
    empty = ir.Constant(ir.VectorType(scalar.type, count), ir.Undefined)
    first = builder.insert_element(empty, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count))


def _copy(builder: Any, source: Any, target: Any, count: Any) -> None:
    with cgutils.for_range(builder, count) as loop:
        builder.store(builder.load(builder.gep(source, [loop.index])), builder.gep(target, [loop.index]))
