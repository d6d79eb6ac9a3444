// A step of a Llama-like decoder in one call: see model/fused.py, which computes the same in torch.
//
// Needs AVX-512 with bfloat16; matrices are multiplied in AMX tiles where the processor has them.
// Every tensor is contiguous and was checked by the caller; sizes are multiples of 32.
// Axes: T tokens, H query heads, K key/value heads, D head size, N outputs of a product.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <torch/custom_class.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

namespace {

using at::Tensor;
using bf16 = at::BFloat16;
using Tensors = std::vector<Tensor>;

bf16* bits(const Tensor& t) { return static_cast<bf16*>(t.data_ptr()); }
float* floats(const Tensor& t) { return static_cast<float*>(t.data_ptr()); }

inline __m512 load(const bf16* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
inline void store(bf16* p, __m512 v) {
  _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(v));
}
inline __m512bh pairs(const bf16* p) { return (__m512bh)_mm512_loadu_si512(p); }

inline float dot(const bf16* a, const bf16* b, int64_t size) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t k = 0; k < size; k += 32) sum = _mm512_dpbf16_ps(sum, pairs(a + k), pairs(b + k));
  return _mm512_reduce_add_ps(sum);
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

// ---- products with eight-bit weights, for few rows: half the memory to read

#ifdef __AMX_BF16__
struct alignas(64) TileConfig {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t columns[16] = {};
  uint8_t rows[16] = {};
};
bool tiles_allowed() {
  constexpr int request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM
  static const bool allowed = syscall(SYS_arch_prctl, request, tile_data) == 0;
  return allowed;
}
#else
bool tiles_allowed() { return false; }
#endif

constexpr int64_t kMostRows = 64;  // of a product with eight-bit weights

// Weights as [N / 16][K / 32][16 pairs of k][16 outputs][2], a scale for each output and 32 k.
struct Eight {
  Tensor weights, scales;
  int64_t outputs = 0, inputs = 0;
  bool defined() const { return weights.defined(); }
};

Eight eight_bit(const Tensor& weight) {
  const int64_t N = weight.size(0), K = weight.size(1);
  const Tensor groups = weight.to(at::kFloat).view({N, K / 32, 32});
  const Tensor scales = (groups.abs().amax(2) / 127).clamp_min(1e-30);
  const Tensor whole = (groups / scales.unsqueeze(2)).round().to(at::kChar);
  Eight made;
  made.weights = whole.view({N / 16, 16, K / 32, 16, 2}).permute({0, 2, 3, 1, 4}).contiguous();
  made.scales = scales.view({N / 16, 16, K / 32}).permute({0, 2, 1}).contiguous();
  made.outputs = N;
  made.inputs = K;
  return made;
}

