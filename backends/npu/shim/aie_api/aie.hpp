// A host stand-in for AMD's AIE API: the part of its surface that emitted kernels use, with the hardware's habits.
//
// Strict where the hardware is: rounding starts as floor and saturation as none, vectors have the sizes of registers, matrix shapes are those of the
// generation (static_assert), and accesses must be aligned. What goes wrong at run time is put into `tridsl_shim_failure`, which the simulator reads
// behind every call. Approximations of the hardware (inv, invsqrt) have 8 bits here, so that whoever relies on more is found out.
#ifndef TRIDSL_AIE_SHIM
#define TRIDSL_AIE_SHIM

#include <stdint.h>

#ifndef __AIE_ARCH__
#error "define __AIE_ARCH__: 20 is aie2, 21 is aie2p"
#endif

extern "C" {
inline const char *tridsl_shim_failure = nullptr;
}

using int8 = int8_t;
using int16 = int16_t;
using int32 = int32_t;
using uint8 = uint8_t;
using uint16 = uint16_t;
using uint32 = uint32_t;

struct bfloat16 {
  uint16_t bits;
};

struct acc32 {};
struct acc64 {};
struct accfloat {};

namespace aie {

enum class rounding_mode { floor, ceil, positive_inf, negative_inf, symmetric_inf, symmetric_zero, conv_even, conv_odd };
enum class saturation_mode { none, truncate = none, saturate, symmetric };

namespace state {
inline rounding_mode rounding = rounding_mode::floor;
inline saturation_mode saturation = saturation_mode::none;
} // namespace state

inline void set_rounding(rounding_mode mode) { state::rounding = mode; }
inline rounding_mode swap_rounding(rounding_mode mode) {
  const rounding_mode before = state::rounding;
  state::rounding = mode;
  return before;
}
inline void set_saturation(saturation_mode mode) { state::saturation = mode; }

namespace detail {

inline void fail(const char *what) {
  if (!tridsl_shim_failure)
    tridsl_shim_failure = what;
}

inline float from_bits(uint32_t bits) { return __builtin_bit_cast(float, bits); }
inline uint32_t to_bits(float value) { return __builtin_bit_cast(uint32_t, value); }

template <typename T> struct traits;
template <> struct traits<float> { static constexpr unsigned bits = 32; using acc = accfloat; };
template <> struct traits<bfloat16> { static constexpr unsigned bits = 16; using acc = accfloat; };
template <> struct traits<int8> { static constexpr unsigned bits = 8; using acc = acc32; using wide = int16; };
template <> struct traits<int16> { static constexpr unsigned bits = 16; using acc = acc64; using wide = int32; using small = int8; };
template <> struct traits<int32> { static constexpr unsigned bits = 32; using acc = acc64; using small = int16; };
template <> struct traits<uint8> { static constexpr unsigned bits = 8; using acc = acc32; using wide = uint16; };
template <> struct traits<uint16> { static constexpr unsigned bits = 16; using acc = acc64; using wide = uint32; using small = uint8; };
template <> struct traits<uint32> { static constexpr unsigned bits = 32; using acc = acc64; using small = uint16; };

template <typename Tag> struct accumulator;
template <> struct accumulator<acc32> { using type = int32_t; };
template <> struct accumulator<acc64> { using type = int64_t; };
template <> struct accumulator<accfloat> { using type = float; };

constexpr bool legal_vector(unsigned bits) { return bits == 128 || bits == 256 || bits == 512 || bits == 1024 || bits == 2048; }

#if __AIE_ARCH__ == 20
constexpr unsigned load_bytes = 32;
#else
constexpr unsigned load_bytes = 64;
#endif

template <typename T, typename U> struct same { static constexpr bool value = false; };
template <typename T> struct same<T, T> { static constexpr bool value = true; };

// Shapes of aie::mmul by generation: (types, r, s, t), those of one or a few instructions.
template <typename A, typename B> constexpr bool legal_mmul(unsigned r, unsigned s, unsigned t) {
  constexpr bool i8 = same<A, int8>::value && same<B, int8>::value;
  constexpr bool i16 = same<A, int16>::value && same<B, int16>::value;
  constexpr bool bf = same<A, bfloat16>::value && same<B, bfloat16>::value;
  constexpr bool f32 = same<A, float>::value && same<B, float>::value; // of products of bf16, on both
  const auto is = [=](unsigned x, unsigned y, unsigned z) { return r == x && s == y && t == z; };
#if __AIE_ARCH__ == 20
  if (i8) return is(4, 8, 8) || is(2, 8, 8) || is(8, 8, 8) || is(4, 16, 4) || is(4, 16, 8);
  if (i16) return is(4, 4, 4) || is(2, 4, 8) || is(4, 2, 8);
  if (bf) return is(4, 8, 4) || is(8, 8, 4) || is(8, 8, 8);
  if (f32) return is(4, 8, 4);
#else
  if (i8) return is(8, 8, 8) || is(4, 8, 8) || is(2, 8, 8);
  if (i16) return is(4, 4, 8) || is(4, 2, 8) || is(8, 2, 8) || is(2, 4, 8);
  if (bf) return is(8, 8, 8) || is(4, 8, 8);
  if (f32) return is(4, 8, 4) || is(4, 1, 4) || is(4, 1, 8);
#endif
  return false;
}

// Whether what is cut off rounds the kept part up: `rest` in units of the last kept bit, 0 <= rest < 1, of a value whose floor is kept.
inline bool rounds_up(bool odd, bool negative, double rest) {
  switch (state::rounding) {
  case rounding_mode::floor: return false;
  case rounding_mode::ceil: return rest > 0;
  case rounding_mode::positive_inf: return rest >= 0.5;
  case rounding_mode::negative_inf: return rest > 0.5;
  case rounding_mode::symmetric_inf: return negative ? rest > 0.5 : rest >= 0.5;
  case rounding_mode::symmetric_zero: return negative ? rest >= 0.5 : rest > 0.5;
  case rounding_mode::conv_even: return rest > 0.5 || (rest == 0.5 && odd);
  case rounding_mode::conv_odd: return rest > 0.5 || (rest == 0.5 && !odd);
  }
  return false;
}

inline bfloat16 to_bfloat16(float value) {
  const uint32_t bits = to_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u)
    return {uint16_t((bits >> 16) | 0x40u)};
  const bool negative = bits >> 31;
  const uint32_t cut = bits & 0xffffu;
  uint32_t kept = bits >> 16;
  // the magnitude is kept and cut; floor of a negative value is away from zero
  if (negative) {
    if (cut && !rounds_up(!(kept & 1), true, 1.0 - cut / 65536.0))
      kept += 1;
  } else if (rounds_up(kept & 1, false, cut / 65536.0)) {
    kept += 1;
  }
  return {uint16_t(kept)};
}

inline float widen(bfloat16 value) { return from_bits(uint32_t(value.bits) << 16); }
inline float widen(float value) { return value; }
template <typename T> inline int64_t widen(T value) { return int64_t(value); }

template <typename T> inline T settle(int64_t value, unsigned shift) {
  if (shift) {
    const int64_t kept = value >> shift;
    const int64_t cut = value - kept * (int64_t(1) << shift);
    value = kept + rounds_up(kept & 1, value < 0, double(cut) / double(int64_t(1) << shift));
  }
  if (state::saturation != saturation_mode::none) {
    constexpr bool is_signed = T(-1) < T(0);
    const int64_t high = is_signed ? (int64_t(1) << (traits<T>::bits - 1)) - 1 : (int64_t(1) << traits<T>::bits) - 1;
    const int64_t low = !is_signed ? 0 : state::saturation == saturation_mode::symmetric ? -high : -high - 1;
    value = value > high ? high : value < low ? low : value;
  }
  return T(value);
}

inline float truncated(float value) { return from_bits(to_bits(value) & 0xffff0000u); }

} // namespace detail

