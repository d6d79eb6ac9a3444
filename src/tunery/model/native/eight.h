// Products in eight bits: weights and rows as whole numbers of eight bits, with a scale for each 32.
//
// Half the memory to read, and twice the products of an instruction. Each 32 is turned first, weights
// and rows alike, which changes no product: a number that stands out is spread over all 32, and the
// scale needs not follow it (Ashkboos et al. 2024, QuaRot). A row's result depends on that row only:
// sums of whole numbers are exact, and the 32s are added in their order, however many rows there
// are. Where the processor has tiles, the weights are widened to bfloat16 for them, and not turned.

#pragma once

#include <ATen/ATen.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>
#include <utility>
#include <vector>

#include "vectors.h"

namespace tunery {

#ifdef __AMX_BF16__
struct alignas(64) TileConfig {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t columns[16] = {};
  uint8_t rows[16] = {};
};
inline bool tiles_allowed() {
  constexpr int request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM
  static const bool allowed = syscall(SYS_arch_prctl, request, tile_data) == 0;
  return allowed;
}
#else
inline bool tiles_allowed() { return false; }
#endif

constexpr int64_t kGroup = 32;  // numbers that share a scale
constexpr int64_t kMostTileRows = 64;  // of a product in tiles

// The matrix of `turned`, [32, 32]: its own inverse, but for a factor of 32 (Sylvester 1867).
inline at::Tensor turning() {
  at::Tensor made = at::ones({1, 1});
  while (made.size(0) < kGroup) made = at::cat({at::cat({made, made}, 1), at::cat({made, -made}, 1)}, 0);
  return made;
}

// Weights of sixteen outputs at a time, [N / 16][K / 32][32 * 16], and a scale for each output and
// 32, in half precision and raised by `kRaised`: the precision of halves ends at 6e-5. Without tiles
// a weight is kept 128 higher, without a sign, as [8 fours of k][16 outputs][4]; with them as it is,
// as [16 pairs of k][16 outputs][2].
struct Eight {
  at::Tensor weights, scales;
  int64_t outputs = 0, inputs = 0;
  bool defined() const { return weights.defined(); }
};

using half = c10::Half;
constexpr float kRaised = 1024;
inline __m512 load(const half* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }

// Groups of 32 as whole numbers, and the scales that give the least squared errors; [N, K / 32, 32].
//
// The largest number becomes 127. But many a base comes from four bits, as min + n * level with n
// from 0 to 15: sums and differences of 32 of those are whole numbers of levels, but for their sum,
// and a scale that divides a level has nothing to round. Scales are rounded before they are used.
inline std::pair<at::Tensor, at::Tensor> whole_numbers(const at::Tensor& groups) {
  const bool turns = !tiles_allowed();
  const at::Tensor turned = turns ? groups.matmul(turning()) / kGroup : groups;
  const auto with = [&](const at::Tensor& wanted) {
    const at::Tensor scale = (wanted.clamp(1e-10, 60) * kRaised).to(at::kHalf);
    const at::Tensor exact = scale.to(at::kFloat) / kRaised;
    const at::Tensor whole = (turned / exact).round_().clamp_(-127, 127);
    return std::make_tuple(whole, scale, (whole * exact).sub_(turned).square_().sum(2, true));
  };
  auto [whole, scale, error] = with(turned.abs().amax(2, true) / 127);
  const at::Tensor level = (groups.amax(2, true) - groups.amin(2, true)) / (15 * kGroup);
  for (int parts = 1; turns && parts <= 2; parts++) {
    const auto [other, its_scale, its_error] = with(level / parts);
    const at::Tensor better = its_error < error;
    whole = at::where(better, other, whole);
    scale = at::where(better, its_scale, scale);
    error = at::minimum(its_error, error);
  }
  return {whole, scale.squeeze(2)};
}

inline Eight eight_bit(const at::Tensor& weight) {
  constexpr int64_t outputs_at_once = 1024;  // what is made on the way is small
  const int64_t N = weight.size(0), K = weight.size(1), padded = (N + 31) / 32 * 32, together = tiles_allowed() ? 2 : 4;
  std::vector<at::Tensor> weights, scales;
  for (int64_t first = 0; first < padded; first += outputs_at_once) {
    const int64_t count = std::min(outputs_at_once, padded - first), kept = std::min(count, N - first);
    const at::Tensor part = at::constant_pad_nd(weight.narrow(0, first, kept).to(at::kFloat), {0, 0, 0, count - kept});
    const auto [whole, scale] = whole_numbers(part.view({count, K / kGroup, kGroup}));
    const at::Tensor numbers = tiles_allowed() ? whole.to(at::kChar) : (whole + 128).to(at::kByte);
    weights.push_back(numbers.view({count / 16, 16, K / kGroup, kGroup / together, together}).permute({0, 2, 3, 1, 4}).contiguous());
    scales.push_back(scale.view({count / 16, 16, K / kGroup}).permute({0, 2, 1}).contiguous());
  }
  Eight made;
  made.weights = at::cat(weights);
  made.scales = at::cat(scales);
  made.outputs = N;
  made.inputs = K;
  return made;
}

// ---- rows

// Sums and differences of all pairs at a distance of 16, 8, 4, 2 and 1 in turn: 32 numbers turned.
inline void turn(__m512& a, __m512& b) {
  const auto stage = [](__m512 v, __m512 swapped, __mmask16 last) {
    return _mm512_add_ps(swapped, _mm512_mask_sub_ps(v, last, _mm512_setzero_ps(), v));
  };
  const __m512 sum = _mm512_add_ps(a, b), difference = _mm512_sub_ps(a, b);
  a = sum;
  b = difference;
  for (__m512* v : {&a, &b}) {
    *v = stage(*v, _mm512_shuffle_f32x4(*v, *v, 0x4E), 0xFF00);
    *v = stage(*v, _mm512_shuffle_f32x4(*v, *v, 0xB1), 0xF0F0);
    *v = stage(*v, _mm512_permute_ps(*v, 0x4E), 0xCCCC);
    *v = stage(*v, _mm512_permute_ps(*v, 0xB1), 0xAAAA);
  }
}

// What products read of T rows of K numbers: in bfloat16, or turned and in eight bits. `offsets` takes back what the weights were raised by.
struct Rows {
  int64_t count, size;
  const int64_t* order;  // which of a product's rows each is; none if they are in its order
  at::Tensor plain, whole, scales, offsets;  // a scale makes up for what weights' are raised by

