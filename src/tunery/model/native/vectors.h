// Sixteen numbers at a time: what the operations on AVX-512 with bfloat16 have in common.

#pragma once

#include <c10/util/BFloat16.h>
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace tunery {

using bf16 = c10::BFloat16;

inline __m512 load(const bf16* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
inline void store(bf16* p, __m512 v) {
  _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(v));
}
inline __m512bh pairs(const bf16* p) { return (__m512bh)_mm512_loadu_si512(p); }

// Two neighbours in every lane.
inline __m512bh twin(const bf16* p) {
  int32_t both;
  std::memcpy(&both, p, sizeof both);
  return (__m512bh)_mm512_set1_epi32(both);
}

// e^x by 2^n times a polynomial of the rest, off by less than 2e-7 of it.
inline __m512 exponential(__m512 x) {
  x = _mm512_max_ps(_mm512_min_ps(x, _mm512_set1_ps(88.f)), _mm512_set1_ps(-87.f));
  const __m512 z = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f));
  const __m512 whole = _mm512_roundscale_ps(z, 0);
  const __m512 rest = _mm512_mul_ps(_mm512_sub_ps(z, whole), _mm512_set1_ps(0.69314718f));
  __m512 p = _mm512_set1_ps(1.f / 720);
  for (float c : {1.f / 120, 1.f / 24, 1.f / 6, 0.5f, 1.f, 1.f})
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(c));
  return _mm512_scalef_ps(p, whole);
}

// Lane i is the sum over v[i]; each is summed in the same order, whatever its place.
inline __m512 sums_of(const __m512* v) {
  __m512 fours[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    const __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(v[4 * i], v[4 * i + 1]), _mm512_unpackhi_ps(v[4 * i], v[4 * i + 1]));
    const __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(v[4 * i + 2], v[4 * i + 3]), _mm512_unpackhi_ps(v[4 * i + 2], v[4 * i + 3]));
    const __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);
    fours[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(c, d)), _mm512_castpd_ps(_mm512_unpackhi_pd(c, d)));
  }
  const auto halves = [](__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
  };
  return halves(halves(fours[0], fours[1]), halves(fours[2], fours[3]));
}

// Rows become columns: sixteen by sixteen numbers of 32 bits.
inline void transpose(__m512i* r) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  // Now r[4 i + c] has, in its quarter q, column 4 q + c of the rows 4 i to 4 i + 3.
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    const __m512i low = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88), odd = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xDD);
    const __m512i high = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88), odder = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xDD);
    t[c] = _mm512_shuffle_i32x4(low, high, 0x88);
    t[8 + c] = _mm512_shuffle_i32x4(low, high, 0xDD);
    t[4 + c] = _mm512_shuffle_i32x4(odd, odder, 0x88);
    t[12 + c] = _mm512_shuffle_i32x4(odd, odder, 0xDD);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) r[i] = t[i];
}

// Two rows of 32 bfloat16 numbers as the pairs that a product over rows wants. The pairs stand in
// the order of `unpack`; `in_order` puts what was made of them right.
struct RowPairs {
  __m512bh low, high;
  RowPairs(__m512i first, __m512i second)
      : low((__m512bh)_mm512_unpacklo_epi16(first, second)),
        high((__m512bh)_mm512_unpackhi_epi16(first, second)) {}
};
struct InOrder {
  __m512 first, second;
  InOrder(__m512 low, __m512 high) {
    const __m512i front = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i back = _mm512_add_epi32(front, _mm512_set1_epi32(8));
    first = _mm512_permutex2var_ps(low, front, high);
    second = _mm512_permutex2var_ps(low, back, high);
  }
};

}  // namespace tunery
