"""Elementary functions of f32 in GLSL.

The approximations are the polynomials of S. L. Moshier, Cephes Mathematical Library (netlib.org/cephes, files expf, logf, sinf,
tanf, atanf, asinf, sinhf, tanhf); those of erf are our own (tests/bench/derive_polynomials.py, ERF and ERFC). Arguments of sin and
cos are reduced after Payne and Hanek (SIGNUM 1983). `precise` keeps compilers from reassociating the error terms away. Errors are
<= 3 ulp (`tan` 4) over all of f32.
"""

from __future__ import annotations

from tridsl.backends.vulkan.glsl_helper import Helper

_EXPONENTIALS = {
    "exp_part": Helper(  # exp(r) - 1 on |r| <= ln(2)/2
        """float exp_part(float r) {
    float p = 1.9875691500e-4;
    p = fma(p, r, 1.3981999507e-3);
    p = fma(p, r, 8.3334519073e-3);
    p = fma(p, r, 4.1665795894e-2);
    p = fma(p, r, 1.6666665459e-1);
    p = fma(p, r, 5.0000001201e-1);
    precise float q = fma(p, r * r, r);
    return q;
}
float exp_rest(float x, float n) { precise float a = x - n * 0.693359375; precise float r = a - n * -2.12194440e-4; return r; }
"""
    ),
    "exp_scaled": Helper(  # e^r * 2^n of -150 <= n <= 128 in two exact steps; `t` is n + 1.5 * 2^23, which has n in its low bits
        """float exp_scaled(float r, float t) {
    int n = floatBitsToInt(t) - 0x4b400000, h = n >> 1;
    precise float y = (1.0 + exp_part(r)) * uintBitsToFloat(uint(h + 127) << 23);
    precise float z = y * uintBitsToFloat(uint(n - h + 127) << 23);
    return z;
}
""",
        ("exp_part",),
    ),
    "exp_text": Helper(  # no branches: lanes of one subgroup seldom agree on them
        """float exp_text(float x) {
    float c = clamp(x, -104.0, 89.0);
    precise float t = c * 1.44269504088896341 + 12582912.0;
    precise float n = t - 12582912.0;
    precise float a = fma(n, -0.693359375, c);
    precise float r = fma(n, 2.12194440e-4, a);
    float y = exp_scaled(r, t);
    return is_nan(x) ? x : y;
}
""",
        ("is_nan", "exp_scaled"),
    ),
    "exp": Helper("float exp_(float x) { return exp_text(x); }\n", ("exp_text",)),
    "exp_of_rounded": Helper("float exp_of_rounded_(float x) { return exp_(x); }\n", ("exp",)),
    "exp2": Helper(
        """float exp2_(float x) {
    float c = clamp(x, -150.0, 128.0);
    precise float t = c + 12582912.0;
    precise float n = t - 12582912.0;
    float y = exp_scaled((c - n) * 0.693147180559945309, t);
    return is_nan(x) ? x : y;
}
""",
        ("is_nan", "exp_scaled"),
    ),
    "expm1": Helper(
        """float expm1_(float x) {
    if (!(x < 88.8)) return is_nan(x) ? x : uintBitsToFloat(0x7f800000u);
    if (x < -18.0) return -1.0;
    if (abs(x) < 1e-8) return x;
    float n = roundEven(x * 1.44269504088896341);
    float p = exp_part(exp_rest(x, n));
    if (n > 126.0) return scale2(1.0 + p, int(n));
    precise float s = pow2(int(n));
    precise float y = s * p + (s - 1.0);
    return y;
}
""",
        ("is_nan", "exp_part", "pow2"),
    ),
}

