"""Sixteen float32 values as one number in numba kernels: a type with arithmetic, comparisons and sums.

Left to itself, LLVM turns a loop over pixels into vector code only where it can prove that nothing overlaps, and keeps
sums in memory. Here each operation becomes one instruction on `<16 x float>`; LLVM splits it where the processor's
registers are narrower. A kernel with such values computes the same bits however it was compiled: products and sums are
joined only where `fma` says so, and `fold` fixes the order of sums.

Operators take lanes on either side and float32 numbers on the other; comparisons give a `Mask` of sixteen truths.
"""

import operator
from typing import Any

from numba import extending
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.typing import templates
from numba.core.typing.templates import AbstractTemplate, signature

# The llvmlite that numba itself builds with.
ir: Any = cgutils.ir  # pyright: ignore[reportPrivateImportUsage]
# Decorators whose results are no plain functions; type checkers must not look through them.
intrinsic: Any = extending.intrinsic
infer_global: Any = templates.infer_global
lower_builtin: Any = extending.lower_builtin
register_model: Any = extending.register_model

WIDTH = 16
"""Lanes in one value."""

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, WIDTH)
_TRUTHS = ir.VectorType(ir.IntType(1), WIDTH)
_INDEX = ir.IntType(32)


class Lanes(types.Type):
    """The numba type of sixteen float32 values."""

    def __init__(self) -> None:
        super().__init__(name="float32x16")


class Mask(types.Type):
    """The numba type of sixteen truths."""

    def __init__(self) -> None:
        super().__init__(name="bool_x16")


lanes, mask = Lanes(), Mask()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: types.Type) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: types.Type) -> None:
        super().__init__(dmm, fe_type, _TRUTHS)


def _constant(indices: list[int]) -> Any:
    return ir.Constant(ir.VectorType(_INDEX, len(indices)), [ir.Constant(_INDEX, index) for index in indices])


def _widened(builder: Any, value: Any, kind: types.Type) -> Any:
    """The value itself, or a float in all lanes."""
    if isinstance(kind, Lanes):
        return value
    first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(_INDEX, 0))
    return builder.shuffle_vector(first, ir.Constant(_VECTOR, ir.Undefined), _constant([0] * WIDTH))


def _call(builder: Any, name: str, arguments: list[Any], result: Any = _VECTOR) -> Any:
    """Call an intrinsic of LLVM."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _is_number(kind: Any) -> bool:
    return isinstance(kind, Lanes) or kind == types.float32


def _define_operator(function: Any, result: types.Type, build: Any) -> None:
    """Let `function` work on lanes and float32 numbers in any order, by what `build` emits."""

    class Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            both = len(args) == 2 and not kws and all(_is_number(kind) for kind in args)
            return signature(result, *args) if both and lanes in args else None

    infer_global(function)(Template)

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return build(builder, *(_widened(builder, value, kind) for value, kind in zip(args, sig.args, strict=True)))

    for kinds in ((lanes, lanes), (lanes, types.float32), (types.float32, lanes)):
        lower_builtin(function, *kinds)(lower)


_define_operator(operator.add, lanes, lambda builder, a, b: builder.fadd(a, b))
_define_operator(operator.sub, lanes, lambda builder, a, b: builder.fsub(a, b))
_define_operator(operator.mul, lanes, lambda builder, a, b: builder.fmul(a, b))
_define_operator(operator.truediv, lanes, lambda builder, a, b: builder.fdiv(a, b))
for _function, _symbol in ((operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">=")):
    _define_operator(
        _function, mask, lambda builder, a, b, symbol=_symbol: builder.fcmp_ordered(symbol, a, b)
    )  # NaN is never in order.


@infer_global(operator.and_)
class _And(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        return signature(mask, mask, mask) if args == (mask, mask) else None


@lower_builtin(operator.and_, mask, mask)
def _lower_and(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.and_(*args)


def _elementwise(name: str, arity: int) -> Any:
    """An intrinsic of LLVM that works lane by lane, as a function of lanes and float32 numbers."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(
            builder,
            f"llvm.{name}.v{WIDTH}f32",
            [_widened(builder, value, kind) for value, kind in zip(args, sig.args, strict=True)],
        )

    def typed(*kinds: Any) -> Any:
        if all(_is_number(kind) for kind in kinds) and lanes in kinds:
            return lanes(*kinds), emit
        return None

    if arity == 1:
        return intrinsic(lambda typingctx, a: typed(a))
    return intrinsic(lambda typingctx, a, b, c: typed(a, b, c))


fma = _elementwise("fmuladd", 3)
"""fma(a, b, c) = a * b + c, in one instruction where the processor has one."""
magnitude = _elementwise("fabs", 1)
"""The absolute value of every lane."""