// Sixteen pairs of k for sixteen outputs: bfloat16 numbers, laid out as a tile wants them.
inline void widen(const int8_t* from, const float* scales, bf16* to) {
  const __m512i twice_low = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  const __m512i twice_high = _mm512_add_epi32(twice_low, _mm512_set1_epi32(8));
  const __m512 all = _mm512_loadu_ps(scales);
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

#ifdef __AMX_BF16__
// Up to four tiles of rows against the outputs of blocks [first, last).
void tile_blocks(const bf16* x, int64_t rows, const Eight& w, float* y, int64_t first, int64_t last) {
  const int64_t K = w.inputs, steps = K / 32, N = w.outputs;
  const int tiles = (rows + 15) / 16;
  TileConfig config;
  // Tiles 0-3 sum; 4 holds sixteen rows of x, 5 the last rows, 7 weights.
  const int64_t last_rows = rows - 16 * (tiles - 1);
  const int64_t heights[8] = {0, 0, 0, 0, 16, last_rows, 0, 16};
  for (int t = 0; t < 8; t++) {
    config.rows[t] = t < tiles ? (t + 1 < tiles ? 16 : last_rows) : heights[t];
    config.columns[t] = config.rows[t] ? 64 : 0;
  }
  _tile_loadconfig(&config);
  alignas(64) bf16 wide[512];
  for (int64_t block = first; block < last; block++) {
    const int8_t* weights = w.weights.data_ptr<int8_t>() + block * steps * 512;
    const float* scales = w.scales.data_ptr<float>() + block * steps * 16;
    _tile_zero(0);
    if (tiles > 1) _tile_zero(1);
    if (tiles > 2) _tile_zero(2);
    if (tiles > 3) _tile_zero(3);
    for (int64_t step = 0; step < steps; step++) {
      _mm_prefetch((const char*)(weights + (step + 8) * 512), _MM_HINT_T0);
      widen(weights + step * 512, scales + step * 16, wide);
      _tile_loadd(7, wide, 64);
      const bf16* at = x + step * 32;
      const int64_t stride = K * sizeof(bf16);
      if (tiles == 1) { _tile_loadd(5, at, stride); _tile_dpbf16ps(0, 5, 7); continue; }
      _tile_loadd(4, at, stride); _tile_dpbf16ps(0, 4, 7);
      if (tiles == 2) { _tile_loadd(5, at + 16 * K, stride); _tile_dpbf16ps(1, 5, 7); continue; }
      _tile_loadd(4, at + 16 * K, stride); _tile_dpbf16ps(1, 4, 7);
      if (tiles == 3) { _tile_loadd(5, at + 32 * K, stride); _tile_dpbf16ps(2, 5, 7); continue; }
      _tile_loadd(4, at + 32 * K, stride); _tile_dpbf16ps(2, 4, 7);
      _tile_loadd(5, at + 48 * K, stride); _tile_dpbf16ps(3, 5, 7);
    }
    float* out = y + block * 16;
    const int64_t stride = N * sizeof(float);
    _tile_stored(0, out, stride);
    if (tiles > 1) _tile_stored(1, out + 16 * N, stride);
    if (tiles > 2) _tile_stored(2, out + 32 * N, stride);
    if (tiles > 3) _tile_stored(3, out + 48 * N, stride);
  }
  _tile_release();
}
#endif

// R rows against one block of outputs: their sums stay in registers, which a count known here allows.
template <int R>
void vector_rows(const bf16* x, int64_t K, const int8_t* weights, const float* scales, float* y,
                 int64_t N) {
  constexpr int chains = R <= 2 ? 4 : 1;  // of additions that wait for each other
  alignas(64) bf16 wide[512];
  __m512 sums[chains][R];
#pragma GCC unroll 16
  for (int i = 0; i < chains * R; i++) sums[i / R][i % R] = _mm512_setzero_ps();
  for (int64_t k = 0; k < K; k += 32, weights += 512, scales += 16) {
    widen(weights, scales, wide);
#pragma GCC unroll 16
    for (int pair = 0; pair < 16; pair++) {
      const __m512bh column = pairs(wide + pair * 32);
#pragma GCC unroll 16
      for (int row = 0; row < R; row++) {
        int32_t two;
        std::memcpy(&two, x + row * K + k + pair * 2, sizeof two);
        __m512& sum = sums[pair % chains][row];
        sum = _mm512_dpbf16_ps(sum, column, (__m512bh)_mm512_set1_epi32(two));
      }
    }
  }
#pragma GCC unroll 16
  for (int row = 0; row < R; row++) {
    __m512 sum = sums[0][row];
    for (int chain = 1; chain < chains; chain++) sum = _mm512_add_ps(sum, sums[chain][row]);
    _mm512_storeu_ps(y + row * N, sum);
  }
}

using VectorRows = void (*)(const bf16*, int64_t, const int8_t*, const float*, float*, int64_t);
template <int... R>
constexpr std::array<VectorRows, sizeof...(R)> vector_table(std::integer_sequence<int, R...>) {
  return {vector_rows<R + 1>...};
}
constexpr int64_t kVectorRows = 16;
constexpr auto kVector = vector_table(std::make_integer_sequence<int, kVectorRows>());

// The same without tiles.
void vector_blocks(const bf16* x, int64_t rows, const Eight& w, float* y, int64_t first, int64_t last) {
  const int64_t K = w.inputs, steps = K / 32, N = w.outputs;
  for (int64_t block = first; block < last; block++)
    for (int64_t base = 0; base < rows; base += kVectorRows)
      kVector[std::min(kVectorRows, rows - base) - 1](
          x + base * K, K, w.weights.data_ptr<int8_t>() + block * steps * 512,
          w.scales.data_ptr<float>() + block * steps * 16, y + base * N + block * 16, N);
}

Tensor few_rows(const Tensor& x, const Eight& w, const Tensor& bias) {
  const int64_t T = x.size(0), N = w.outputs, blocks = N / 16;
  Tensor sums = at::empty({T, N}, x.options().dtype(at::kFloat));
  Tensor y = at::empty({T, N}, x.options());
  const bool tiles = tiles_allowed();
  const int64_t grain = std::max<int64_t>(1, 65536 / (16 * w.inputs));
  at::parallel_for(0, blocks, grain, [&](int64_t first, int64_t last) {
#ifdef __AMX_BF16__
    if (tiles) tile_blocks(bits(x), T, w, floats(sums), first, last);
    else
#endif
      vector_blocks(bits(x), T, w, floats(sums), first, last);
    for (int64_t t = 0; t < T; t++)
      for (int64_t n = first * 16; n < last * 16; n += 16) {
        __m512 v = _mm512_loadu_ps(floats(sums) + t * N + n);
        if (bias.defined()) v = _mm512_add_ps(v, load(bits(bias) + n));
        store(bits(y) + t * N + n, v);
      }
  });
  (void)tiles;
  return y;
}

// ---- products

using Pointwise = Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&, c10::string_view,
                         c10::List<std::optional<at::Scalar>>, std::optional<c10::string_view>);

