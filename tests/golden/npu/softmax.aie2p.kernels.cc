// softmax: kernels for AMD AI Engine (aie2p), written by tridsl. Not compiled by Peano and not run on an NPU by its authors.
#include <aie_api/aie.hpp>
#include <stdint.h>

template <typename T, unsigned N> inline aie::vector<T, N> product(const aie::vector<T, N> &a, const aie::vector<T, N> &b) {
  return aie::mul(a, b).template to_vector<T>();
}

// 1/x: the table's approximation and two steps of Newton's method; what the steps cannot follow (0, inf, NaN) is the table's answer.
template <unsigned N> inline aie::vector<float, N> reciprocal(const aie::vector<float, N> &x) {
  const auto one = aie::broadcast<float, N>(1.0f);
  const auto first = aie::inv(x);
  auto y = first;
  for (int step = 0; step < 2; ++step)
    y = aie::add(y, product(y, aie::sub(one, product(x, y))));
  return aie::select(y, first, aie::neq(y, y));
}

// The first 12 of a float's 24 digits; what is left has 12 as well (Veltkamp), so that products of halves are exact.
template <unsigned N> inline aie::vector<float, N> upper_half(const aie::vector<float, N> &x) {
  const auto large = product(x, aie::broadcast<float, N>(4097.0f));
  return aie::sub(large, aie::sub(large, x));
}

// a/b: a times 1/b, and what is missing of it: the rest a - q b is exact in halves (Dekker). Where that overflows, the first answer stays.
template <unsigned N> inline aie::vector<float, N> quotient(const aie::vector<float, N> &a, const aie::vector<float, N> &b) {
  const auto inverse = reciprocal(b);
  const auto q = product(a, inverse);
  const auto whole = product(q, b), q1 = upper_half(q), b1 = upper_half(b), q2 = aie::sub(q, q1), b2 = aie::sub(b, b1);
  const auto cut = aie::add(aie::add(aie::add(aie::sub(product(q1, b1), whole), product(q1, b2)), product(q2, b1)), product(q2, b2));
  const auto y = aie::add(q, product(aie::sub(aie::sub(a, whole), cut), inverse));
  return aie::select(q, y, aie::eq(aie::sub(y, y), aie::zeros<float, N>()));
}

// max and min of floats: NaN where either is NaN.
template <unsigned N> inline aie::vector<float, N> larger(const aie::vector<float, N> &a, const aie::vector<float, N> &b) {
  return aie::select(aie::max(a, b), aie::add(a, b), aie::neq(a, a) | aie::neq(b, b));
}

// 2^n * 2^f for a whole n in -126..127 and |f| <= 1/2: n goes to the exponent, a polynomial (fitted to the smallest relative error, 2e-9) gives 2^f.
template <unsigned N> inline aie::vector<float, N> power_of_two(const aie::vector<float, N> &whole, const aie::vector<float, N> &f) {
  auto p = aie::broadcast<float, N>(1.535336203e-04f);
  p = aie::add(product(p, f), aie::broadcast<float, N>(1.339887465e-03f));
  p = aie::add(product(p, f), aie::broadcast<float, N>(9.618437359e-03f));
  p = aie::add(product(p, f), aie::broadcast<float, N>(5.550332471e-02f));
  p = aie::add(product(p, f), aie::broadcast<float, N>(2.402264791e-01f));
  p = aie::add(product(p, f), aie::broadcast<float, N>(6.931472029e-01f));
  p = aie::add(product(p, f), aie::broadcast<float, N>(1.0f));
  // whole + 1.5 * 2^23 has n in its low bits
  const auto bits = aie::add(whole, aie::broadcast<float, N>(12582912.0f)).template cast_to<int32>();
  const auto exponent = aie::upshift(aie::add(aie::sub(bits, aie::broadcast<int32, N>(0x4b400000)), aie::broadcast<int32, N>(127)), 23);
  return product(p, exponent.template cast_to<float>());
}

// e^x: x = (n + f) ln 2, the product with ln 2 in two parts. Beyond the exponents' range in two steps, so that the last results are denormal or inf.
template <unsigned N> inline aie::vector<float, N> exponential(const aie::vector<float, N> &x) {
  const auto magic = aie::broadcast<float, N>(12582912.0f);
  const auto bounded = aie::min(aie::max(x, aie::broadcast<float, N>(-104.0f)), aie::broadcast<float, N>(89.0f));
  const auto n = aie::sub(aie::add(product(bounded, aie::broadcast<float, N>(1.442695041f)), magic), magic);
  auto rest = aie::sub(bounded, product(n, aie::broadcast<float, N>(6.931457520e-1f)));
  rest = aie::sub(rest, product(n, aie::broadcast<float, N>(1.428606820e-6f)));
  const auto f = product(rest, aie::broadcast<float, N>(1.442695041f));
  const auto near = aie::min(aie::max(n, aie::broadcast<float, N>(-126.0f)), aie::broadcast<float, N>(127.0f));
  const auto far = aie::sub(n, near);
  const auto y = product(power_of_two(near, f), power_of_two(far, aie::zeros<float, N>()));
  return aie::select(y, x, aie::neq(x, x));
}