  Rows(int64_t rows, int64_t inputs, bool eight, const int64_t* of_rows = nullptr) : count(rows), size(inputs), order(of_rows) {
    if (!eight || tiles_allowed()) {
      plain = at::empty({rows, inputs}, at::kBFloat16);
      return;
    }
    whole = at::empty({rows, inputs}, at::kChar);
    scales = at::empty({rows, inputs / kGroup}, at::kFloat);
    offsets = at::empty({rows, inputs / kGroup}, at::kInt);
  }

  bf16* row(int64_t t) const { return static_cast<bf16*>(plain.data_ptr()) + t * size; }

  // Take a row: rounded to bfloat16, or turned and rounded to eight bits.
  void take(int64_t t, const float* from) const {
    if (!whole.defined()) {
      for (int64_t i = 0; i < size; i += 16) store(row(t) + i, _mm512_loadu_ps(from + i));
      return;
    }
    const int64_t groups = size / kGroup;
    int8_t* to = static_cast<int8_t*>(whole.data_ptr()) + t * size;
    float* by = static_cast<float*>(scales.data_ptr()) + t * groups;
    int32_t* offset = static_cast<int32_t*>(offsets.data_ptr()) + t * groups;
    for (int64_t g = 0; g < groups; g++, from += kGroup, to += kGroup) {
      __m512 a = _mm512_loadu_ps(from), b = _mm512_loadu_ps(from + 16);
      turn(a, b);
      const float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
      const __m512 inverse = _mm512_set1_ps(most > 0 ? 127.f / most : 0.f);
      const __m512i c = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse));
      const __m512i d = _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse));
      _mm_storeu_si128((__m128i*)to, _mm512_cvtsepi32_epi8(c));
      _mm_storeu_si128((__m128i*)(to + 16), _mm512_cvtsepi32_epi8(d));
      by[g] = most / (127.f * kRaised);
      offset[g] = -128 * _mm512_reduce_add_epi32(_mm512_add_epi32(c, d));
    }
  }
};

// ---- products without tiles

