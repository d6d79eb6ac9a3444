// What a row's own adapter adds to a product, in eight bits: adapters.h does the same in bfloat16.
//
// An adapter's numbers stand in one piece of memory, in the order in which a step reads them, so that
// as few bytes and pages as can be are read beside the base's. A is turned and rounded as the base's
// weights are (eight.h), and computed with the rows as they were rounded for those. What comes out is
// rounded to eight bits again, with a scale for each 32 ranks, and so is B. A row's result does not
// depend on the rows beside it.

#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "adapters.h"
#include "eight.h"
#include "memory.h"

namespace tunery {

constexpr int64_t kFour = 4;  // numbers of an instruction's lane: ranks come in fours

// Linears over one input, whose outputs stand side by side.
struct Sizes {
  int64_t inputs;
  std::vector<int64_t> outputs;
};

// One adapter's part of a product. Sixteen outputs at a time, as in `Eight`: A of all linears as one
// product, [outputs / 16][K / 32][512] with scales in half precision, raised; then for each linear its
// B, [N / 16][rank / 4][16][4], with bfloat16 scales, [N / 16][rank / 32][16].
struct EightPart {
  uint8_t* down;
  half* down_scales;
  std::vector<uint8_t*> up;
  std::vector<bf16*> up_scales;
};

struct EightAdapter {
  Memory memory;
  int64_t rank = 0;  // a whole number of fours
  std::vector<EightPart> parts;
};

inline int64_t in_whole(int64_t number, int64_t of) { return (number + of - 1) / of * of; }
inline int64_t scales_of(int64_t rank) { return (rank + kGroup - 1) / kGroup; }
inline int64_t low_outputs(const Sizes& sizes, int64_t rank) { return in_whole(sizes.outputs.size() * rank, 16); }

// Calls take(bytes), which returns a place, for all that an adapter of that rank has.
template <class Take>
std::vector<EightPart> laid_out(const std::vector<Sizes>& products, int64_t rank, Take take) {
  std::vector<EightPart> parts;
  for (const Sizes& sizes : products) {
    const int64_t low = low_outputs(sizes, rank);
    EightPart part;
    part.down = take(low * sizes.inputs);
    part.down_scales = reinterpret_cast<half*>(take(low * sizes.inputs / kGroup * sizeof(half)));
    for (int64_t outputs : sizes.outputs) {
      part.up.push_back(take(outputs * rank));
      part.up_scales.push_back(reinterpret_cast<bf16*>(take(outputs * scales_of(rank) * sizeof(bf16))));
    }
    parts.push_back(std::move(part));
  }
  return parts;
}

inline int64_t eight_adapter_bytes(const std::vector<Sizes>& products, int64_t rank) {
  int64_t bytes = 0;
  laid_out(products, in_whole(rank, kFour), [&](int64_t more) {
    bytes += in_whole(more, 64);
    return static_cast<uint8_t*>(nullptr);
  });
  return in_whole(bytes, kPage);
}

inline EightAdapter eight_adapter(const std::vector<Sizes>& products, int64_t rank) {
  EightAdapter made;
  made.memory = Memory(eight_adapter_bytes(products, rank));
  made.rank = in_whole(rank, kFour);
  uint8_t* next = made.memory.data();
  made.parts = laid_out(products, made.rank, [&](int64_t bytes) { return std::exchange(next, next + in_whole(bytes, 64)); });
  return made;
}

// The first `count` of 32 numbers as whole ones, 128 higher: the fours of output `lane` of sixteen.
inline void put_raised(__m512 a, __m512 b, int64_t count, float scale, int64_t lane, uint8_t* to) {
  const __m512 inverse = _mm512_set1_ps(scale > 0 ? 1 / scale : 0);
  alignas(64) int8_t whole[kGroup];
  _mm_store_si128((__m128i*)whole, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(a, inverse))));
  _mm_store_si128((__m128i*)(whole + 16), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(b, inverse))));
  for (int64_t i = 0; i < count; i++) to[i / kFour * 64 + lane * kFour + i % kFour] = uint8_t(std::max<int>(-127, whole[i]) + 128);
}

inline float largest(__m512 a, __m512 b) { return _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b))); }

