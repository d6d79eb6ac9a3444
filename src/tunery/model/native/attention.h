// Attention of queries over the keys of one slot: softmax(q k^T) v (Vaswani et al. 2017, eq. 1).
//
// A query's result does not depend on the queries beside it: its keys are taken in their order,
// sixteen at a time, from the first one on.

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "vectors.h"

namespace tunery {

// scores[q][0:16] = queries[q] . keys, for Q queries; `columns` has the keys' pairs, [D / 2][16].
template <int Q>
void score(const bf16* const* queries, const __m512i* columns, int64_t D, float* scores, int64_t width) {
  __m512 sums[Q];
#pragma GCC unroll 8
  for (int q = 0; q < Q; q++) sums[q] = _mm512_setzero_ps();
  for (int64_t d = 0; d < D; d += 2) {
    const __m512bh column = (__m512bh)_mm512_load_si512(columns + d / 2);
#pragma GCC unroll 8
    for (int q = 0; q < Q; q++) sums[q] = _mm512_dpbf16_ps(sums[q], column, twin(queries[q] + d));
  }
#pragma GCC unroll 8
  for (int q = 0; q < Q; q++) _mm512_storeu_ps(scores + q * width, sums[q]);
}

// out[q] = weights[q] values * by[q] for Q queries over `count` keys, 32 numbers of a head at once.
template <int Q>
void mix(const bf16* weights, int64_t width, const bf16* values, int64_t count, int64_t D, const float* by, float* const* out) {
  for (int64_t d = 0; d < D; d += 32) {
    const __mmask32 kept = D - d >= 32 ? ~0u : (1u << (D - d)) - 1;
    __m512 sums[Q][2];
#pragma GCC unroll 4
    for (int q = 0; q < Q; q++) sums[q][0] = sums[q][1] = _mm512_setzero_ps();
    for (int64_t j = 0; j < count; j += 2) {
      const bf16* at = values + j * D + d;
      const __m512i even = _mm512_maskz_loadu_epi16(kept, at);
      const __m512i odd = _mm512_maskz_loadu_epi16(j + 1 < count ? kept : 0, at + D);
      const RowPairs both(even, odd);
#pragma GCC unroll 4
      for (int q = 0; q < Q; q++) {
        const __m512bh own = twin(weights + q * width + j);
        sums[q][0] = _mm512_dpbf16_ps(sums[q][0], both.low, own);
        sums[q][1] = _mm512_dpbf16_ps(sums[q][1], both.high, own);
      }
    }
#pragma GCC unroll 4
    for (int q = 0; q < Q; q++) {
      const InOrder made(sums[q][0], sums[q][1]);
      const __m512 scale = _mm512_set1_ps(by[q]);
      _mm512_mask_storeu_ps(out[q] + d, kept & 0xFFFF, _mm512_mul_ps(made.first, scale));
      _mm512_mask_storeu_ps(out[q] + d + 16, kept >> 16, _mm512_mul_ps(made.second, scale));
    }
  }
}

using Score = void (*)(const bf16* const*, const __m512i*, int64_t, float*, int64_t);
using Mix = void (*)(const bf16*, int64_t, const bf16*, int64_t, int64_t, const float*, float* const*);
template <int... Q>
constexpr std::array<Score, sizeof...(Q)> score_table(std::integer_sequence<int, Q...>) {
  return {score<Q + 1>...};
}
template <int... Q>
constexpr std::array<Mix, sizeof...(Q)> mix_table(std::integer_sequence<int, Q...>) {
  return {mix<Q + 1>...};
}
constexpr int64_t kScored = 8, kMixed = 4;  // queries at once
constexpr auto kScore = score_table(std::make_integer_sequence<int, kScored>());
constexpr auto kMix = mix_table(std::make_integer_sequence<int, kMixed>());
constexpr int64_t kQueries = 24;  // of one call
constexpr int64_t kMostHead = 256;

struct Attention {
  std::vector<float> scores;
  std::vector<bf16> weights;

  // out[q] for at most kQueries queries; query q sees the first counts[q] keys. Keys and values are
  // [context, D], and a multiple of sixteen keys can be read.
  void operator()(const bf16* const* queries, const int64_t* counts, int64_t n, const bf16* keys, const bf16* values, int64_t D, float* const* out) {
    const int64_t longest = *std::max_element(counts, counts + n), width = (longest + 15) & ~15;
    scores.resize(n * width);
    weights.resize(n * width);
    alignas(64) __m512i columns[kMostHead / 2];
    for (int64_t j = 0; j < longest; j += 16) {
      for (int64_t d = 0; d < D; d += 32) {
        const __mmask16 kept = D - d >= 32 ? 0xFFFF : (1u << (D - d) / 2) - 1;
        for (int64_t i = 0; i < 16; i++) columns[d / 2 + i] = _mm512_maskz_loadu_epi32(kept, keys + (j + i) * D + d);
        transpose(columns + d / 2);
      }
      for (int64_t q = 0; q < n; q += kScored)
        kScore[std::min(kScored, n - q) - 1](queries + q, columns, D, scores.data() + q * width + j, width);
    }
    float by[kQueries];
    for (int64_t q = 0; q < n; q++) by[q] = softmax(scores.data() + q * width, counts[q], width, weights.data() + q * width);
    for (int64_t q = 0; q < n; q += kMixed)
      kMix[std::min(kMixed, n - q) - 1](weights.data() + q * width, width, values, longest, D, by + q, out + q);
  }

 private:
  // e^(score - the highest) of the first `count`, zeros behind them; returns one over their sum.
  static float softmax(float* scores, int64_t count, int64_t width, bf16* weights) {
    const int64_t padded = (count + 15) & ~15;
    for (int64_t j = count; j < padded; j++) scores[j] = -INFINITY;
    __m512 most = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (int64_t j = 0; j < padded; j += 16) most = _mm512_max_ps(most, _mm512_loadu_ps(scores + j));
    const __m512 highest = _mm512_set1_ps(_mm512_reduce_max_ps(most));
    for (int64_t j = 0; j < padded; j += 16) {
      __m512 e = exponential(_mm512_sub_ps(_mm512_loadu_ps(scores + j), highest));
      if (j + 16 > count) e = _mm512_maskz_mov_ps((1u << (count - j)) - 1, e);
      sum = _mm512_add_ps(sum, e);
      store(weights + j, e);
    }
    std::fill(weights + padded, weights + width, bf16(0.f));
    return 1.f / _mm512_reduce_add_ps(sum);
  }
};

}  // namespace tunery