// R rows against 16 * C outputs, whose sums stay in registers: counts known here allow that.
template <int R, int C>
void multiply(const int8_t* x, const float* scales, const int32_t* offsets, int64_t K, const uint8_t* w, const half* by, float* out) {
  const int64_t groups = K / kGroup, next = groups * 512;
  __m512 sums[R][C];
#pragma GCC unroll 12
  for (int i = 0; i < R * C; i++) sums[i / C][i % C] = _mm512_setzero_ps();
  for (int64_t g = 0; g < groups; g++, w += 512) {
    __m512i whole[R][C];
#pragma GCC unroll 12
    for (int i = 0; i < R * C; i++) whole[i / C][i % C] = _mm512_set1_epi32(offsets[i / C * groups + g]);
#pragma GCC unroll 8
    for (int four = 0; four < 8; four++) {
      __m512i own[C];
#pragma GCC unroll 2
      for (int c = 0; c < C; c++) own[c] = _mm512_loadu_si512(w + c * next + four * 64);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        int32_t k;
        std::memcpy(&k, x + r * K + g * kGroup + four * 4, sizeof k);
        const __m512i all = _mm512_set1_epi32(k);
#pragma GCC unroll 2
        for (int c = 0; c < C; c++) whole[r][c] = _mm512_dpbusd_epi32(whole[r][c], own[c], all);
      }
    }
    __m512 own[C];
#pragma GCC unroll 2
    for (int c = 0; c < C; c++) own[c] = load(by + (c * groups + g) * 16);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const __m512 scale = _mm512_set1_ps(scales[r * groups + g]);
#pragma GCC unroll 2
      for (int c = 0; c < C; c++) sums[r][c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[r][c]), _mm512_mul_ps(own[c], scale), sums[r][c]);
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < R * C; i++) _mm512_storeu_ps(out + i * 16, sums[i / C][i % C]);
}

using Multiply = void (*)(const int8_t*, const float*, const int32_t*, int64_t, const uint8_t*, const half*, float*);
template <int C, int... R>
constexpr std::array<Multiply, sizeof...(R)> multiply_table(std::integer_sequence<int, R...>) {
  return {multiply<R + 1, C>...};
}
constexpr int64_t kRowsAtOnce = 6;
constexpr auto kMultiply = multiply_table<2>(std::make_integer_sequence<int, kRowsAtOnce>());
constexpr auto kMultiplyHalf = multiply_table<1>(std::make_integer_sequence<int, kRowsAtOnce>());

// ---- products in tiles

#ifdef __AMX_BF16__
// Sixteen pairs of k for sixteen outputs: bfloat16 numbers, laid out as a tile wants them.
inline void widen(const int8_t* from, const half* scales, bf16* to) {
  const __m512i twice_low = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  const __m512i twice_high = _mm512_add_epi32(twice_low, _mm512_set1_epi32(8));
  const __m512 all = _mm512_mul_ps(load(scales), _mm512_set1_ps(1 / kRaised));
  const __m512 low = _mm512_permutexvar_ps(twice_low, all);
  const __m512 high = _mm512_permutexvar_ps(twice_high, all);
  for (int pair = 0; pair < 16; pair++, from += 32, to += 32) {
    const __m256i both = _mm256_loadu_si256((const __m256i*)from);
    const __m512 first = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(both)));
    const __m512 last = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_extracti128_si256(both, 1)));
    const __m512bh made = _mm512_cvtne2ps_pbh(_mm512_mul_ps(last, high), _mm512_mul_ps(first, low));
    _mm512_storeu_si512(to, (__m512i)made);
  }
}