_LOGARITHMS = {
    "log_parts": Helper(  # x = 2^e * (1 + f), sqrt(1/2) <= 1 + f < sqrt(2); log(1 + f) = f + the result
        """float log_parts(float x, out float f, out float e) {
    bool small = x < 1.17549435e-38;
    uint b = floatBitsToUint(small ? x * 8388608.0 : x);
    uint shifted = b - 0x3f3504f3u;                                  // bits of sqrt(1/2)
    int n = int(shifted) >> 23;
    f = uintBitsToFloat((shifted & 0x7fffffu) + 0x3f3504f3u) - 1.0;
    e = float(small ? n - 23 : n);
    float p = 7.0376836292e-2;
    p = p * f - 1.1514610310e-1;
    p = p * f + 1.1676998740e-1;
    p = p * f - 1.2420140846e-1;
    p = p * f + 1.4249322787e-1;
    p = p * f - 1.6668057665e-1;
    p = p * f + 2.0000714765e-1;
    p = p * f - 2.4999993993e-1;
    p = p * f + 3.3333331174e-1;
    precise float y = p * f * (f * f) - 0.5 * (f * f);
    return y;
}
float log_edge(float x) {                                            // what has no logarithm, and infinity
    return x == 0.0 ? uintBitsToFloat(0xff800000u) : x < 0.0 ? uintBitsToFloat(0x7fc00000u) : x;
}
bool log_is_edge(float x) { return !(x > 0.0) || is_inf(x); }
""",
        ("is_inf",),
    ),
    "log": Helper(
        """float log_(float x) {
    if (log_is_edge(x)) return log_edge(x);
    float f, e;
    precise float y = log_parts(x, f, e) + e * -2.12194440e-4;
    precise float z = f + y;
    precise float w = z + e * 0.693359375;
    return w;
}
""",
        ("log_parts",),
    ),
    "log2": Helper(
        """float log2_(float x) {
    if (log_is_edge(x)) return log_edge(x);
    float f, e;
    precise float y = log_parts(x, f, e);
    precise float z = y * 0.44269504088896341 + f * 0.44269504088896341;
    precise float w = ((z + y) + f) + e;
    return w;
}
""",
        ("log_parts",),
    ),
    "log10": Helper(
        """float log10_(float x) {
    if (log_is_edge(x)) return log_edge(x);
    float f, e;
    precise float y = log_parts(x, f, e);
    precise float z = (f + y) * 7.00731903251827651e-4 + e * 2.48745663981195214e-4;
    precise float w = ((z + y * 4.3359375e-1) + f * 4.3359375e-1) + e * 3.0078125e-1;
    return w;
}
""",
        ("log_parts",),
    ),
    "log1p": Helper(
        """float log1p_(float x) {
    precise float u = 1.0 + x;
    if (u == 1.0 || log_is_edge(u)) return u == 1.0 ? x : log_edge(u);
    precise float lost = abs(x) < 1.0 ? x - (u - 1.0) : 1.0 - (u - x);
    precise float y = log_(u) + lost / u;
    return y;
}
""",
        ("log",),
    ),
}