struct Linear {
  Tensor weight;  // laid out by oneDNN
  Tensor bias;    // undefined for none
  Eight eight;    // undefined unless it is to be used for few rows

  Tensor operator()(const Tensor& x) const {
    if (eight.defined() && x.size(0) <= kMostRows) return few_rows(x, eight, bias);
    static const auto product = c10::Dispatcher::singleton()
                                    .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
                                    .typed<Pointwise>();
    const std::optional<Tensor> added = bias.defined() ? std::optional<Tensor>(bias) : std::nullopt;
    return product.call(x, weight, added, "none", c10::List<std::optional<at::Scalar>>(), std::nullopt);
  }
};

// ---- adapters

struct Adapter {  // down [places, r, K], up [places, r, N]
  Tensor down, up;
};

// Rows of one adapter, at most four: its matrices are read once for all of them.
struct Group {
  int32_t place;
  int count;
  int64_t rows[4];
};

std::vector<Group> grouped(const int32_t* places, int64_t count) {
  std::vector<int64_t> order(count);
  for (int64_t i = 0; i < count; i++) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return places[a] < places[b]; });
  std::vector<Group> groups;
  for (int64_t row : order) {
    if (places[row] < 0) continue;
    if (groups.empty() || groups.back().place != places[row] || groups.back().count == 4)
      groups.push_back({places[row], 0, {}});
    groups.back().rows[groups.back().count++] = row;
  }
  return groups;
}

// y[row, first:first + N] += (x[row] A^T) B for the rows of one group.
void add_group(const Group& g, const bf16* x, int64_t K, bf16* y, int64_t width, int64_t first,
               const Adapter& a, int64_t r) {
  const int64_t highest = a.down.size(1), N = a.up.size(2);
  const bf16* down = bits(a.down) + g.place * highest * K;
  const bf16* up = bits(a.up) + g.place * highest * N;
  float low[4][256];  // 256 is the highest rank that a stack can be made with
  const bf16* in[4];
  bf16* out[4];
  for (int m = 0; m < 4; m++) {
    const int64_t row = g.rows[std::min(m, g.count - 1)];
    in[m] = x + row * K;
    out[m] = y + row * width + first;
  }
  for (int64_t j = 0; j < r; j++) {
    const bf16* w = down + j * K;
    __m512 s[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int64_t k = 0; k < K; k += 32) {
      const __m512bh v = pairs(w + k);
      for (int m = 0; m < 4; m++) s[m] = _mm512_dpbf16_ps(s[m], v, pairs(in[m] + k));
    }
    for (int m = 0; m < 4; m++) low[m][j] = _mm512_reduce_add_ps(s[m]);
  }
  for (int64_t n = 0; n < N; n += 16) {
    __m512 s[4];
    for (int m = 0; m < 4; m++) s[m] = load(out[m] + n);
    for (int64_t j = 0; j < r; j++) {
      const __m512 v = load(up + j * N + n);
      for (int m = 0; m < 4; m++) s[m] = _mm512_fmadd_ps(_mm512_set1_ps(low[m][j]), v, s[m]);
    }
    for (int m = 0; m < g.count; m++) store(out[m] + n, s[m]);
  }
}

