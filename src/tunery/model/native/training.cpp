// What stands between the products of a training step, forward and backward: see model/operations.py,
// which computes the same in torch.
//
// Needs AVX-512 with bfloat16. Every row is computed by one thread and in one order, so that bits
// depend on no number of threads. Widths are multiples of 16, a head's of 32; the caller checks.
// Axes: T tokens, C hidden size, H query heads, K key/value heads, G = H / K, D head size, V vocabulary.
// A packed row has B sequences, L longest; P tokens in front of it are the beginning of all, S = P + L.

#include <cmath>
#include <limits>

#include "pieces.h"
#include "vectors.h"

using namespace tunery;

namespace {

constexpr int64_t kRows = 16;

__mmask16 first(int64_t n) { return n >= 16 ? __mmask16(0xFFFF) : __mmask16((1u << n) - 1); }
__m512 load(const bf16* p, __mmask16 some) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
void store(bf16* p, __mmask16 some, __m512 v) {
  _mm256_mask_storeu_epi16(p, some, (__m256i)_mm512_cvtneps_pbh(v));
}
using tunery::load;
using tunery::store;

__m512 sigmoid(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.f);
  return _mm512_div_ps(one, _mm512_add_ps(one, exponential(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

// A head turned by the angles of its place, or back with `back`; a null `cos` leaves it as it is.
struct Turn {
  const float *cos, *sin;
  int64_t half;
  bool back;
  void operator()(int64_t t, __m512 a, __m512 b, int64_t i, __m512& to_a, __m512& to_b) const {
    const __m512 c = _mm512_loadu_ps(cos + t * half + i);
    __m512 s = _mm512_loadu_ps(sin + t * half + i);
    if (back) s = _mm512_sub_ps(_mm512_setzero_ps(), s);
    to_a = _mm512_fnmadd_ps(b, s, _mm512_mul_ps(a, c));
    to_b = _mm512_fmadd_ps(a, s, _mm512_mul_ps(b, c));
  }
  void copy(int64_t t, const bf16* from, bf16* to) const {
    for (int64_t i = 0; i < half; i += 16) {
      __m512 a, b;
      (*this)(t, load(from + i), load(from + half + i), i, a, b);
      store(to + i, a);
      store(to + half + i, b);
    }
  }
};

}  // namespace

extern "C" {

// sum = x + y, normed = sum / rms(sum) * weight; by [T] is 1 / rms. Without y, sum is x and not written.
void add_norm(int threads, int64_t T, int64_t C, const float* x, const bf16* y, const float* weight, float eps,
              float* sum, bf16* normed, float* by) {
  in_pieces_on(threads, T, kRows, [&](int64_t from, int64_t to) {
    for (int64_t t = from; t < to; t++) {
      const float* row = x + t * C;
      __m512 squares = _mm512_setzero_ps();
      for (int64_t i = 0; i < C; i += 16) {
        __m512 v = _mm512_loadu_ps(row + i);
        if (y) {
          v = _mm512_add_ps(v, load(y + t * C + i));
          _mm512_storeu_ps(sum + t * C + i, v);
        }
        squares = _mm512_fmadd_ps(v, v, squares);
      }
      if (y) row = sum + t * C;
      const float scale = 1.f / std::sqrt(_mm512_reduce_add_ps(squares) / float(C) + eps);
      by[t] = scale;
      for (int64_t i = 0; i < C; i += 16)
        store(normed + t * C + i, _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(row + i), _mm512_set1_ps(scale)),
                                                _mm512_loadu_ps(weight + i)));
    }
  });
}

// With n = x / rms: found = (g w - n mean(g w n)) / rms + passed. `passed` may be null, and so may
// `rounded`, found in bfloat16.
void add_norm_backward(int threads, int64_t T, int64_t C, const bf16* g, const float* passed, const float* x,
                       const float* weight, const float* by, float* found, bf16* rounded) {
  in_pieces_on(threads, T, kRows, [&](int64_t from, int64_t to) {
    for (int64_t t = from; t < to; t++) {
      const int64_t row = t * C;
      const __m512 scale = _mm512_set1_ps(by[t]);
      __m512 sum = _mm512_setzero_ps();
      for (int64_t i = 0; i < C; i += 16) {
        const __m512 wanted = _mm512_mul_ps(load(g + row + i), _mm512_loadu_ps(weight + i));
        sum = _mm512_fmadd_ps(wanted, _mm512_mul_ps(_mm512_loadu_ps(x + row + i), scale), sum);
      }
      const __m512 along = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / float(C));
      for (int64_t i = 0; i < C; i += 16) {
        const __m512 wanted = _mm512_mul_ps(load(g + row + i), _mm512_loadu_ps(weight + i));
        const __m512 n = _mm512_mul_ps(_mm512_loadu_ps(x + row + i), scale);
        __m512 v = _mm512_mul_ps(_mm512_fnmadd_ps(n, along, wanted), scale);
        if (passed) v = _mm512_add_ps(v, _mm512_loadu_ps(passed + row + i));
        _mm512_storeu_ps(found + row + i, v);
        if (rounded) store(rounded + row + i, v);
      }
    }
  });
}

// silu(gate) * up of [T, gate and up].
void gated(int threads, int64_t T, int64_t N, const bf16* made, bf16* out) {
  in_pieces_on(threads, T, kRows, [&](int64_t from, int64_t to) {
    for (int64_t t = from; t < to; t++) {
      const bf16 *gate = made + t * 2 * N, *up = gate + N;
      for (int64_t i = 0; i < N; i += 16) {
        const __m512 z = load(gate + i);
        store(out + t * N + i, _mm512_mul_ps(_mm512_mul_ps(z, sigmoid(z)), load(up + i)));
      }
    }
  });
}

void gated_backward(int threads, int64_t T, int64_t N, const bf16* g, const bf16* made, bf16* found) {
  in_pieces_on(threads, T, kRows, [&](int64_t from, int64_t to) {
    const __m512 one = _mm512_set1_ps(1.f);
    for (int64_t t = from; t < to; t++) {
      const bf16 *gate = made + t * 2 * N, *up = gate + N;
      bf16 *to_gate = found + t * 2 * N, *to_up = to_gate + N;
      for (int64_t i = 0; i < N; i += 16) {
        const __m512 z = load(gate + i), s = sigmoid(z), wanted = load(g + t * N + i);
        store(to_up + i, _mm512_mul_ps(wanted, _mm512_mul_ps(z, s)));
        // silu' = s (1 + z (1 - s))
        const __m512 slope = _mm512_mul_ps(s, _mm512_fmadd_ps(z, _mm512_sub_ps(one, s), one));
        store(to_gate + i, _mm512_mul_ps(_mm512_mul_ps(wanted, load(up + i)), slope));
      }
    }
  });
}

// Queries [B, K, G, L, D], keys and values [B, K, S, D] of sequences whose own tokens stand from
// starts[b] on, lengths[b] of them, and whose beginning are the row's first P tokens. Queries and keys
// are turned. What is behind a sequence's end is zero.
void arrange(int threads, int64_t B, int64_t L, int64_t P, int64_t H, int64_t K, int64_t D, const int64_t* starts,
             const int64_t* lengths, const bf16* qkv, const float* cos, const float* sin, bf16* query, bf16* key,
             bf16* value) {
  const int64_t G = H / K, width = (H + 2 * K) * D, S = P + L;
  const Turn turn{cos, sin, D / 2, false};
  in_pieces_on(threads, B * K, 1, [&](int64_t from, int64_t to) {
    for (int64_t n = from; n < to; n++) {
      const int64_t b = n / K, k = n % K;
      for (int64_t s = 0; s < S; s++) {
        const int64_t i = s - P, t = i < 0 ? s : starts[b] + i;
        if (i >= lengths[b]) {
          std::memset(key + (n * S + s) * D, 0, D * sizeof(bf16));
          std::memset(value + (n * S + s) * D, 0, D * sizeof(bf16));
          for (int64_t g = 0; g < G; g++) std::memset(query + ((n * G + g) * L + i) * D, 0, D * sizeof(bf16));
          continue;
        }
        const bf16* row = qkv + t * width;
        turn.copy(t, row + (H + k) * D, key + (n * S + s) * D);
        std::memcpy(value + (n * S + s) * D, row + (H + K + k) * D, D * sizeof(bf16));
        if (i < 0) continue;
        for (int64_t g = 0; g < G; g++) turn.copy(t, row + (k * G + g) * D, query + ((n * G + g) * L + i) * D);
      }
    }
  });
}

// The gradient of a row [T, (H + 2 K) D] from those that `arrange` made of it: of the sequences, and,
// with P, of the beginning attended by itself (first_*). owners[t] is a token's sequence, B for the
// beginning, -1 for none; places[t] its place among its own.
void arrange_backward(int threads, int64_t T, int64_t B, int64_t L, int64_t P, int64_t H, int64_t K, int64_t D,
                      const int64_t* owners, const int64_t* places, const float* cos, const float* sin,
                      const bf16* query, const bf16* key, const bf16* value, const bf16* first_query,
                      const bf16* first_key, const bf16* first_value, bf16* found) {
  const int64_t width = (H + 2 * K) * D, S = P + L, half = D / 2;
  const Turn turn{cos, sin, half, true};
  in_pieces_on(threads, T, kRows, [&](int64_t from, int64_t to) {
    for (int64_t t = from; t < to; t++) {
      bf16* row = found + t * width;
      const int64_t b = owners[t], i = places[t];
      if (b < 0) {
        std::memset(row, 0, width * sizeof(bf16));
        continue;
      }
      for (int64_t h = 0; h < H; h++)
        turn.copy(t, b < B ? query + ((b * H + h) * L + i) * D : first_query + (h * P + i) * D, row + h * D);
      for (int64_t k = 0; k < K; k++) {
        bf16 *to_key = row + (H + k) * D, *to_value = row + (H + K + k) * D;
        if (b < B) {
          const int64_t at = ((b * K + k) * S + P + i) * D;
          turn.copy(t, key + at, to_key);
          std::memcpy(to_value, value + at, D * sizeof(bf16));
          continue;
        }
        for (int64_t j = 0; j < half; j += 16) {  // what all sequences say of their beginning
          const bf16 *own_key = first_key + (k * P + i) * D + j, *own_value = first_value + (k * P + i) * D + j;
          __m512 ka = load(own_key), kb = load(own_key + half), va = load(own_value), vb = load(own_value + half);
          for (int64_t s = 0; s < B; s++) {
            const int64_t at = ((s * K + k) * S + i) * D + j;
            ka = _mm512_add_ps(ka, load(key + at));
            kb = _mm512_add_ps(kb, load(key + at + half));
            va = _mm512_add_ps(va, load(value + at));
            vb = _mm512_add_ps(vb, load(value + at + half));
          }
          __m512 a, z;
          turn(t, ka, kb, j, a, z);
          store(to_key + j, a);
          store(to_key + half + j, z);
          store(to_value + j, va);
          store(to_value + half + j, vb);
        }
      }
    }
  });
}

// Heads [B, H, L, D] and, of the beginning, [H, P, D], as a row [T, H D]; what belongs to none is zero.
void collect(int threads, int64_t T, int64_t B, int64_t L, int64_t P, int64_t H, int64_t D, const int64_t* owners,
             const int64_t* places, const bf16* heads, const bf16* first_heads, bf16* row) {
  in_pieces_on(threads, T, kRows, [&](int64_t from, int64_t to) {
    for (int64_t t = from; t < to; t++) {
      const int64_t b = owners[t], i = places[t];
      for (int64_t h = 0; h < H; h++) {
        bf16* out = row + (t * H + h) * D;
        if (b < 0)
          std::memset(out, 0, D * sizeof(bf16));
        else
          std::memcpy(out, b < B ? heads + ((b * H + h) * L + i) * D : first_heads + (h * P + i) * D, D * sizeof(bf16));
      }
    }
  });
}

// The inverse, for sequences as in `arrange`: a row [T, H D] as heads [B, H, L, D].
void distribute(int threads, int64_t B, int64_t L, int64_t H, int64_t D, const int64_t* starts, const int64_t* lengths,
                const bf16* row, bf16* heads) {
  in_pieces_on(threads, B * H, 1, [&](int64_t from, int64_t to) {
    for (int64_t n = from; n < to; n++) {
      const int64_t b = n / H, h = n % H, own = lengths[b];
      for (int64_t i = 0; i < own; i++)
        std::memcpy(heads + (n * L + i) * D, row + ((starts[b] + i) * H + h) * D, D * sizeof(bf16));
      std::memset(heads + (n * L + own) * D, 0, (L - own) * D * sizeof(bf16));
    }
  });
}

// softmax(scale * scores) of [N, L, P + L] in place: query i sees the keys up to P + i.
void causal_softmax(int threads, int64_t N, int64_t L, int64_t P, float scale, bf16* scores) {
  const int64_t S = P + L;
  in_pieces_on(threads, N * L, 64, [&](int64_t from, int64_t to) {
    const __m512 lowest = _mm512_set1_ps(-std::numeric_limits<float>::infinity()), by = _mm512_set1_ps(scale);
    for (int64_t r = from; r < to; r++) {
      bf16* row = scores + r * S;
      const int64_t seen = P + r % L + 1;
      __m512 most = lowest;
      for (int64_t i = 0; i < seen; i += 16) {
        const __mmask16 some = first(seen - i);
        most = _mm512_mask_max_ps(most, some, most, load(row + i, some));
      }
      const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(most));
      __m512 sum = _mm512_setzero_ps();
      for (int64_t i = 0; i < seen; i += 16) {
        const __mmask16 some = first(seen - i);
        const __m512 e = exponential(_mm512_mul_ps(_mm512_sub_ps(load(row + i, some), top), by));
        sum = _mm512_mask_add_ps(sum, some, sum, e);
      }
      const __m512 share = _mm512_set1_ps(1.f / _mm512_reduce_add_ps(sum));
      for (int64_t i = 0; i < seen; i += 16) {
        const __mmask16 some = first(seen - i);
        const __m512 e = exponential(_mm512_mul_ps(_mm512_sub_ps(load(row + i, some), top), by));
        store(row + i, some, _mm512_mul_ps(e, share));
      }
      std::memset(row + seen, 0, (S - seen) * sizeof(bf16));
    }
  });
}