template <typename T, unsigned N> struct vector {
  static_assert(detail::legal_vector(N * detail::traits<T>::bits), "vectors have 128, 256, 512 or 1024 bits (accumulated blocks 2048)");
  T lane[N];

  static constexpr unsigned size() { return N; }
  T get(unsigned i) const { return lane[i]; }
  void set(T value, unsigned i) { lane[i] = value; }

  template <typename U> vector<U, N * detail::traits<T>::bits / detail::traits<U>::bits> cast_to() const {
    vector<U, N * detail::traits<T>::bits / detail::traits<U>::bits> out;
    static_assert(sizeof(out) == sizeof(*this));
    __builtin_memcpy(&out, this, sizeof(out));
    return out;
  }
  template <unsigned M> vector<T, M> extract(unsigned part) const {
    static_assert(N % M == 0);
    vector<T, M> out;
    if (part >= N / M)
      detail::fail("extract of a part that is not there");
    else
      __builtin_memcpy(&out, lane + part * M, sizeof(out));
    return out;
  }
  template <unsigned M> void insert(unsigned part, const vector<T, M> &v) {
    static_assert(N % M == 0);
    if (part >= N / M)
      detail::fail("insert of a part that is not there");
    else
      __builtin_memcpy(lane + part * M, &v, sizeof(v));
  }
  auto unpack() const {
    vector<typename detail::traits<T>::wide, N> out;
    for (unsigned i = 0; i < N; ++i)
      out.lane[i] = lane[i];
    return out;
  }
  auto pack() const {
    using S = typename detail::traits<T>::small;
    vector<S, N> out;
    for (unsigned i = 0; i < N; ++i)
      out.lane[i] = detail::settle<S>(lane[i], 0);
    return out;
  }
};

