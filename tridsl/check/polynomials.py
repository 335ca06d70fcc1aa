"""Integer polynomials over numbered atoms, as `check.prove` computes with them."""

from __future__ import annotations

from math import gcd

Monomial = tuple[int, ...]
"""Numbers of the atoms multiplied, ascending, repeated for powers; `()` is the constant."""
Poly = dict[Monomial, int]
"""Coefficients, none of them 0."""


def tightened(p: Poly) -> Poly:
    """`g*x + c >= 0` over integers is `x + floor(c / g) >= 0`."""
    divisor = gcd(*(c for m, c in p.items() if m))
    return {m: c // divisor for m, c in p.items() if m or c // divisor} if divisor > 1 else p


def plus(a: Poly, b: Poly) -> Poly:
    out = dict(a)
    for monomial, coefficient in b.items():
        total = out.get(monomial, 0) + coefficient
        if total:
            out[monomial] = total
        else:
            out.pop(monomial, None)
    return out


def scaled(p: Poly, factor: int) -> Poly:
    return {m: c * factor for m, c in p.items()} if factor else {}


def subtract(a: Poly, b: Poly) -> Poly:
    return plus(a, scaled(b, -1))


def times(a: Poly, b: Poly) -> Poly:
    out: Poly = {}
    for m1, c1 in a.items():
        out = plus(out, {tuple(sorted(m1 + m2)): c1 * c2 for m2, c2 in b.items()})
    return out


def split(p: Poly, number: int) -> tuple[Poly, Poly, bool]:
    """p = q*atom + r; the flag is false when the atom also occurs squared."""
    q: Poly = {}
    r: Poly = {}
    linear = True
    for monomial, coefficient in p.items():
        count = monomial.count(number)
        if count == 0:
            r[monomial] = coefficient
        else:
            linear = linear and count == 1
            position = monomial.index(number)
            q[monomial[:position] + monomial[position + 1 :]] = coefficient
    return q, r, linear


def quotient(q: Poly, b: Poly) -> int | None:
    """k with q == k*b, if there is one."""
    if not q or q.keys() != b.keys():
        return None
    monomial, coefficient = next(iter(b.items()))
    k, remainder = divmod(q[monomial], coefficient)
    return k if remainder == 0 and k and scaled(b, k) == q else None