// Up to four tiles of rows against sixteen outputs.
inline void tile_block(const bf16* x, int64_t rows, int64_t K, const int8_t* weights, const half* scales, float* out) {
  const int64_t steps = K / kGroup;
  const int tiles = (rows + 15) / 16;
  TileConfig config;
  // Tiles 0-3 sum; 4 holds sixteen rows of x, 5 the last rows, 7 weights.
  const int64_t last_rows = rows - 16 * (tiles - 1);
  const int64_t heights[8] = {0, 0, 0, 0, 16, last_rows, 0, 16};
  for (int t = 0; t < 8; t++) {
    config.rows[t] = t < tiles ? (t + 1 < tiles ? 16 : last_rows) : heights[t];
    config.columns[t] = config.rows[t] ? 64 : 0;
  }
  asm volatile("" ::: "memory");  // the compiler is not told how much the next instruction reads
  _tile_loadconfig(&config);
  alignas(64) bf16 wide[512];
  _tile_zero(0);
  if (tiles > 1) _tile_zero(1);
  if (tiles > 2) _tile_zero(2);
  if (tiles > 3) _tile_zero(3);
  const int64_t stride = K * sizeof(bf16);
  for (int64_t step = 0; step < steps; step++) {
    _mm_prefetch((const char*)(weights + (step + 8) * 512), _MM_HINT_T0);
    widen(weights + step * 512, scales + step * 16, wide);
    asm volatile("" ::: "memory");  // nor that this one does
    _tile_loadd(7, wide, 64);
    const bf16* at = x + step * kGroup;
    if (tiles == 1) { _tile_loadd(5, at, stride); _tile_dpbf16ps(0, 5, 7); continue; }
    _tile_loadd(4, at, stride); _tile_dpbf16ps(0, 4, 7);
    if (tiles == 2) { _tile_loadd(5, at + 16 * K, stride); _tile_dpbf16ps(1, 5, 7); continue; }
    _tile_loadd(4, at + 16 * K, stride); _tile_dpbf16ps(1, 4, 7);
    if (tiles == 3) { _tile_loadd(5, at + 32 * K, stride); _tile_dpbf16ps(2, 5, 7); continue; }
    _tile_loadd(4, at + 32 * K, stride); _tile_dpbf16ps(2, 4, 7);
    _tile_loadd(5, at + 48 * K, stride); _tile_dpbf16ps(3, 5, 7);
  }
  constexpr int64_t width = 32 * sizeof(float);
  _tile_stored(0, out, width);
  if (tiles > 1) _tile_stored(1, out + 16 * 32, width);
  if (tiles > 2) _tile_stored(2, out + 32 * 32, width);
  if (tiles > 3) _tile_stored(3, out + 48 * 32, width);
  _tile_release();
}
#endif

// ---- a product

// y[:, c:c + 32] = x w^T + bias for c = 32 `columns`; y is [T, N].
inline void multiply_columns(const Rows& x, const Eight& w, const at::Tensor& bias, int64_t columns, float* y) {
  const int64_t T = x.count, K = w.inputs, N = w.outputs, steps = K / kGroup, first = columns * 32;
  const uint8_t* weights = static_cast<const uint8_t*>(w.weights.data_ptr()) + first * K;
  const half* scales = static_cast<const half*>(w.scales.data_ptr()) + first * steps;
  const __mmask32 kept = N - first >= 32 ? ~0u : (1u << (N - first)) - 1;  // the last may be fewer
  __m512 added[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  if (bias.defined()) {
    alignas(64) bf16 own[32] = {};
    std::memcpy(own, static_cast<const bf16*>(bias.data_ptr()) + first, std::min<int64_t>(32, N - first) * sizeof(bf16));
    added[0] = load(own);
    added[1] = load(own + 16);
  }
  alignas(64) float sums[kMostTileRows * 32];
  const auto finish = [&](int64_t t, const float* row) {
    float* out = y + (x.order ? x.order[t] : t) * N + first;
    _mm512_mask_storeu_ps(out, kept & 0xFFFF, _mm512_add_ps(_mm512_loadu_ps(row), added[0]));
    _mm512_mask_storeu_ps(out + 16, kept >> 16, _mm512_add_ps(_mm512_loadu_ps(row + 16), added[1]));
  };
#ifdef __AMX_BF16__
  if (tiles_allowed()) {
    for (int64_t half = 0; half < 2; half++)
      tile_block(x.row(0), T, K, (const int8_t*)weights + half * 16 * K, scales + half * 16 * steps, sums + half * 16);
    for (int64_t t = 0; t < T; t++) finish(t, sums + t * 32);
    return;
  }
#endif
  const int8_t* whole = static_cast<const int8_t*>(x.whole.data_ptr());
  const float* by = static_cast<const float*>(x.scales.data_ptr());
  const int32_t* offsets = static_cast<const int32_t*>(x.offsets.data_ptr());
  for (int64_t parts = (T + kRowsAtOnce - 1) / kRowsAtOnce, t = 0; parts; parts--) {
    const int64_t rows = (T - t + parts - 1) / parts;
    kMultiply[rows - 1](whole + t * K, by + t * steps, offsets + t * steps, K, weights, scales, sums);
    for (int64_t r = 0; r < rows; r++) finish(t + r, sums + r * 32);
    t += rows;
  }
}

}  // namespace tunery
