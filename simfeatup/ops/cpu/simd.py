"""Vector registers in compiled loops.

LLVM vectorises a simple loop by itself, but keeps its sums in memory. With a vector as a value of its own, a loop
keeps a block of sums in registers while it runs over the terms, which is what fast matrix products do. A vector has
LANES numbers; LLVM cuts it into what the processor has (two registers of AVX2 or AVX-512, four of NEON). A multiply-add
takes four cycles and two begin in each, so a loop wants eight registers of sums: four vectors, or more. Arrays are
contiguous and positions count their numbers from the first; nothing checks that they lie inside.
"""

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 32 if binding.get_host_cpu_features().get('avx512f') else 16


class Vector(types.Type):
    """LANES floating-point numbers of one type."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        super().__init__(name=f'Vector({dtype})')


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector) -> None:
        element = ir.FloatType() if vector.dtype == types.float32 else ir.DoubleType()
        super().__init__(manager, vector, ir.VectorType(element, LANES))


@intrinsic
def zeros(typing_context, array):
    """A vector of zeros, of the type of an array."""
    vector = Vector(array.dtype)

    def generate(context, builder, signature, arguments):
        return ir.Constant(context.get_value_type(vector), None)

    return vector(array), generate


@intrinsic
def load(typing_context, array, position):
    """The vector that begins at a position of an array."""
    vector = Vector(array.dtype)

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature.args[0], arguments)
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return vector(array, types.intp), generate


@intrinsic
def number(typing_context, array, position):
    """The number at a position of an array; an index in brackets costs a test for negative ones."""

    def generate(context, builder, signature, arguments):
        return builder.load(_address(context, builder, signature.args[0], arguments))

    return array.dtype(array, types.intp), generate


@intrinsic
def filled(typing_context, array, value):
    """A vector of one number, of the type of an array."""
    vector = Vector(array.dtype)

    def generate(context, builder, signature, arguments):
        return _broadcast(builder, arguments[1], context.get_value_type(vector))

    return vector(array, array.dtype), generate


@intrinsic
def store(typing_context, array, position, vector):
    """Writes a vector to an array."""

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature.args[0], arguments)
        builder.store(arguments[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(array, types.intp, vector), generate


@intrinsic
def multiply_add(typing_context, total, factor, vector):
    """Total + factor * vector, the factor a number or a vector."""

    def generate(context, builder, signature, arguments):
        sums, multiplier, values = arguments
        if not isinstance(signature.args[1], Vector):
            multiplier = _broadcast(builder, multiplier, sums.type)
        product = builder.fmul(multiplier, values, flags=('contract', 'nsz'))
        return builder.fadd(sums, product, flags=('contract', 'nsz'))

    return total(total, factor if isinstance(factor, Vector) else total.dtype, total), generate


@intrinsic
def sum_lanes(typing_context, vector):
    """Sum of a vector's numbers."""

    def generate(context, builder, signature, arguments):
        element = arguments[0].type.element
        suffix = f'v{LANES}f{vector.dtype.bitwidth}'
        kind = ir.FunctionType(element, [element, arguments[0].type])
        function = cgutils.get_or_insert_function(builder.module, kind, f'llvm.vector.reduce.fadd.{suffix}')
        return builder.call(function, [ir.Constant(element, 0.0), arguments[0]], fastmath=('reassoc', 'nsz'))

    return vector.dtype(vector), generate


def _address(context, builder, array_type, arguments):
    array = context.make_array(array_type)(context, builder, arguments[0])
    return builder.gep(array.data, [arguments[1]])


def _pointer(context, builder, array_type, arguments):
    """Address of a position of an array, as that of a vector."""
    address = _address(context, builder, array_type, arguments)
    return builder.bitcast(address, context.get_value_type(Vector(array_type.dtype)).as_pointer())


def _broadcast(builder, number, vector_type):
    single = builder.insert_element(ir.Constant(vector_type, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
    return builder.shuffle_vector(single, ir.Constant(vector_type, ir.Undefined), mask)