template <unsigned N> struct mask {
  static_assert(N <= 64);
  uint64_t bits;

  static mask from_uint32(uint32_t value) { return from_uint64(value); }
  static mask from_uint64(uint64_t value) { return {N == 64 ? value : value & ((uint64_t(1) << (N & 63)) - 1)}; }
  bool test(unsigned i) const { return bits >> i & 1; }
  unsigned count() const { return __builtin_popcountll(bits); }
  mask operator&(mask other) const { return {bits & other.bits}; }
  mask operator|(mask other) const { return {bits | other.bits}; }
  mask operator~() const { return from_uint64(~bits); }
};

template <typename Tag, unsigned N> struct accum {
  using value_type = typename detail::accumulator<Tag>::type;
  value_type lane[N];

  template <typename T> void from_vector(const vector<T, N> &v, unsigned shift = 0) {
    for (unsigned i = 0; i < N; ++i)
      if constexpr (detail::same<Tag, accfloat>::value)
        lane[i] = detail::widen(v.lane[i]);
      else
        lane[i] = value_type(uint64_t(detail::widen(v.lane[i])) << shift);
  }
  template <typename T> vector<T, N> to_vector(unsigned shift = 0) const {
    vector<T, N> out;
    for (unsigned i = 0; i < N; ++i)
      if constexpr (detail::same<T, float>::value)
        out.lane[i] = lane[i];
      else if constexpr (detail::same<T, bfloat16>::value)
        out.lane[i] = detail::to_bfloat16(lane[i]);
      else
        out.lane[i] = detail::settle<T>(lane[i], shift);
    return out;
  }
};

// Memory. Alignment is that of the vector, at most the widest access.

template <typename T, unsigned N> constexpr unsigned alignment() {
  constexpr unsigned bytes = N * detail::traits<T>::bits / 8;
  return bytes < detail::load_bytes ? bytes : detail::load_bytes;
}