// A, [r, K], of the linear `number` of a product, and B, [N, r]; both float32, contiguous.
inline void put_adapter(const EightAdapter& adapter, size_t product, size_t number, const at::Tensor& down, const at::Tensor& up) {
  const EightPart& part = adapter.parts[product];
  const int64_t r = down.size(0), K = down.size(1), N = up.size(0), groups = K / kGroup, rank = adapter.rank, own = scales_of(rank);
  const float* a = static_cast<const float*>(down.data_ptr());
  for (int64_t j = 0; j < r; j++) {
    const int64_t output = number * rank + j, lane = output % 16;
    for (int64_t g = 0; g < groups; g++, a += kGroup) {
      const __m512 by = _mm512_set1_ps(1.f / kGroup);
      __m512 first = _mm512_mul_ps(by, _mm512_loadu_ps(a)), last = _mm512_mul_ps(by, _mm512_loadu_ps(a + 16));
      turn(first, last);
      const half scale = half(std::min(largest(first, last) / 127 * kRaised, 65504.f));
      const int64_t at = output / 16 * groups + g;
      put_raised(first, last, kGroup, float(scale) / kRaised, lane, part.down + at * 512);
      part.down_scales[at * 16 + lane] = scale;
    }
  }
  const float* b = static_cast<const float*>(up.data_ptr());
  for (int64_t n = 0; n < N; n++, b += r)
    for (int64_t g = 0; g < own; g++) {
      const int64_t begin = g * kGroup, count = std::min(kGroup, r - begin);
      if (count <= 0) continue;
      const __mmask32 kept = count == kGroup ? ~0u : (1u << count) - 1;
      const __m512 first = _mm512_maskz_loadu_ps(kept & 0xFFFF, b + begin), last = _mm512_maskz_loadu_ps(kept >> 16, b + begin + 16);
      const bf16 scale = bf16(largest(first, last) / 127);
      put_raised(first, last, count, float(scale), n % 16, part.up[number] + (n / 16 * rank + begin) * 16);
      part.up_scales[number][(n / 16 * own + g) * 16 + n % 16] = scale;
    }
}

// y[r][0:16 * blocks] += low[r] B^T for R rows. The low numbers of a row stand `width` after the
// one's before.
template <int R>
void expand_eight(const int8_t* low, int64_t width, const float* scales, const int32_t* offsets, int64_t scales_width, const uint8_t* w, const bf16* by, int64_t rank, int64_t blocks, float* const* y) {
  const int64_t groups = scales_of(rank);
  for (int64_t b = 0; b < blocks; b++) {
    __m512 sums[R];
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) sums[r] = _mm512_loadu_ps(y[r] + b * 16);
    for (int64_t g = 0; g < groups; g++, by += 16) {
      __m512i whole[R];
#pragma GCC unroll 6
      for (int r = 0; r < R; r++) whole[r] = _mm512_set1_epi32(offsets[r * scales_width + g]);
      const int64_t last = std::min(rank, (g + 1) * kGroup);
      for (int64_t j = g * kGroup; j < last; j += kFour, w += 64) {
        const __m512i own = _mm512_loadu_si512(w);
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) {
          int32_t k;
          std::memcpy(&k, low + r * width + j, sizeof k);
          whole[r] = _mm512_dpbusd_epi32(whole[r], own, _mm512_set1_epi32(k));
        }
      }
      const __m512 scale = load(by);
#pragma GCC unroll 6
      for (int r = 0; r < R; r++)
        sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[r]), _mm512_mul_ps(scale, _mm512_set1_ps(scales[r * scales_width + g])), sums[r]);
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) _mm512_storeu_ps(y[r] + b * 16, sums[r]);
  }
}

using ExpandEight = void (*)(const int8_t*, int64_t, const float*, const int32_t*, int64_t, const uint8_t*, const bf16*, int64_t, int64_t, float* const*);
template <int... R>
constexpr std::array<ExpandEight, sizeof...(R)> expand_eight_table(std::integer_sequence<int, R...>) {
  return {expand_eight<R + 1>...};
}
constexpr auto kExpandEight = expand_eight_table(std::make_integer_sequence<int, kRowsAtOnce>());

// The adapters of one product for the rows of a step, which stand in the order of `groups`.
struct EightAdapted {
  const std::vector<EightAdapter>& adapters;
  const std::vector<Group>& groups;
  const Sizes& sizes;
  size_t number;  // of the product, in an adapter's parts
  int64_t width = 0, scales_width = 0;  // of a row's low numbers
  at::Tensor low, scales, offsets;

  EightAdapted(const std::vector<EightAdapter>& all, const std::vector<Group>& own, const Sizes& of, size_t product, int64_t rows)
      : adapters(all), groups(own), sizes(of), number(product) {
    int64_t rank = 0;
    for (const Group& g : groups)
      if (adapted(g)) rank = std::max(rank, adapters[g.place].rank);
    if (!rank) return;
    width = low_outputs(sizes, rank);
    scales_width = sizes.outputs.size() * scales_of(rank);
    low = at::empty({rows, width}, at::kChar);
    scales = at::empty({rows, scales_width}, at::kFloat);
    offsets = at::empty({rows, scales_width}, at::kInt);
  }

  bool any() const { return width > 0; }
  bool adapted(const Group& g) const { return g.place >= 0 && g.place < int64_t(adapters.size()) && adapters[g.place].rank; }