struct Segment {  // consecutive rows of prompts with one adapter
  int64_t first, count;
  int32_t place;
};

// ---- the decoder

struct Projection {
  Linear linear;
  std::vector<Adapter> adapters;  // side by side over the outputs
};

struct Layer {
  Tensor attention_norm, mlp_norm;
  Projection qkv, out, gates, down;
};

struct Decoder : torch::CustomClassHolder {
  int64_t H, K, D;
  double eps;
  bool eight;
  Tensor cosines, sines, norm;
  std::vector<Layer> layers;

  Decoder(int64_t heads, int64_t key_heads, int64_t size, double epsilon, bool eight_bits,
          Tensor cos, Tensor sin, Tensor last_norm)
      : H(heads), K(key_heads), D(size), eps(epsilon), eight(eight_bits), cosines(std::move(cos)),
        sines(std::move(sin)), norm(std::move(last_norm)) {}

  // Two norms; then for each of qkv, out, gates and down: plain weight, packed weight, bias or
  // an empty tensor.
  void add_layer(const Tensors& norms, const Tensors& products) {
    Layer layer{norms[0], norms[1], {}, {}, {}, {}};
    Projection* parts[] = {&layer.qkv, &layer.out, &layer.gates, &layer.down};
    for (int i = 0; i < 4; i++) {
      Linear& linear = parts[i]->linear;
      linear.weight = products[3 * i + 1];
      if (products[3 * i + 2].numel()) linear.bias = products[3 * i + 2];
      if (eight) linear.eight = eight_bit(products[3 * i]);
    }
    layers.push_back(std::move(layer));
  }

  // A and B of each target of a layer, in the order of its products: 7 pairs.
  void set_adapters(int64_t number, const Tensors& stacks) {
    Layer& layer = layers[number];
    Projection* parts[] = {&layer.qkv, &layer.out, &layer.gates, &layer.down};
    const int counts[] = {3, 1, 2, 1};
    size_t next = 0;
    for (int i = 0; i < 4; i++) {
      parts[i]->adapters.clear();
      for (int j = 0; j < counts[i]; j++, next += 2)
        parts[i]->adapters.push_back({stacks[next], stacks[next + 1]});
    }
  }

  struct Step {
    int64_t decoding;
    std::vector<Group> groups;
    std::vector<Segment> segments;
    const int32_t* ranks;
  };

  Tensor project(const Projection& p, const Tensor& x, const Step& step) const {
    Tensor y = p.linear(x);
    const int64_t inputs = x.size(1), width = y.size(1);
    if (!step.groups.empty())
      at::parallel_for(0, step.groups.size(), 2, [&](int64_t from, int64_t to) {
        for (int64_t g = from; g < to; g++) {
          int64_t first = 0;
          for (const Adapter& a : p.adapters) {
            add_group(step.groups[g], bits(x), inputs, bits(y), width, first, a,
                      step.ranks[step.groups[g].place]);
            first += a.up.size(2);
          }
        }
      });
    for (const Segment& s : step.segments) {
      const Tensor in = x.narrow(0, s.first, s.count);
      const int64_t rank = step.ranks[s.place];
      int64_t first = 0;
      for (const Adapter& a : p.adapters) {
        const int64_t outputs = a.up.size(2);
        y.narrow(0, s.first, s.count).narrow(1, first, outputs).addmm_(
            at::mm(in, a.down[s.place].narrow(0, 0, rank).t()), a.up[s.place].narrow(0, 0, rank));
        first += outputs;
      }
    }
    return y;
  }