template <unsigned N, typename T> inline vector<T, N> load_unaligned_v(const T *p) {
  vector<T, N> out;
  __builtin_memcpy(&out, p, sizeof(out));
  return out;
}
template <unsigned N, typename T> inline vector<T, N> load_v(const T *p) {
  if (uintptr_t(p) % alignment<T, N>())
    detail::fail("load_v of a vector that is not aligned");
  return load_unaligned_v<N>(p);
}
template <typename T, unsigned N> inline void store_unaligned_v(T *p, const vector<T, N> &v) { __builtin_memcpy(p, &v, sizeof(v)); }
template <typename T, unsigned N> inline void store_v(T *p, const vector<T, N> &v) {
  if (uintptr_t(p) % alignment<T, N>())
    detail::fail("store_v of a vector that is not aligned");
  store_unaligned_v(p, v);
}

template <typename T, unsigned N> inline vector<T, N> broadcast(T value) {
  vector<T, N> out;
  for (unsigned i = 0; i < N; ++i)
    out.lane[i] = value;
  return out;
}
template <typename T, unsigned N> inline vector<T, N> zeros() { return broadcast<T, N>(T{}); }

// Lane by lane.

namespace detail {
template <typename T> inline T wrapped_add(T a, T b) { return T(uint32_t(a) + uint32_t(b)); }
template <> inline float wrapped_add(float a, float b) { return a + b; }
template <typename T> inline T wrapped_sub(T a, T b) { return T(uint32_t(a) - uint32_t(b)); }
template <> inline float wrapped_sub(float a, float b) { return a - b; }
template <typename T> inline T minus(T a) { return T(0u - uint32_t(a)); }
template <> inline float minus(float a) { return -a; }
} // namespace detail

#define TRIDSL_LANES(NAME, EXPRESSION)                                                                                                               \
  template <typename T, unsigned N> inline vector<T, N> NAME(const vector<T, N> &x, const vector<T, N> &y) {                                         \
    static_assert(!detail::same<T, bfloat16>::value, "bf16 has no such operation here: widen first");                                               \
    vector<T, N> out;                                                                                                                                \
    for (unsigned i = 0; i < N; ++i) {                                                                                                               \
      const T a = x.lane[i], b = y.lane[i];                                                                                                          \
      out.lane[i] = EXPRESSION;                                                                                                                      \
    }                                                                                                                                                \
    return out;                                                                                                                                      \
  }
TRIDSL_LANES(add, detail::wrapped_add(a, b))
TRIDSL_LANES(sub, detail::wrapped_sub(a, b))
TRIDSL_LANES(max, a < b ? b : a)
TRIDSL_LANES(min, b < a ? b : a)
TRIDSL_LANES(bit_and, T(a & b))
TRIDSL_LANES(bit_or, T(a | b))
TRIDSL_LANES(bit_xor, T(a ^ b))
#undef TRIDSL_LANES

template <typename T, unsigned N> inline vector<T, N> neg(const vector<T, N> &x) {
  vector<T, N> out;
  for (unsigned i = 0; i < N; ++i)
    out.lane[i] = detail::minus(x.lane[i]);
  return out;
}
template <typename T, unsigned N> inline vector<T, N> abs(const vector<T, N> &x) {
  vector<T, N> out;
  for (unsigned i = 0; i < N; ++i)
    if constexpr (detail::same<T, float>::value)
      out.lane[i] = detail::from_bits(detail::to_bits(x.lane[i]) & 0x7fffffffu);
    else
      out.lane[i] = x.lane[i] < 0 ? detail::minus(x.lane[i]) : x.lane[i];
  return out;
}
template <typename T, unsigned N> inline vector<T, N> upshift(const vector<T, N> &x, unsigned shift) {
  vector<T, N> out;
  for (unsigned i = 0; i < N; ++i)
    out.lane[i] = T(uint32_t(x.lane[i]) << shift);
  return out;
}

// Arithmetic for signed elements, rounded down.
template <typename T, unsigned N> inline vector<T, N> downshift(const vector<T, N> &x, unsigned shift) {
  vector<T, N> out;
  for (unsigned i = 0; i < N; ++i)
    out.lane[i] = T(x.lane[i] >> shift);
  return out;
}

