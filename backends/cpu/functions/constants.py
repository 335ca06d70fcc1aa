"""Constants of the reductions as sums of rounded parts, by kind; the first part is the nearest number.

Decimal digits: OEIS A002162 (ln 2), A007525 (log2 e), A002285 (log10 e), A007524 (log10 2), A000796 (pi).
"""

from __future__ import annotations

import struct
from decimal import Context, Decimal, Inexact, localcontext

from tridsl.backends.cpu.functions.arithmetic import Kind


def bits_of(value: float, kind: Kind) -> int:
    """The bit pattern of `value` rounded to `kind`."""
    code = {"f32": ("<f", "<I"), "f64": ("<d", "<Q")}[kind]
    return int(struct.unpack(code[1], struct.pack(code[0], value))[0])


_EXACT = Context(prec=400, traps=[Inexact])
"""What a sum or a product of constants and of numbers is, to the last digit. (`fractions` would be another millisecond of a first compilation.)"""


def rounded(value: Decimal, kind: Kind) -> float:
    """`value` to the nearest number of `kind` (for f32 by way of f64; no constant here is near a double tie)."""
    return float(struct.unpack("<f", struct.pack("<f", float(value)))[0]) if kind == "f32" else float(value)


def parts(number: Decimal, count: int) -> dict[str, tuple[float, ...]]:
    """Per kind, `count` numbers whose sum approximates `number`."""
    out: dict[str, tuple[float, ...]] = {}
    kinds: tuple[Kind, ...] = ("f32", "f64")
    for kind in kinds:
        rest = number
        found: list[float] = []
        with localcontext(_EXACT):
            for _ in range(count):
                found.append(rounded(rest, kind))
                rest -= Decimal(found[-1])
        out[kind] = tuple(found)
    return out


_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798")

_LN2 = Decimal("0.693147180559945309417232121458176568075500134360255254120680009493393621969694715605863326996418687")

LN2 = {k: (v[0], v[1]) for k, v in parts(_LN2, 2).items()}
LOG2_E = {
    k: (v[0], v[1]) for k, v in parts(Decimal("1.442695040888963407359924681001892137426645954152985934135449407"), 2).items()
}
LOG10_E = {
    k: (v[0], v[1]) for k, v in parts(Decimal("0.434294481903251827651128918916605082294397005803666566114453783"), 2).items()
}
LOG10_2 = {
    k: (v[0], v[1]) for k, v in parts(Decimal("0.301029995663981195213738894724493026768189881462108541310427461"), 2).items()
}
HALF_PI = parts(_EXACT.divide(_PI, Decimal(2)), 4)
TWO_OVER_PI = {k: v[0] for k, v in parts(Context(prec=100).divide(Decimal(2), _PI), 1).items()}

_LN2_HIGH = int(_EXACT.multiply(_LN2, Decimal(2**42)).to_integral_value()) / 2**42
LN2_PARTS = (_LN2_HIGH, *(float(p) for p in parts(_EXACT.subtract(_LN2, Decimal(_LN2_HIGH)), 2)["f64"]))
"""ln 2 in three f64 parts, the first with 42 bits: its product with an exponent is exact."""


def _two_over_pi(bits: int) -> int:
    """The first `bits` bits of 2/pi, with 64 more of pi = 16 atan(1/5) - 4 atan(1/239) (J. Machin, 1706)."""
    one = 1 << bits + 80

    def arctangent(inverse: int) -> int:
        power, total, k = one // inverse, 0, 1
        while power:
            total += power // k if k % 4 == 1 else -(power // k)
            power //= inverse * inverse
            k += 2
        return total

    return (2 * one << bits) // (16 * arctangent(5) - 4 * arctangent(239))


_DIGIT_COUNT = 46  # 26 bits each: enough for an exponent of 1023 and 200 bits more
_TWO_OVER_PI_BITS = _two_over_pi(26 * _DIGIT_COUNT)
TWO_OVER_PI_DIGITS = tuple(
    float(_TWO_OVER_PI_BITS >> 26 * (_DIGIT_COUNT - 1 - i) & (1 << 26) - 1) for i in range(_DIGIT_COUNT)
)
"""2/pi in base 2**26, from the first digit after the point."""