  void normalise(const float* x, const float* weight, bf16* h, int64_t size) const {
    __m512 squares = _mm512_setzero_ps();
    for (int64_t i = 0; i < size; i += 16) {
      const __m512 v = _mm512_loadu_ps(x + i);
      squares = _mm512_fmadd_ps(v, v, squares);
    }
    const __m512 by = _mm512_set1_ps(1.f / std::sqrt(_mm512_reduce_add_ps(squares) / size + eps));
    for (int64_t i = 0; i < size; i += 16)
      store(h + i, _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(x + i), by), _mm512_loadu_ps(weight + i)));
  }

  // x += y (where there is one), and the normalised sum.
  Tensor add_and_norm(Tensor& x, const Tensor& y, const Tensor& weight) const {
    const int64_t T = x.size(0), size = x.size(1);
    Tensor h = at::empty({T, size}, x.options().dtype(at::kBFloat16));
    at::parallel_for(0, T, 16, [&](int64_t from, int64_t to) {
      for (int64_t t = from; t < to; t++) {
        float* row = floats(x) + t * size;
        if (y.defined())
          for (int64_t i = 0; i < size; i += 16)
            _mm512_storeu_ps(row + i, _mm512_add_ps(_mm512_loadu_ps(row + i), load(bits(y) + t * size + i)));
        normalise(row, floats(weight), bits(h) + t * size, size);
      }
    });
    return h;
  }

  Tensor gated(const Tensor& gates) const {
    const int64_t T = gates.size(0), F = gates.size(1) / 2;
    Tensor m = at::empty({T, F}, gates.options());
    at::parallel_for(0, T, 8, [&](int64_t from, int64_t to) {
      for (int64_t t = from; t < to; t++)
        for (int64_t i = 0; i < F; i += 16) {
          const __m512 g = load(bits(gates) + t * 2 * F + i);
          const __m512 under = _mm512_add_ps(_mm512_set1_ps(1.f), exponential(_mm512_sub_ps(_mm512_setzero_ps(), g)));
          store(bits(m) + t * F + i, _mm512_mul_ps(_mm512_div_ps(g, under), load(bits(gates) + t * 2 * F + F + i)));
        }
    });
    return m;
  }

  // Neighbours are the two numbers of one rotation; see `paired` in model/fused.py.
  void turn(bf16* head, const float* cos, const float* sin, float scale) const {
    const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    const __m512 by = _mm512_set1_ps(scale);
    for (int64_t i = 0; i < D; i += 16) {
      const __m512 v = load(head + i);
      const __m512 swapped = _mm512_permute_ps(v, 0xB1);
      const __m512 c = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(cos + i / 2)));
      const __m512 s = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(sin + i / 2)));
      store(head + i, _mm512_mul_ps(by, _mm512_fmaddsub_ps(v, c, _mm512_mul_ps(swapped, s))));
    }
  }

  // Turn queries and keys, write keys and values, and attend for the rows that decode.
  void write_and_decode(const Tensor& qkv, const Tensor& keys, const Tensor& values,
                        const int64_t* positions, const int64_t* slots, int64_t decoding,
                        Tensor& out) const {
    const int64_t T = qkv.size(0), width = qkv.size(1), G = H / K, context = keys.size(2);
    const float scale = 1.f / std::sqrt(float(D));
    at::parallel_for(0, T * K, decoding ? 3 : 24, [&](int64_t from, int64_t to) {
      std::vector<float> scores;
      for (int64_t u = from; u < to; u++) {
        const int64_t t = u / K, k = u % K, position = positions[t];
        bf16* row = bits(qkv) + t * width;
        const float* cos = floats(cosines) + position * D / 2;
        const float* sin = floats(sines) + position * D / 2;
        for (int64_t g = 0; g < G; g++) turn(row + (k * G + g) * D, cos, sin, scale);
        bf16* key = row + (H + k) * D;
        turn(key, cos, sin, 1.f);
        bf16* kept_keys = bits(keys) + (slots[t] * K + k) * context * D;
        bf16* kept_values = bits(values) + (slots[t] * K + k) * context * D;
        std::memcpy(kept_keys + position * D, key, D * sizeof(bf16));
        std::memcpy(kept_values + position * D, row + (H + K + k) * D, D * sizeof(bf16));
        if (t >= decoding) continue;
        const int64_t count = position + 1, padded = (count + 15) & ~15;
        scores.resize(padded);
        for (int64_t g = 0; g < G; g++)
          attend(row + (k * G + g) * D, kept_keys, kept_values, count, scores.data(),
                 bits(out) + t * H * D + (k * G + g) * D);
      }
    });
  }

  // softmax(q k^T) v of one query over `count` keys (Vaswani et al. 2017, eq. 1).
  void attend(const bf16* query, const bf16* keys, const bf16* values, int64_t count, float* scores,
              bf16* out) const {
    float highest = -INFINITY;
    for (int64_t j = 0; j < count; j++) {
      scores[j] = D % 32 ? short_dot(query, keys + j * D) : dot(query, keys + j * D, D);
      highest = std::max(highest, scores[j]);
    }
    const int64_t padded = (count + 15) & ~15;
    for (int64_t j = count; j < padded; j++) scores[j] = -INFINITY;
    __m512 sum = _mm512_setzero_ps();
    for (int64_t j = 0; j < padded; j += 16) {
      __m512 e = exponential(_mm512_sub_ps(_mm512_loadu_ps(scores + j), _mm512_set1_ps(highest)));
      if (j + 16 > count) e = _mm512_maskz_mov_ps((1u << (count - j)) - 1, e);
      _mm512_storeu_ps(scores + j, e);
      sum = _mm512_add_ps(sum, e);
    }
    const __m512 by = _mm512_set1_ps(1.f / _mm512_reduce_add_ps(sum));
    for (int64_t d = 0; d < D; d += 64) {
      const int64_t parts = std::min<int64_t>(4, (D - d) / 16);
      __m512 s[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
      for (int64_t j = 0; j < count; j++) {
        const __m512 p = _mm512_set1_ps(scores[j]);
        for (int64_t i = 0; i < parts; i++) s[i] = _mm512_fmadd_ps(p, load(values + j * D + d + 16 * i), s[i]);
      }
      for (int64_t i = 0; i < parts; i++) store(out + d + 16 * i, _mm512_mul_ps(s[i], by));
    }
  }

  float short_dot(const bf16* a, const bf16* b) const {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t k = 0; k < D; k += 16) sum = _mm512_fmadd_ps(load(a + k), load(b + k), sum);
    return _mm512_reduce_add_ps(sum);
  }

  // A piece of a prompt: its queries see the keys of their slot up to themselves.
  void attend_piece(const Tensor& qkv, const Tensor& keys, const Tensor& values, int64_t slot,
                    int64_t first, int64_t count, int64_t start, Tensor& out) const {
    const int64_t G = H / K, end = start + count;
    const Tensor query = qkv.narrow(0, first, count).narrow(1, 0, H * D).view({count, K, G, D})
                             .permute({1, 2, 0, 3}).reshape({K, G * count, D});
    Tensor scores = at::bmm(query, keys[slot].narrow(1, 0, end).transpose(1, 2));
    at::parallel_for(0, K * G * count, 8, [&](int64_t from, int64_t to) {
      std::vector<float> row((end + 15) & ~15);
      for (int64_t r = from; r < to; r++) causal_softmax(bits(scores) + r * end, row.data(), start + r % count + 1, end);
    });
    const Tensor mixed = at::bmm(scores, values[slot].narrow(1, 0, end));
    out.narrow(0, first, count).view({count, K, G, D}).copy_(mixed.view({K, G, count, D}).permute({2, 0, 1, 3}));
  }

  void causal_softmax(bf16* scores, float* row, int64_t seen, int64_t end) const {
    const int64_t padded = (seen + 15) & ~15;
    __m512 highest = _mm512_set1_ps(-INFINITY);
    for (int64_t j = 0; j < seen; j++) row[j] = float(scores[j]);
    for (int64_t j = seen; j < padded; j++) row[j] = -INFINITY;
    for (int64_t j = 0; j < padded; j += 16) highest = _mm512_max_ps(highest, _mm512_loadu_ps(row + j));
    const __m512 most = _mm512_set1_ps(_mm512_reduce_max_ps(highest));
    __m512 sum = _mm512_setzero_ps();
    for (int64_t j = 0; j < padded; j += 16) {
      __m512 e = exponential(_mm512_sub_ps(_mm512_loadu_ps(row + j), most));
      if (j + 16 > seen) e = _mm512_maskz_mov_ps((1u << (seen - j)) - 1, e);
      _mm512_storeu_ps(row + j, e);
      sum = _mm512_add_ps(sum, e);
    }
    const float by = 1.f / _mm512_reduce_add_ps(sum);
    for (int64_t j = 0; j < seen; j++) scores[j] = bf16(row[j] * by);
    for (int64_t j = seen; j < end; j++) scores[j] = bf16(0.f);
  }

  // x [T, hidden] float32, which is changed; pieces [P, 4] of (first row, rows, slot, start);
  // places [T], the adapter of each row or -1; ranks [places].
  Tensor step(Tensor x, Tensor positions, Tensor slots, int64_t decoding, Tensor pieces,
              Tensor places, Tensor ranks, Tensors keys, Tensors values) const {
    const int64_t T = x.size(0);
    const int64_t* piece = pieces.data_ptr<int64_t>();
    Step step{decoding, grouped(places.data_ptr<int32_t>(), decoding), {}, ranks.data_ptr<int32_t>()};
    for (int64_t p = 0; p < pieces.size(0); p++) {
      const int32_t place = places.data_ptr<int32_t>()[piece[4 * p]];
      if (place < 0) continue;
      Segment* last = step.segments.empty() ? nullptr : &step.segments.back();
      if (last && last->place == place && last->first + last->count == piece[4 * p])
        last->count += piece[4 * p + 1];
      else
        step.segments.push_back({piece[4 * p], piece[4 * p + 1], place});
    }
    Tensor none;
    Tensor h = add_and_norm(x, none, layers[0].attention_norm);
    for (size_t i = 0; i < layers.size(); i++) {
      const Layer& layer = layers[i];
      const Tensor qkv = project(layer.qkv, h, step);
      Tensor out = at::zeros({T, H * D}, h.options());
      write_and_decode(qkv, keys[i], values[i], positions.data_ptr<int64_t>(),
                       slots.data_ptr<int64_t>(), decoding, out);
      for (int64_t p = 0; p < pieces.size(0); p++)
        attend_piece(qkv, keys[i], values[i], piece[4 * p + 2], piece[4 * p], piece[4 * p + 1],
                     piece[4 * p + 3], out);
      h = add_and_norm(x, project(layer.out, out, step), layer.mlp_norm);
      const Tensor made = project(layer.down, gated(project(layer.gates, h, step)), step);
      h = add_and_norm(x, made, i + 1 < layers.size() ? layers[i + 1].attention_norm : norm);
    }
    return h;
  }
};