_TRIGONOMETRY = {
    "reduce_angle": Helper(  # r in [-pi/4, pi/4] and the quadrant of a finite x, with 62 bits of 2/pi behind the point
        """const uint two_over_pi[8] = uint[8](0u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu);
uint two_over_pi_word(int bit) {                                     // 32 bits of 0.(2/pi), the first of weight 2^-(bit + 1)
    int at = bit + 32, low = at & 31;
    uint head = two_over_pi[at >> 5] << low;
    return low == 0 ? head : head | (two_over_pi[(at >> 5) + 1] >> (32 - low));
}
float reduce_angle(float x, out int quadrant) {
    uint b = floatBitsToUint(x);
    int e = int((b >> 23) & 0xffu) - 150;                            // |x| = m * 2^e
    if (e < -24) {                                                   // |x| < 1
        float a = abs(x);
        quadrant = a > 0.785398163397448310 ? 1 : 0;
        precise float near = quadrant == 0 ? a : (a - 1.5703125) - 4.83826794897e-4;
        quadrant = x < 0.0 ? -quadrant : quadrant;
        return x < 0.0 ? -near : near;
    }
    uint64_t m = uint64_t((b & 0x7fffffu) | 0x800000u);
    int bit = e - 2;                                                 // bits before it make whole turns
    uint64_t hi = (m * uint64_t(two_over_pi_word(bit))) << 32;
    uint64_t mid = m * uint64_t(two_over_pi_word(bit + 32));
    uint64_t lo = (m * uint64_t(two_over_pi_word(bit + 64))) >> 32;
    uint64_t turns = hi + mid + lo;                                  // m * 2^e * 2/pi * 2^62, modulo 2^64
    quadrant = int((turns + 0x2000000000000000UL) >> 62) & 3;
    int64_t rest = int64_t(turns << 2) >> 2;
    float r = float(rest) * 3.40612158e-19;                          // pi/2 * 2^-62
    quadrant = x < 0.0 ? -quadrant : quadrant;
    return x < 0.0 ? -r : r;
}
float sin_part(float r) {
    float z = r * r, p = -1.9515295891e-4;
    p = p * z + 8.3321608736e-3;
    p = p * z - 1.6666654611e-1;
    return p * z * r + r;
}
float cos_part(float r) {
    float z = r * r, p = 2.443315711809948e-5;
    p = p * z - 1.388731625493765e-3;
    p = p * z + 4.166664568298827e-2;
    precise float y = p * (z * z) - 0.5 * z + 1.0;
    return y;
}
float turn(float x, int more) {                                      // sin(x + more * pi/2)
    if (!(abs(x) < uintBitsToFloat(0x7f800000u))) return uintBitsToFloat(0x7fc00000u);
    int quadrant;
    float r = reduce_angle(x, quadrant);
    quadrant += more;
    float y = (quadrant & 1) == 0 ? sin_part(r) : cos_part(r);
    return (quadrant & 2) == 0 ? y : -y;
}
"""
    ),
    "sin": Helper("float sin_(float x) { return x == 0.0 ? x : turn(x, 0); }\n", ("reduce_angle",)),
    "cos": Helper("float cos_(float x) { return turn(x, 1); }\n", ("reduce_angle",)),
    "tan": Helper("float tan_(float x) { return x == 0.0 ? x : turn(x, 0) / turn(x, 1); }\n", ("reduce_angle",)),
    "atan": Helper(
        """float atan_(float x) {
    float a = abs(x), base = 0.0;
    if (a > 2.414213562373095) { base = 1.5707963267948966; a = -1.0 / a; }
    else if (a > 0.4142135623730950) { base = 0.7853981633974483; a = (a - 1.0) / (a + 1.0); }
    float z = a * a, p = 8.05374449538e-2;
    p = p * z - 1.38776856032e-1;
    p = p * z + 1.99777106478e-1;
    p = p * z - 3.33329491539e-1;
    precise float y = base + (p * z * a + a);
    return is_nan(x) || x == 0.0 ? x : x < 0.0 ? -y : y;
}
""",
        ("is_nan",),
    ),
    "atan2": Helper(
        """float atan2_(float y, float x) {
    if (is_nan(x) || is_nan(y)) return uintBitsToFloat(0x7fc00000u);
    bool back = (floatBitsToUint(x) >> 31) == 1u;
    float angle;
    if (is_inf(x) && is_inf(y)) angle = back ? 2.356194490192345 : 0.7853981633974483;
    else if (y == 0.0) angle = back ? 3.141592653589793 : 0.0;
    else if (abs(x) < abs(y) * 1e-10) angle = 1.5707963267948966;
    else { float t = atan_(abs(y) / abs(x)); angle = back ? 3.141592653589793 - t : t; }
    return (floatBitsToUint(y) >> 31) == 1u ? -angle : angle;
}
""",
        ("is_nan", "is_inf", "atan"),
    ),
    "asin": Helper(
        """float asin_part(float a, float z) {
    float p = 4.2163199048e-2;
    p = p * z + 2.4181311049e-2;
    p = p * z + 4.5470025998e-2;
    p = p * z + 7.4953002686e-2;
    p = p * z + 1.6666752422e-1;
    return p * z * a + a;
}
float asin_(float x) {
    float a = abs(x);
    if (!(a <= 1.0)) return uintBitsToFloat(0x7fc00000u);
    if (a < 1e-4) return x;
    float z = 0.5 * (1.0 - a);
    float y = a > 0.5 ? 1.5707963267948966 - 2.0 * asin_part(sqrt(z), z) : asin_part(a, a * a);
    return x < 0.0 ? -y : y;
}
float acos_(float x) {
    float a = abs(x);
    if (!(a <= 1.0)) return uintBitsToFloat(0x7fc00000u);
    float z = 0.5 * (1.0 - a);
    if (a <= 0.5) return 1.5707963267948966 - (x < 0.0 ? -asin_part(a, a * a) : asin_part(a, a * a));
    float y = 2.0 * asin_part(sqrt(z), z);
    return x < 0.0 ? 3.141592653589793 - y : y;
}
"""
    ),
}