// The scores' gradient, scale * p (g - sum(p g)), in the place of the probabilities' gradient g.
void causal_softmax_backward(int threads, int64_t N, int64_t L, int64_t P, float scale, const bf16* probabilities,
                             bf16* gradient) {
  const int64_t S = P + L;
  in_pieces_on(threads, N * L, 64, [&](int64_t from, int64_t to) {
    for (int64_t r = from; r < to; r++) {
      const bf16* p = probabilities + r * S;
      bf16* g = gradient + r * S;
      const int64_t seen = P + r % L + 1;
      __m512 sum = _mm512_setzero_ps();
      for (int64_t i = 0; i < seen; i += 16) {
        const __mmask16 some = first(seen - i);
        sum = _mm512_fmadd_ps(load(p + i, some), load(g + i, some), sum);
      }
      const __m512 along = _mm512_set1_ps(_mm512_reduce_add_ps(sum)), by = _mm512_set1_ps(scale);
      for (int64_t i = 0; i < seen; i += 16) {
        const __mmask16 some = first(seen - i);
        const __m512 v = _mm512_mul_ps(load(p + i, some), _mm512_sub_ps(load(g + i, some), along));
        store(g + i, some, _mm512_mul_ps(v, by));
      }
      std::memset(g + seen, 0, (S - seen) * sizeof(bf16));
    }
  });
}