@intrinsic
def with_sign(typingctx: Any, size: Any, sign: Any) -> Any:
    """The magnitudes of one value with the signs of another."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, f"llvm.copysign.v{WIDTH}f32", list(args))

    return (lanes(size, sign), emit) if size == sign == lanes else None


@intrinsic
def least(typingctx: Any, a: Any, b: Any) -> Any:
    """The smaller of two values, lane by lane; `b` where `a` is not a number."""
    return _chosen_by(a, b, "<")


@intrinsic
def most(typingctx: Any, a: Any, b: Any) -> Any:
    """The larger of two values, lane by lane; `b` where `a` is not a number."""
    return _chosen_by(a, b, ">")


def _chosen_by(a: Any, b: Any, symbol: str) -> Any:
    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        # One instruction on x86, unlike LLVM's minimum, which looks at NaN on both sides.
        first, second = (_widened(builder, value, kind) for value, kind in zip(args, sig.args, strict=True))
        return builder.select(builder.fcmp_ordered(symbol, first, second), first, second)

    return (lanes(a, b), emit) if _is_number(a) and _is_number(b) and lanes in (a, b) else None


@intrinsic
def select(typingctx: Any, where: Any, a: Any, b: Any) -> Any:
    """Lane by lane `a` where the mask is true, else `b`."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        first, second = (_widened(builder, args[k], sig.args[k]) for k in (1, 2))
        return builder.select(args[0], first, second)

    return (lanes(where, a, b), emit) if where == mask and _is_number(a) and _is_number(b) else None


@intrinsic
def everywhere(typingctx: Any, value: Any) -> Any:
    """A float32 number in all lanes."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _widened(builder, args[0], sig.args[0])

    return (lanes(value), emit) if value == types.float32 else None


@intrinsic
def bits(typingctx: Any, where: Any) -> Any:
    """A mask as an unsigned integer: lane k is bit k."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.zext(builder.bitcast(args[0], ir.IntType(WIDTH)), ir.IntType(64))

    return (types.uint64(where), emit) if where == mask else None


@intrinsic
def lowest_bit(typingctx: Any, value: Any) -> Any:
    """The position of the lowest set bit of a number that is not zero."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, "llvm.cttz.i64", [args[0], ir.Constant(ir.IntType(1), 1)], ir.IntType(64))

    return (types.uint64(value), emit) if value == types.uint64 else None


@intrinsic
def address(typingctx: Any, array: Any) -> Any:
    """Where the first element of an array lies in memory."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.ptrtoint(context.make_array(sig.args[0])(context, builder, value=args[0]).data, ir.IntType(64))

    return (types.uint64(array), emit) if isinstance(array, types.Array) else None


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    data = context.make_array(array_type)(context, builder, value=array).data
    return builder.bitcast(builder.gep(data, [offset]), _VECTOR.as_pointer())


def _is_flat(array: Any, offset: Any) -> bool:
    flat = isinstance(array, types.Array) and array.dtype == types.float32 and array.layout == "C"
    return flat and isinstance(offset, types.Integer)


@intrinsic
def load(typingctx: Any, array: Any, offset: Any) -> Any:
    """Sixteen values of a contiguous float32 array, from the flat index `offset` on."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_pointer(context, builder, sig.args[0], *args), align=4)

    return (lanes(array, offset), emit) if _is_flat(array, offset) else None


@intrinsic
def store(typingctx: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write sixteen values to a contiguous float32 array, from the flat index `offset` on."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], _pointer(context, builder, sig.args[0], *args[:2]), align=4)
        return context.get_dummy_value()

    return (types.none(array, offset, value), emit) if _is_flat(array, offset) and value == lanes else None


def _make_fold(parts: int) -> Any:
    """One round of summing within several values at once; see `fold`."""
    half = WIDTH // parts // 2
    both = range(2 * WIDTH)
    low = [index for index in both if index % (2 * half) < half]
    high = [index for index in both if index % (2 * half) >= half]

    @intrinsic
    def fold_once(typingctx: Any, a: Any, b: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            first, second = args
            return builder.fadd(
                builder.shuffle_vector(first, second, _constant(low)),
                builder.shuffle_vector(first, second, _constant(high)),
            )

        return (lanes(a, b), emit) if a == b == lanes else None

    return fold_once


fold_16, fold_8, fold_4, fold_2 = (_make_fold(parts) for parts in (1, 2, 4, 8))
"""fold_16(a, b) leaves eight partial sums of `a`, then eight of `b`; fold_8 takes two such results to four partial sums
of each of four values, and so on; after fold_2, lane k is the whole sum of the k-th of sixteen values."""


@intrinsic
def total_of(typingctx: Any, value: Any) -> Any:
    """The sum of sixteen values, halves with halves: always in the same order."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value, width = args[0], WIDTH
        while width > 1:
            width //= 2
            low, high = _constant(list(range(width))), _constant(list(range(width, 2 * width)))
            value = builder.fadd(builder.shuffle_vector(value, value, low), builder.shuffle_vector(value, value, high))
        return builder.extract_element(value, ir.Constant(_INDEX, 0))

    return (types.float32(value), emit) if value == lanes else None