extern "C" void softmax_0(const float *__restrict x_l1, float *__restrict m, float *__restrict e, float *__restrict r_sum, float *__restrict r, float *__restrict y_l1) {
  aie::set_rounding(aie::rounding_mode::conv_even);
  aie::set_saturation(aie::saturation_mode::none);
  for (int y_b0_i = 0; y_b0_i < 3; ++y_b0_i) {
    aie::vector<float, 16> m_acc_max;
    m_acc_max = aie::broadcast<float, 16>(-__builtin_inff());
    aie::vector<float, 16> m_n_part_max[1];
    m_n_part_max[0] = aie::broadcast<float, 16>(-__builtin_inff());
    for (int m_n_v = 0; m_n_v < 2; ++m_n_v) {
      m_n_part_max[0] = larger(m_n_part_max[0], aie::load_v<16>(x_l1 + ((m_n_v * 16) + (y_b0_i * 48))));
    }
    m_n_part_max[0] = aie::select(m_n_part_max[0], larger(m_n_part_max[0], aie::load_v<16>(x_l1 + ((y_b0_i * 48) + 32))), aie::mask<16>::from_uint64(0xffull));
    const auto lanes_12 = m_n_part_max[0];
    const auto lanes_12_nan = aie::broadcast<float, 16>(aie::reduce_add(aie::select(aie::zeros<float, 16>(), lanes_12, aie::neq(lanes_12, lanes_12))));
    m_acc_max = larger(m_acc_max, aie::select(aie::broadcast<float, 16>(aie::reduce_max(lanes_12)), lanes_12_nan, aie::neq(lanes_12_nan, lanes_12_nan)));
    m[0] = (m_acc_max).get(0);
    for (int e_n_v = 0; e_n_v < 2; ++e_n_v) {
      aie::store_v(e + (e_n_v * 16), exponential(aie::sub(aie::load_v<16>(x_l1 + ((e_n_v * 16) + (y_b0_i * 48))), aie::broadcast<float, 16>(m[0]))));
    }
    aie::store_v(e + 32, aie::select(aie::load_v<16>(e + 32), exponential(aie::sub(aie::load_v<16>(x_l1 + ((y_b0_i * 48) + 32)), aie::broadcast<float, 16>(m[0]))), aie::mask<16>::from_uint64(0xffull)));
    aie::vector<float, 16> r_sum_acc_sum;
    r_sum_acc_sum = aie::broadcast<float, 16>(0.0f);
    aie::vector<float, 16> r_sum_k_part_sum[1];
    r_sum_k_part_sum[0] = aie::broadcast<float, 16>(0.0f);
    for (int r_sum_k_v = 0; r_sum_k_v < 2; ++r_sum_k_v) {
      r_sum_k_part_sum[0] = aie::add(r_sum_k_part_sum[0], aie::load_v<16>(e + (r_sum_k_v * 16)));
    }
    r_sum_k_part_sum[0] = aie::select(r_sum_k_part_sum[0], aie::add(r_sum_k_part_sum[0], aie::load_v<16>(e + 32)), aie::mask<16>::from_uint64(0xffull));
    const auto lanes_28 = r_sum_k_part_sum[0];
    r_sum_acc_sum = aie::add(r_sum_acc_sum, aie::broadcast<float, 16>(aie::reduce_add(lanes_28)));
    r_sum[0] = (r_sum_acc_sum).get(0);
    r[0] = (quotient(aie::broadcast<float, 16>(1.0f), aie::broadcast<float, 16>(r_sum[0]))).get(0);
    for (int y_n_v = 0; y_n_v < 2; ++y_n_v) {
      aie::store_v(y_l1 + ((y_b0_i * 48) + (y_n_v * 16)), product(aie::load_v<16>(e + (y_n_v * 16)), aie::broadcast<float, 16>(r[0])));
    }
    aie::store_v(y_l1 + ((y_b0_i * 48) + 32), aie::select(aie::load_v<16>(y_l1 + ((y_b0_i * 48) + 32)), product(aie::load_v<16>(e + 32), aie::broadcast<float, 16>(r[0])), aie::mask<16>::from_uint64(0xffull)));
  }
}