// Groups of `step` elements: the first, third, …, and the second, fourth, …
namespace detail {
template <unsigned First, typename T, unsigned N> inline vector<T, N / 2> every_second(const vector<T, N> &v, unsigned step) {
  vector<T, N / 2> out;
  for (unsigned i = 0; i < N / 2; ++i)
    out.lane[i] = v.lane[(2 * (i / step) + First) * step + i % step];
  return out;
}
} // namespace detail
template <typename T, unsigned N> inline vector<T, N / 2> filter_even(const vector<T, N> &v, unsigned step = 1) { return detail::every_second<0>(v, step); }
template <typename T, unsigned N> inline vector<T, N / 2> filter_odd(const vector<T, N> &v, unsigned step = 1) { return detail::every_second<1>(v, step); }
// Groups of `step` elements of the one and the other in turn: the first and the second half of them.
namespace detail {
template <typename T> struct pair {
  T first, second;
};
} // namespace detail
template <typename T, unsigned N> inline detail::pair<vector<T, N>> interleave_zip(const vector<T, N> &a, const vector<T, N> &b, unsigned step) {
  detail::pair<vector<T, N>> out;
  if (step == 0 || (step & (step - 1)) || step > N / 2)
    detail::fail("interleave_zip takes groups of a power of two of elements, at most half of a vector");
  for (unsigned i = 0; i < 2 * N; ++i) {
    const unsigned group = i / step, place = group / 2 * step + i % step;
    (i < N ? out.first : out.second).lane[i % N] = (group % 2 ? b : a).lane[place];
  }
  return out;
}
template <typename T, unsigned N> inline vector<T, 2 * N> concat(const vector<T, N> &a, const vector<T, N> &b) {
  vector<T, 2 * N> out;
  for (unsigned i = 0; i < N; ++i)
    out.lane[i] = a.lane[i], out.lane[N + i] = b.lane[i];
  return out;
}
template <typename T, unsigned N> inline vector<T, N> reverse(const vector<T, N> &v) {
  vector<T, N> out;
  for (unsigned i = 0; i < N; ++i)
    out.lane[i] = v.lane[N - 1 - i];
  return out;
}

// Lane i is lane i + n; what comes in at the end is not defined.
template <typename T, unsigned N> inline vector<T, N> shuffle_down(const vector<T, N> &v, unsigned n) {
  vector<T, N> out;
  for (unsigned i = 0; i < N; ++i)
    out.lane[i] = v.lane[(i + n) % N];
  return out;
}

// Lane i is lane i - n; at the beginning come the last lanes of `fill`.
template <typename T, unsigned N> inline vector<T, N> shuffle_up_fill(const vector<T, N> &v, const vector<T, N> &fill, unsigned n) {
  vector<T, N> out;
  for (unsigned i = 0; i < N; ++i)
    out.lane[i] = i >= n ? v.lane[i - n] : fill.lane[N - n + i];
  return out;
}

template <typename T, unsigned N> inline auto mul(const vector<T, N> &a, const vector<T, N> &b) {
  accum<typename detail::traits<T>::acc, N> out;
  for (unsigned i = 0; i < N; ++i)
    out.lane[i] = typename decltype(out)::value_type(detail::widen(a.lane[i]) * detail::widen(b.lane[i]));
  return out;
}
template <unsigned N> inline vector<float, N> to_float(const vector<int32, N> &x) {
  vector<float, N> out;
  for (unsigned i = 0; i < N; ++i)
    out.lane[i] = float(x.lane[i]);
  return out;
}
// Whole numbers only, so that the mode of rounding does not matter: others are a failure here.
template <typename T, unsigned N> inline vector<T, N> to_fixed(const vector<float, N> &x, unsigned shift) {
  vector<T, N> out;
  for (unsigned i = 0; i < N; ++i) {
    const double scaled = double(x.lane[i]) * double(uint64_t(1) << shift);
    if (!(scaled >= -2147483648.0 && scaled <= 2147483647.0) || scaled != double(int64_t(scaled)))
      detail::fail("to_fixed of a number that is not whole, or too large");
    else
      out.lane[i] = T(int64_t(scaled));
  }
  return out;
}
template <unsigned N> inline vector<float, N> inv(const vector<float, N> &x) {
  vector<float, N> out;
  for (unsigned i = 0; i < N; ++i)
    out.lane[i] = detail::truncated(1.0f / x.lane[i]);
  return out;
}
template <unsigned N> inline vector<float, N> invsqrt(const vector<float, N> &x) {
  vector<float, N> out;
  for (unsigned i = 0; i < N; ++i)
    out.lane[i] = detail::truncated(1.0f / __builtin_sqrtf(x.lane[i]));
  return out;
}