_HYPERBOLIC = {
    "sinh": Helper(  # e^x itself has to be as good as it gets here: it is squared
        """float sinh_(float x) {
    float a = abs(x);
    if (a <= 1.0) {
        float z = x * x, p = 2.03721912945e-4;
        p = p * z + 8.33028376239e-3;
        p = p * z + 1.66667160211e-1;
        return p * z * x + x;
    }
    float h = a > 88.0 ? exp_text(0.5 * a) : 0.0, e = exp_text(a);
    float y = a > 88.0 ? (0.5 * h) * h : 0.5 * e - 0.5 / e;
    return is_nan(x) ? x : x < 0.0 ? -y : y;
}
""",
        ("exp_text", "is_nan"),
    ),
    "cosh": Helper(
        """float cosh_(float x) {
    float a = abs(x), h = a > 88.0 ? exp_text(0.5 * a) : 0.0, e = exp_text(a);
    return is_nan(x) ? x : a > 88.0 ? (0.5 * h) * h : 0.5 * e + 0.5 / e;
}
""",
        ("exp_text", "is_nan"),
    ),
    "tanh": Helper(
        """float tanh_(float x) {
    float a = abs(x);
    if (is_nan(x) || a < 1e-4) return x;
    if (a < 0.625) {
        float z = x * x, p = -5.70498872745e-3;
        p = p * z + 2.06390887954e-2;
        p = p * z - 5.37397155531e-2;
        p = p * z + 1.33314422036e-1;
        p = p * z - 3.33332819422e-1;
        return p * z * x + x;
    }
    float y = 1.0 - 2.0 / (exp_(2.0 * a) + 1.0);
    return x < 0.0 ? -y : y;
}
""",
        ("exp", "is_nan"),
    ),
    "erf": Helper(
        """float erf_(float x) {                                              // no branches: x + x P(x^2), 1 - 2^Q(|x| - 1)
    float a = min(abs(x), 4.0), z = a * a, t = a - 1.0;
    float p = 7.806903886375949e-5;
    p = fma(p, z, -7.997853099368513e-4);
    p = fma(p, z, 5.187162198126316e-3);
    p = fma(p, z, -2.6853347197175026e-2);
    p = fma(p, z, 1.1283578723669052e-1);
    p = fma(p, z, -3.761262595653534e-1);
    p = fma(p, z, 1.2837916612625122e-1);
    float q = -3.1303035939345136e-05;                               // log2(erfc(1 + t)): what ERFC is, times log2 e
    q = fma(q, t, 0.00041778909508138895);
    q = fma(q, t, -0.002902844687923789);
    q = fma(q, t, 0.01449416484683752);
    q = fma(q, t, -0.05996353179216385);
    q = fma(q, t, -1.2163463830947876);
    q = fma(q, t, -3.807225227355957);
    q = fma(q, t, -2.668416738510132);
    float y = a < 1.0 ? fma(a, p, a) : 1.0 - exp2_(q);
    return is_nan(x) ? x : uintBitsToFloat(floatBitsToUint(y) | (floatBitsToUint(x) & 0x80000000u));
}
""",
        ("exp2", "is_nan"),
    ),
}

_POWER = {
    "pow": Helper(  # by way of double: log2 to 1e-12, so that y * log2(x) up to 128 still has 30 bits
        """float pow_positive(float x, float y) {
    bool small = x < 1.17549435e-38;
    uint b = floatBitsToUint(small ? x * 8388608.0 : x), shifted = b - 0x3f3504f3u;
    int n = (int(shifted) >> 23) - (small ? 23 : 0);
    double m = double(uintBitsToFloat((shifted & 0x7fffffu) + 0x3f3504f3u));
    double s = (m - 1.0lf) / (m + 1.0lf), z = s * s;                 // log(m) = 2 atanh(s)
    double p = 1.0lf / 13.0lf;
    p = p * z + 1.0lf / 11.0lf;
    p = p * z + 1.0lf / 9.0lf;
    p = p * z + 1.0lf / 7.0lf;
    p = p * z + 0.2lf;
    p = p * z + 1.0lf / 3.0lf;
    p = p * z + 1.0lf;
    double t = double(y) * (double(n) + 2.8853900817779268lf * s * p);
    if (t >= 128.0lf) return uintBitsToFloat(0x7f800000u);
    if (t < -151.0lf) return 0.0;
    float whole = roundEven(float(t));
    double r = (t - double(whole)) * 0.69314718055994531lf, q = 1.0lf / 362880.0lf;
    q = q * r + 1.0lf / 40320.0lf;
    q = q * r + 1.0lf / 5040.0lf;
    q = q * r + 1.0lf / 720.0lf;
    q = q * r + 1.0lf / 120.0lf;
    q = q * r + 1.0lf / 24.0lf;
    q = q * r + 1.0lf / 6.0lf;
    q = q * r + 0.5lf;
    q = q * r + 1.0lf;
    return scale2(float(q * r + 1.0lf), int(whole));
}
float pow_(float x, float y) {                                       // special cases as in IEEE 754-2019, 9.2.1
    float infinity = uintBitsToFloat(0x7f800000u);
    if (x == 1.0 || y == 0.0) return 1.0;
    if (is_nan(x) || is_nan(y)) return uintBitsToFloat(0x7fc00000u);
    bool whole = floor(y) == y, odd = whole && abs(y) < 16777216.0 && floor(0.5 * y) * 2.0 != y;
    bool negative = (floatBitsToUint(x) >> 31) == 1u;
    float a = abs(x), r;
    if (is_inf(y)) return a == 1.0 ? 1.0 : (a > 1.0) == (y > 0.0) ? infinity : 0.0;
    if (a == 0.0 || is_inf(x)) r = (a == 0.0) == (y > 0.0) ? 0.0 : infinity;
    else if (negative && !whole) return uintBitsToFloat(0x7fc00000u);
    else r = pow_positive(a, y);
    return negative && odd ? -r : r;
}
""",
        ("is_nan", "is_inf", "pow2"),
    ),
}

MATH: dict[str, Helper] = _EXPONENTIALS | _LOGARITHMS | _TRIGONOMETRY | _HYPERBOLIC | _POWER
