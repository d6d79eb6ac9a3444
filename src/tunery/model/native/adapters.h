// What a row's own adapter adds to a product: y += (x A^T) B (Hu et al. 2021, eq. 3).
//
// Rows with one adapter are computed together, at most eight at a time, so that its matrices are read
// once for all of them. A row's result does not depend on which rows those are.

#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "vectors.h"

namespace tunery {

constexpr int64_t kTogether = 8;  // rows

struct Adapter {  // of one linear: down [places, rank, K], up [places, rank, N]
  at::Tensor down, up;
};

// At most kTogether rows of one adapter, or of the base where `place` is -1. The first of them is the
// `first` of all in the order of groups.
struct Group {
  int32_t place;
  int count;
  int64_t first;
  int64_t rows[kTogether];
};

// All rows, those with one adapter side by side, in as few groups of at most `most` as can be, which
// are as even as can be.
inline std::vector<Group> grouped(const int32_t* places, int64_t count, int64_t most) {
  std::vector<int64_t> order(count);
  for (int64_t i = 0; i < count; i++) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return places[a] < places[b]; });
  std::vector<Group> groups;
  for (int64_t first = 0, end = 0; first < count; first = end) {
    const int32_t place = places[order[first]];
    while (end < count && places[order[end]] == place) end++;
    for (int64_t parts = (end - first + most - 1) / most; parts; parts--) {
      Group group{place, int((end - first + parts - 1) / parts), first, {}};
      std::copy_n(order.begin() + first, group.count, group.rows);
      first += group.count;
      groups.push_back(group);
    }
  }
  return groups;
}

// x A^T of R rows, as bfloat16: low[r][j]. Sixteen sums at once: of 16 / R ranks.
template <int R>
void reduce_rank(const bf16* const* x, const bf16* down, int64_t K, int64_t rank, bf16* const* low) {
  constexpr int ranks = 16 / R;
  for (int64_t first = 0; first < rank; first += ranks) {
    const bf16* w[ranks];
    for (int j = 0; j < ranks; j++) w[j] = down + std::min(first + j, rank - 1) * K;
    __m512 sums[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) sums[i] = _mm512_setzero_ps();
    for (int64_t k = 0; k < K; k += 32) {
      __m512bh own[R];
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) own[r] = pairs(x[r] + k);
#pragma GCC unroll 16
      for (int j = 0; j < ranks; j++) {
        const __m512bh v = pairs(w[j] + k);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) sums[r * ranks + j] = _mm512_dpbf16_ps(sums[r * ranks + j], v, own[r]);
      }
    }
    alignas(64) bf16 made[16];
    store(made, sums_of(sums));
    const int64_t count = std::min<int64_t>(ranks, rank - first);
    for (int r = 0; r < R; r++) std::memcpy(low[r] + first, made + r * ranks, count * sizeof(bf16));
  }
  if (rank % 2)
    for (int r = 0; r < R; r++) low[r][rank] = bf16(0.f);
}

// y[r][n] += low[r] B for R rows and the outputs from `first` to `last`, whole 32s.
template <int R>
void expand_rank(const bf16* const* low, const bf16* up, int64_t N, int64_t rank, int64_t first, int64_t last, float* const* y) {
  for (int64_t n = first; n < last; n += 32) {
    __m512 sums[R][2];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    for (int64_t j = 0; j < rank; j += 2) {
      const __m512i even = _mm512_loadu_si512(up + j * N + n);
      const __m512i odd = j + 1 < rank ? _mm512_loadu_si512(up + (j + 1) * N + n) : _mm512_setzero_si512();
      const RowPairs both(even, odd);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        const __m512bh own = twin(low[r] + j);
        sums[r][0] = _mm512_dpbf16_ps(sums[r][0], both.low, own);
        sums[r][1] = _mm512_dpbf16_ps(sums[r][1], both.high, own);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const InOrder made(sums[r][0], sums[r][1]);
      _mm512_storeu_ps(y[r] + n, _mm512_add_ps(_mm512_loadu_ps(y[r] + n), made.first));
      _mm512_storeu_ps(y[r] + n + 16, _mm512_add_ps(_mm512_loadu_ps(y[r] + n + 16), made.second));
    }
  }
}

using Expand = void (*)(const bf16* const*, const bf16*, int64_t, int64_t, int64_t, int64_t, float* const*);
template <int... R>
constexpr std::array<Expand, sizeof...(R)> expand_table(std::integer_sequence<int, R...>) {
  return {expand_rank<R + 1>...};
}
constexpr auto kExpand = expand_table(std::make_integer_sequence<int, kTogether>());

// The adapters of one product, whose outputs stand side by side, for the rows of a step.
struct Adapted {
  const std::vector<Adapter>& adapters;
  const std::vector<Group>& groups;
  const int32_t* ranks;
  int64_t width;  // of `low`: an even number for each adapter
  at::Tensor low;  // [T, adapters * width]

  Adapted(const std::vector<Adapter>& all, const std::vector<Group>& own, const int32_t* of_places, int64_t rows)
      : adapters(all), groups(own), ranks(of_places), width(0) {
    for (const Group& g : groups)
      if (g.place >= 0) width = std::max<int64_t>(width, (ranks[g.place] + 1) / 2 * 2);
    if (width) low = at::empty({rows, int64_t(adapters.size()) * width}, at::kBFloat16);
  }

  bool any() const { return width > 0; }

  // x A^T of a group's rows; x is [T, K].
  void reduce(const Group& g, const bf16* x, int64_t K) const {
    if (g.place < 0) return;
    for (size_t a = 0; a < adapters.size(); a++) {
      const at::Tensor& down = adapters[a].down;
      const bf16* own = static_cast<const bf16*>(down.data_ptr()) + g.place * down.size(1) * K;
      const bf16* in[kTogether];
      bf16* out[kTogether];
      for (int r = 0; r < kTogether; r++) {
        const int64_t row = g.rows[std::min(r, g.count - 1)];
        in[r] = x + row * K;
        out[r] = place_of(row, a);
      }
      const auto call = g.count == 1   ? reduce_rank<1>
                        : g.count == 2 ? reduce_rank<2>
                        : g.count <= 4 ? reduce_rank<4>
                                       : reduce_rank<8>;
      call(in, own, K, ranks[g.place], out);
    }
  }

  // y += low B in the outputs from `first` to `last`, whole 32s; y is [T, outputs].
  void expand(float* y, int64_t outputs, int64_t first, int64_t last) const {
    int64_t before = 0;
    for (size_t a = 0; a < adapters.size(); a++) {
      const at::Tensor& up = adapters[a].up;
      const int64_t N = up.size(2), from = std::max(first, before) - before, to = std::min(last, before + N) - before;
      if (from < to)
        for (const Group& g : groups)
          if (g.place >= 0) expand_group(g, a, static_cast<const bf16*>(up.data_ptr()) + g.place * up.size(1) * N, N, from, to, y + before, outputs);
      before += N;
    }
  }

 private:
  bf16* place_of(int64_t row, size_t adapter) const {
    return static_cast<bf16*>(low.data_ptr()) + (row * adapters.size() + adapter) * width;
  }

  void expand_group(const Group& g, size_t a, const bf16* up, int64_t N, int64_t from, int64_t to, float* y, int64_t outputs) const {
    const bf16* in[kTogether];
    float* out[kTogether];
    for (int r = 0; r < g.count; r++) {
      in[r] = place_of(g.rows[r], a);
      out[r] = y + g.rows[r] * outputs;
    }
    kExpand[g.count - 1](in, up, N, ranks[g.place], from, to, out);
  }
};

}  // namespace tunery