  // x A^T of a group's rows, rounded to eight bits.
  void reduce(const Group& g, const Rows& x) const {
    if (!adapted(g)) return;
    const EightAdapter& adapter = adapters[g.place];
    const EightPart& part = adapter.parts[number];
    const int64_t K = sizes.inputs, steps = K / kGroup, outputs = low_outputs(sizes, adapter.rank);
    const int8_t* whole = static_cast<const int8_t*>(x.whole.data_ptr()) + g.first * K;
    const float* by = static_cast<const float*>(x.scales.data_ptr()) + g.first * steps;
    const int32_t* back = static_cast<const int32_t*>(x.offsets.data_ptr()) + g.first * steps;
    alignas(64) float made[kRowsAtOnce * 32];
    std::vector<float> lows(g.count * outputs);
    for (int64_t first = 0; first < outputs;) {
      const int64_t count = outputs - first >= 32 ? 32 : 16;
      (count == 32 ? kMultiply : kMultiplyHalf)[g.count - 1](whole, by, back, K, part.down + first * K, part.down_scales + first * steps, made);
      for (int64_t r = 0; r < g.count; r++) std::copy(made + r * count, made + (r + 1) * count, lows.data() + r * outputs + first);
      first += count;
    }
    for (int64_t r = 0; r < g.count; r++) round(g.first + r, lows.data() + r * outputs, adapter.rank);
  }

  // Have the outputs from `first` to `last` of B on their way from memory.
  void fetch(int64_t first, int64_t last) const {
    each(first, last, [](const EightAdapter& adapter, const Group&, size_t, const uint8_t* up, const bf16* by, int64_t, int64_t count) {
      const char* numbers = reinterpret_cast<const char*>(up);
      for (int64_t i = 0; i < count * adapter.rank; i += 64) _mm_prefetch(numbers + i, _MM_HINT_T0);
      const char* scale = reinterpret_cast<const char*>(by);
      for (int64_t i = 0; i < count * scales_of(adapter.rank) * int64_t(sizeof(bf16)); i += 64) _mm_prefetch(scale + i, _MM_HINT_T0);
    });
  }

  // y += low B^T in the outputs from `first` to `last`, whole 32s; y is [T, outputs].
  void expand(float* y, int64_t outputs, int64_t first, int64_t last) const {
    each(first, last, [&](const EightAdapter& adapter, const Group& g, size_t linear, const uint8_t* up, const bf16* by, int64_t from, int64_t count) {
      float* out[kRowsAtOnce];
      for (int r = 0; r < g.count; r++) out[r] = y + g.rows[r] * outputs + from;
      const int64_t own = scales_of(adapter.rank);
      kExpandEight[g.count - 1](
          static_cast<const int8_t*>(low.data_ptr()) + g.first * width + linear * adapter.rank, width,
          static_cast<const float*>(scales.data_ptr()) + g.first * scales_width + linear * own,
          static_cast<const int32_t*>(offsets.data_ptr()) + g.first * scales_width + linear * own, scales_width,
          up, by, adapter.rank, count / 16, out);
    });
  }

 private:
  // A row's low numbers, in eight bits; what the weights were raised by is taken back.
  void round(int64_t row, const float* from, int64_t rank) const {
    int8_t* to = static_cast<int8_t*>(low.data_ptr()) + row * width;
    float* scale = static_cast<float*>(scales.data_ptr()) + row * scales_width;
    int32_t* offset = static_cast<int32_t*>(offsets.data_ptr()) + row * scales_width;
    for (size_t linear = 0; linear < sizes.outputs.size(); linear++)
      for (int64_t first = 0; first < rank; first += kGroup) {
        const int64_t count = std::min(kGroup, rank - first);
        const __mmask32 kept = count == kGroup ? ~0u : (1u << count) - 1;
        const __m512 a = _mm512_maskz_loadu_ps(kept & 0xFFFF, from), b = _mm512_maskz_loadu_ps(kept >> 16, from + 16);
        const float most = largest(a, b);
        const __m512 inverse = _mm512_set1_ps(most > 0 ? 127.f / most : 0.f);
        const __m512i c = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse)), d = _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse));
        _mm_mask_storeu_epi8(to, kept & 0xFFFF, _mm512_cvtsepi32_epi8(c));
        _mm_mask_storeu_epi8(to + 16, kept >> 16, _mm512_cvtsepi32_epi8(d));
        *scale++ = most / 127.f;
        *offset++ = -128 * _mm512_reduce_add_epi32(_mm512_add_epi32(c, d));
        from += count;
        to += count;
      }
  }

  // f(adapter, group, linear, its B there, the scales, first output, outputs) for each adapter and linear.
  template <class F>
  void each(int64_t first, int64_t last, F f) const {
    int64_t before = 0;
    for (size_t linear = 0; linear < sizes.outputs.size(); linear++) {
      const int64_t N = sizes.outputs[linear], from = std::max(first, before), to = std::min(last, before + N);
      if (from < to)
        for (const Group& g : groups)
          if (adapted(g)) {
            const EightAdapter& adapter = adapters[g.place];
            const EightPart& part = adapter.parts[number];
            const int64_t at = from - before;
            f(adapter, g, linear, part.up[linear] + at * adapter.rank, part.up_scales[linear] + at * scales_of(adapter.rank), from, to - from);
          }
      before += N;
    }
  }
};

}  // namespace tunery