#define TRIDSL_COMPARE(NAME, SIGN)                                                                                                                   \
  template <typename T, unsigned N> inline mask<N> NAME(const vector<T, N> &a, const vector<T, N> &b) {                                              \
    uint64_t bits = 0;                                                                                                                               \
    for (unsigned i = 0; i < N; ++i)                                                                                                                 \
      bits |= uint64_t(a.lane[i] SIGN b.lane[i]) << i;                                                                                               \
    return {bits};                                                                                                                                   \
  }
TRIDSL_COMPARE(eq, ==)
TRIDSL_COMPARE(neq, !=)
TRIDSL_COMPARE(lt, <)
TRIDSL_COMPARE(le, <=)
TRIDSL_COMPARE(gt, >)
TRIDSL_COMPARE(ge, >=)
#undef TRIDSL_COMPARE

// b where the mask is set, else a
template <typename T, unsigned N> inline vector<T, N> select(const vector<T, N> &a, const vector<T, N> &b, const mask<N> &m) {
  vector<T, N> out;
  for (unsigned i = 0; i < N; ++i)
    out.lane[i] = m.bits >> i & 1 ? b.lane[i] : a.lane[i];
  return out;
}

// Across the lanes, as a tree.

namespace detail {
template <typename T, unsigned N, typename F> inline T reduce(const vector<T, N> &v, F combine) {
  T part[N];
  for (unsigned i = 0; i < N; ++i)
    part[i] = v.lane[i];
  for (unsigned half = N / 2; half; half /= 2)
    for (unsigned i = 0; i < half; ++i)
      part[i] = combine(part[i], part[i + half]);
  return part[0];
}
} // namespace detail

template <typename T, unsigned N> inline T reduce_add(const vector<T, N> &v) {
  return detail::reduce(v, [](T a, T b) { return detail::wrapped_add(a, b); });
}
template <typename T, unsigned N> inline T reduce_max(const vector<T, N> &v) {
  return detail::reduce(v, [](T a, T b) { return a < b ? b : a; });
}
template <typename T, unsigned N> inline T reduce_min(const vector<T, N> &v) {
  return detail::reduce(v, [](T a, T b) { return b < a ? b : a; });
}

// A matrix of `rows` x `columns`, row-major, with its sides exchanged.
template <typename T, unsigned N> inline vector<T, N> transpose(const vector<T, N> &x, unsigned rows, unsigned columns) {
  static_assert(N * detail::traits<T>::bits == 256 || N * detail::traits<T>::bits == 512 || N * detail::traits<T>::bits == 1024, "transposes are of registers");
  vector<T, N> out;
  if (rows * columns != N)
    detail::fail("transpose of a matrix that does not fill its vector");
  for (unsigned i = 0; i < rows; ++i)
    for (unsigned j = 0; j < columns; ++j)
      out.lane[j * rows + i] = x.lane[i * columns + j];
  return out;
}

#ifdef AIE_API_EMULATE_BFLOAT16_MMUL_WITH_BFP16
constexpr bool blocks_of_bfp16 = true;
#else
constexpr bool blocks_of_bfp16 = false;
#endif

