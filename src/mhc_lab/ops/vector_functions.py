"""Functions of the vectors of a Numba kernel: sums over lanes, the largest lane, e^x."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from mhc_lab.ops.matrices import emitted
from mhc_lab.ops.vectors import FUSED, Vector, llvm_types

_EXACT = ("arcp",)  # of no consequence here: an operation without flags is given those of the kernel, as `reassoc`


@emitted
def total(typing: Any, value: Any) -> Any:
    """The sum over the lanes."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        scalar, _ = llvm_types(context, value)
        return _reduce(context, builder, "fadd", value, [ir.Constant(scalar, -0.0), args[0]])

    return value.scalar(value), generate


@emitted
def totals(typing: Any, one: Any, two: Any, three: Any, four: Any) -> Any:
    """The sums over the lanes of four vectors."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        found = _folded(builder, args, one.lanes) if one.lanes >= 4 else [_pair(builder, x) for x in args]
        return context.make_tuple(builder, sig.return_type, found)

    return types.UniTuple(one.scalar, 4)(one, two, three, four), generate


@emitted
def peak(typing: Any, value: Any) -> Any:
    """The largest lane that is no NaN."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _reduce(context, builder, "fmax", value, [args[0]])

    return value.scalar(value), generate


@emitted
def exp(typing: Any, value: Any) -> Any:
    """e^x to a unit in the last place, 0 for results that are not normal numbers; inf and NaN are kept."""
    bits, mantissa, degree = (32, 23, 7) if value.scalar == types.float32 else (64, 52, 13)
    bias = (1 << (bits - mantissa - 2)) - 1
    kind = np.float32 if bits == 32 else np.float64
    ln2_high = _high(kind)
    ln2_low = float(np.longdouble(np.log(np.longdouble(2))) - np.longdouble(ln2_high))

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _, register = llvm_types(context, value)
        integer = ir.VectorType(ir.IntType(bits), value.lanes)

        def constant(number: float) -> Any:
            return ir.Constant(register, [float(kind(number))] * value.lanes)

        def whole(number: int) -> Any:
            return ir.Constant(integer, [number] * value.lanes)

        x = args[0]
        low, high = constant((1 - bias) * np.log(2)), constant((bias + 1) * np.log(2) + 0.01)
        x = builder.select(builder.fcmp_ordered("<", x, low), low, x)
        x = builder.select(builder.fcmp_ordered(">", x, high), high, x)
        # x = k ln 2 + r; adding 1.5 2^mantissa rounds to the nearest whole number, which ends in its low bits.
        shift = constant(1.5 * 2.0**mantissa)
        scaled = builder.fmul(x, constant(1 / np.log(2)), flags=_EXACT)
        shifted = builder.fadd(scaled, shift, flags=_EXACT)
        k = builder.fsub(shifted, shift, flags=_EXACT)
        r = builder.fsub(x, builder.fmul(k, constant(ln2_high), flags=FUSED), flags=FUSED)
        r = builder.fsub(r, builder.fmul(k, constant(ln2_low), flags=FUSED), flags=FUSED)
        found = constant(1 / float(np.prod(np.arange(1.0, degree + 1))))
        for power in range(degree - 1, -1, -1):
            coefficient = constant(1 / float(np.prod(np.arange(1.0, power + 1))))
            found = builder.fadd(builder.fmul(found, r, flags=FUSED), coefficient, flags=FUSED)
        # 2^k in two factors, as 2^(bias + 1) is no number though a smaller mantissa times it may be.
        exponent = builder.shl(builder.add(builder.bitcast(shifted, integer), whole(bias - 1)), whole(mantissa))
        scaled = builder.fmul(found, builder.bitcast(exponent, register), flags=_EXACT)
        return builder.fadd(scaled, scaled, flags=_EXACT)

    return value(value), generate


def _high(kind: Any) -> float:
    """ln 2 with so few bits that its product with any exponent is exact."""
    keep = 2.0**12 if kind is np.float32 else 2.0**32
    return float(np.floor(np.log(2) * keep) / keep)


def _reduce(context: Any, builder: Any, name: str, vector: Vector, args: list[Any]) -> Any:
    full = f"llvm.vector.reduce.{name}.v{vector.lanes}f{vector.scalar.bitwidth}"
    kind = ir.FunctionType(context.get_value_type(vector.scalar), [x.type for x in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, full), args, fastmath=("reassoc",))


def _folded(builder: Any, vectors: Any, count: int) -> list[Any]:
    """Neighbouring lanes of two vectors added, [a b], until four vectors are one, and on until four lanes are left."""
    vectors = list(vectors)
    while len(vectors) > 1:
        vectors = [_pairs(builder, a, b, count) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    for _ in range((count // 4).bit_length() - 1):
        vectors = [_pairs(builder, vectors[0], vectors[0], count)]
    return [builder.extract_element(vectors[0], ir.Constant(ir.IntType(32), k)) for k in range(4)]


def _pairs(builder: Any, a: Any, b: Any, count: int) -> Any:
    index = ir.VectorType(ir.IntType(32), count)
    even = builder.shuffle_vector(a, b, ir.Constant(index, list(range(0, 2 * count, 2))))
    odd = builder.shuffle_vector(a, b, ir.Constant(index, list(range(1, 2 * count, 2))))
    return builder.fadd(even, odd, flags=FUSED)


def _pair(builder: Any, vector: Any) -> Any:
    """The sum of two lanes."""
    a, b = (builder.extract_element(vector, ir.Constant(ir.IntType(32), k)) for k in range(2))
    return builder.fadd(a, b, flags=FUSED)