// The output layer: a product of its own.
struct Head : torch::CustomClassHolder {
  Linear linear;
  Head(const Tensor& plain, Tensor packed, const Tensor& bias, bool eight_bits) {
    linear.weight = std::move(packed);
    if (bias.numel()) linear.bias = bias;
    if (eight_bits) linear.eight = eight_bit(plain);
  }
  Tensor product(const Tensor& x) const { return linear(x); }
};

bool has_tiles() { return tiles_allowed(); }

}  // namespace

TORCH_LIBRARY(tunery, m) {
  m.def("has_tiles", has_tiles);
  m.class_<Decoder>("Decoder")
      .def(torch::init<int64_t, int64_t, int64_t, double, bool, Tensor, Tensor, Tensor>())
      .def("add_layer", &Decoder::add_layer)
      .def("set_adapters", &Decoder::set_adapters)
      .def("step", [](const c10::intrusive_ptr<Decoder>& self, Tensor x, Tensor positions, Tensor slots,
                      int64_t decoding, Tensor pieces, Tensor places, Tensor ranks, Tensors keys,
                      Tensors values) {
        return self->step(std::move(x), std::move(positions), std::move(slots), decoding, std::move(pieces),
                          std::move(places), std::move(ranks), std::move(keys), std::move(values));
      });
  m.class_<Head>("Head").def(torch::init<Tensor, Tensor, Tensor, bool>()).def("product", &Head::product);
}