namespace detail {
// Eight numbers `stride` apart with one exponent: mantissas of 8 bits, rounded in the mode that is set.
inline void share_exponent(float *x, unsigned stride) {
  float greatest = 0;
  for (unsigned i = 0; i < 8; ++i) {
    const float size = __builtin_fabsf(x[i * stride]);
    if (!(size <= 3.402823466e38f))
      return;
    greatest = size > greatest ? size : greatest;
  }
  if (greatest == 0)
    return;
  int exponent;
  __builtin_frexpf(greatest, &exponent);
  const double step = __builtin_ldexp(1.0, exponent - 7);
  for (unsigned i = 0; i < 8; ++i) {
    const double units = x[i * stride] / step, kept = __builtin_floor(units);
    double rounded = kept + rounds_up(int(kept) & 1, kept < 0, units - kept);
    rounded = rounded > 127 ? 127 : rounded < -128 ? -128 : rounded;
    x[i * stride] = float(rounded * step);
  }
}
} // namespace detail

// Blocks of matrices, row-major: C[r, t] += A[r, s] B[s, t].

template <unsigned R, unsigned S, unsigned T, typename A, typename B> struct mmul {
  static_assert(detail::legal_mmul<A, B>(R, S, T), "this generation has no such matrix instruction");
  static constexpr unsigned size_A = R * S, size_B = S * T, size_C = R * T;
  using tag = typename detail::traits<A>::acc;
  using value_type = typename detail::accumulator<tag>::type;
  value_type lane[size_C];

  mmul() = default;
  template <typename U> explicit mmul(const vector<U, size_C> &v) {
    for (unsigned i = 0; i < size_C; ++i)
      lane[i] = value_type(detail::widen(v.lane[i]));
  }
  void mac(const vector<A, size_A> &a, const vector<B, size_B> &b) {
    if constexpr (blocks_of_bfp16 && detail::same<A, bfloat16>::value && S == 8 && T == 8) {
      float x[size_A], y[size_B];
      for (unsigned i = 0; i < size_A; ++i)
        x[i] = detail::widen(a.lane[i]);
      for (unsigned i = 0; i < size_B; ++i)
        y[i] = detail::widen(b.lane[i]);
      for (unsigned i = 0; i < R; ++i)
        detail::share_exponent(x + i * S, 1);
      for (unsigned j = 0; j < T; ++j)
        detail::share_exponent(y + j, T);
      for (unsigned i = 0; i < R; ++i)
        for (unsigned k = 0; k < S; ++k)
          for (unsigned j = 0; j < T; ++j)
            lane[i * T + j] += x[i * S + k] * y[k * T + j];
      return;
    }
    for (unsigned i = 0; i < R; ++i)
      for (unsigned k = 0; k < S; ++k) {
        const auto x = value_type(detail::widen(a.lane[i * S + k]));
        for (unsigned j = 0; j < T; ++j)
          if constexpr (detail::same<tag, accfloat>::value)
            lane[i * T + j] += x * detail::widen(b.lane[k * T + j]);
          else
            lane[i * T + j] = value_type(uint64_t(lane[i * T + j]) + uint64_t(x) * uint64_t(value_type(b.lane[k * T + j])));
      }
  }
  template <typename U> vector<U, size_C> to_vector(unsigned shift = 0) const {
    vector<U, size_C> out;
    for (unsigned i = 0; i < size_C; ++i)
      if constexpr (detail::same<U, float>::value)
        out.lane[i] = lane[i];
      else if constexpr (detail::same<U, bfloat16>::value)
        out.lane[i] = detail::to_bfloat16(lane[i]);
      else
        out.lane[i] = detail::settle<U>(lane[i], shift);
    return out;
  }
};

} // namespace aie

extern "C" {
// What the power-up state is, and what went wrong since: for the simulator.
inline void tridsl_shim_power_up_now() {
  aie::state::rounding = aie::rounding_mode::floor;
  aie::state::saturation = aie::saturation_mode::none;
  tridsl_shim_failure = nullptr;
}
__attribute__((visibility("default"), used)) inline void tridsl_shim_power_up() { tridsl_shim_power_up_now(); }
__attribute__((visibility("default"), used)) inline const char *tridsl_shim_failed() { return tridsl_shim_failure; }
}

#endif