// log softmax(logits)[target] of each row of [N, V], and whether the target is the first of the
// highest; with `gradient`, onehot - softmax in the place of the logits.
void log_probabilities(int threads, int64_t N, int64_t V, bool gradient, const int64_t* targets, bf16* logits,
                       float* scores, bool* correct) {
  in_pieces_on(threads, N, 4, [&](int64_t from, int64_t to) {
    for (int64_t n = from; n < to; n++) {
      bf16* row = logits + n * V;
      __m512 most = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
      const float target = row[targets[n]];
      __mmask16 as_high = 0, bad = 0;  // what stands before the target; what is no number
      for (int64_t i = 0; i < V; i += 16) {
        const __mmask16 some = first(V - i), before = i >= targets[n] ? 0 : first(targets[n] - i);
        const __m512 v = load(row + i, some);
        most = _mm512_mask_max_ps(most, some, most, v);
        bad |= _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
        as_high |= _mm512_mask_cmp_ps_mask(before, v, _mm512_set1_ps(target), _CMP_GE_OQ);
      }
      const float top = _mm512_reduce_max_ps(most);
      __m512 sum = _mm512_setzero_ps();
      for (int64_t i = 0; i < V; i += 16) {
        const __mmask16 some = first(V - i);
        sum = _mm512_mask_add_ps(sum, some, sum, exponential(_mm512_sub_ps(load(row + i, some), _mm512_set1_ps(top))));
      }
      const float normalizer = bad ? std::numeric_limits<float>::quiet_NaN() : top + std::log(_mm512_reduce_add_ps(sum));
      scores[n] = target - normalizer;
      correct[n] = !as_high && target == top;
      if (!gradient) continue;
      for (int64_t i = 0; i < V; i += 16) {
        const __mmask16 some = first(V - i);
        const __m512 p = exponential(_mm512_sub_ps(load(row + i, some), _mm512_set1_ps(normalizer)));
        store(row + i, some, _mm512_sub_ps(_mm512_setzero_ps(), p));
      }
      row[targets[n]] = bf16(1.f - std::exp(scores[n]));
    }
  });
}
}
