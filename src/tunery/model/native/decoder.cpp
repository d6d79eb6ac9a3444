// A step of a Llama-like decoder in one call: see model/fused.py, which computes the same in torch.
//
// Needs AVX-512 with bfloat16 and eight-bit products. Every tensor is contiguous and was checked by
// the caller; sizes are multiples of 32, a head's of 16.
// Axes: T tokens, H query heads, K key/value heads, D head size, N outputs of a product.

#include <ATen/ATen.h>
#include <torch/custom_class.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "adapters.h"
#include "adapters_eight.h"
#include "attention.h"
#include "eight.h"
#include "linear.h"
#include "parallel.h"
#include "vectors.h"

namespace tunery {
namespace {

using at::Tensor;
using Tensors = std::vector<Tensor>;

bf16* bits(const Tensor& t) { return static_cast<bf16*>(t.data_ptr()); }
float* floats(const Tensor& t) { return static_cast<float*>(t.data_ptr()); }

// ---- the decoder

struct Projection {
  Linear linear;
  std::vector<Adapter> adapters;  // side by side over the outputs
};

struct Layer {
  Tensor attention_norm, mlp_norm;
  Projection parts[4];  // query, key and value; attention's output; gate and up; down
};
constexpr int kLinears[] = {3, 1, 2, 1};  // of each part
constexpr auto nothing = [](auto&&...) {};

// Tokens that follow each other in one slot, few enough for one call of attention.
struct Run {
  int64_t first, count, slot, start;
};

struct Decoder : torch::CustomClassHolder {
  int64_t H, K, D;
  double eps;
  bool eight;
  Tensor cosines, sines, norm;
  std::vector<Layer> layers;
  std::vector<Sizes> sizes;         // of each layer's parts
  std::vector<EightAdapter> own;    // by place, where adapters are in eight bits

  Decoder(int64_t heads, int64_t key_heads, int64_t size, double epsilon, bool eight_bits,
          Tensor cos, Tensor sin, Tensor last_norm)
      : H(heads), K(key_heads), D(size), eps(epsilon), eight(eight_bits), cosines(std::move(cos)),
        sines(std::move(sin)), norm(std::move(last_norm)) {}

  // Two norms; then for each of qkv, out, gates and down: plain weight, packed weight, bias or
  // an empty tensor.
  void add_layer(const Tensors& norms, const Tensors& products) {
    Layer layer{norms[0], norms[1], {}};
    for (int i = 0; i < 4; i++) {
      Linear& linear = layer.parts[i].linear;
      if (eight) linear.eight = eight_bit(products[3 * i]);
      if (!eight || tiles_allowed()) linear.weight = products[3 * i + 1];
      if (products[3 * i + 2].numel()) linear.bias = products[3 * i + 2];
      const int64_t N = products[3 * i].size(0);
      sizes.push_back({products[3 * i].size(1), i == 0 ? std::vector{H * D, K * D, K * D} : std::vector(kLinears[i], N / kLinears[i])});
    }
    layers.push_back(std::move(layer));
  }

  // A and B of each target of a layer, in the order of its products: 7 pairs. In bfloat16, and in tiles.
  void set_adapters(int64_t number, const Tensors& stacks) {
    size_t next = 0;
    for (int i = 0; i < 4; i++) {
      std::vector<Adapter>& adapters = layers[number].parts[i].adapters;
      adapters.clear();
      for (int j = 0; j < kLinears[i]; j++, next += 2) adapters.push_back({stacks[next], stacks[next + 1]});
    }
  }

  // In eight bits, but not in tiles: A [r, K] and B [N, r] of a layer's target, float32.
  void set_adapter(int64_t place, int64_t number, int64_t target, const Tensor& down, const Tensor& up) {
    if (place >= int64_t(own.size())) own.resize(place + 1);
    EightAdapter& adapter = own[place];
    if (adapter.parts.empty()) adapter = eight_adapter(sizes, down.size(0));
    TORCH_CHECK(adapter.rank == in_whole(down.size(0), kFour), "an adapter has one rank");
    int part = 0;
    for (; target >= kLinears[part]; part++) target -= kLinears[part];
    put_adapter(adapter, 4 * number + part, target, down, up);
  }

  void clear_adapter(int64_t place) {
    if (place < int64_t(own.size())) own[place] = EightAdapter();
  }

  int64_t adapter_bytes(int64_t rank) const { return eight_adapter_bytes(sizes, rank); }

  struct Step {
    int64_t decoding;
    std::vector<Group> groups;
    std::vector<int64_t> order;  // of the rows in the groups
    std::vector<Run> runs;
    const int32_t* ranks;
  };

  // Rows that `fill(t, row)` makes: `at(group, r)` is where one goes, `then(group)` hears of each group.
  template <class Fill, class At, class Then>
  void take(const Rows& x, const Step& step, int64_t piece, Fill fill, At at, Then then) const {
    in_pieces(step.groups.size(), piece, [&](int64_t from, int64_t to) {
      std::vector<float> row(x.size);
      for (int64_t i = from; i < to; i++) {
        const Group& g = step.groups[i];
        for (int r = 0; r < g.count; r++) {
          fill(g.rows[r], row.data());
          x.take(at(g, r), row.data());
        }
        then(g);
      }
    });
  }

  // The product of those rows, with what each row's adapter adds to it.
  template <class Fill>
  Tensor project(size_t number, int64_t T, int64_t size, const Step& step, Fill fill) const {
    const Projection& p = layers[number / 4].parts[number % 4];
    if (eight && !tiles_allowed()) {
      const Rows x(T, size, true, step.order.data());
      const EightAdapted adapted(own, step.groups, sizes[number], number, T);
      take(x, step, adapted.any() ? 1 : 2, fill, [](const Group& g, int r) { return g.first + r; }, [&](const Group& g) { adapted.reduce(g, x); });
      return p.linear(
          x, [&](int64_t first, int64_t last) { if (adapted.any()) adapted.fetch(first, last); },
          [&](const Tensor& y, int64_t first, int64_t last) { if (adapted.any()) adapted.expand(floats(y), y.size(1), first, last); });
    }
    const Rows x(T, size, eight);
    const Adapted adapted(p.adapters, step.groups, step.ranks, T);
    take(x, step, adapted.any() ? 1 : 2, fill, [](const Group& g, int r) { return g.rows[r]; }, [&](const Group& g) { adapted.reduce(g, x.row(0), size); });
    return p.linear(x, nothing, [&](const Tensor& y, int64_t first, int64_t last) {
      if (adapted.any()) adapted.expand(floats(y), y.size(1), first, last);
    });
  }

  // A row of x, to which a row of y is added where there is one; h is the normalised sum
  // (Zhang and Sennrich 2019, eq. 4).
  void add_and_norm(const Tensor& x, const Tensor& y, const Tensor& weight, int64_t t, float* h) const {
    const int64_t size = x.size(1);
    float* row = floats(x) + t * size;
    __m512 squares = _mm512_setzero_ps();
    for (int64_t i = 0; i < size; i += 16) {
      __m512 v = _mm512_loadu_ps(row + i);
      if (y.defined()) {
        v = _mm512_add_ps(v, _mm512_loadu_ps(floats(y) + t * size + i));
        _mm512_storeu_ps(row + i, v);
      }
      squares = _mm512_fmadd_ps(v, v, squares);
    }
    const __m512 by = _mm512_set1_ps(1.f / std::sqrt(_mm512_reduce_add_ps(squares) / size + eps));
    for (int64_t i = 0; i < size; i += 16)
      _mm512_storeu_ps(h + i, _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(row + i), by), _mm512_loadu_ps(floats(weight) + i)));
  }

  // silu(gate) * up of a row (Shazeer 2020, eq. 6).
  static void gate(const float* gates, int64_t size, float* m) {
    for (int64_t i = 0; i < size; i += 16) {
      const __m512 g = _mm512_loadu_ps(gates + i);
      const __m512 under = _mm512_add_ps(_mm512_set1_ps(1.f), exponential(_mm512_sub_ps(_mm512_setzero_ps(), g)));
      _mm512_storeu_ps(m + i, _mm512_mul_ps(_mm512_div_ps(g, under), _mm512_loadu_ps(gates + size + i)));
    }
  }

  // Neighbours are the two numbers of one rotation; see `paired` in model/fused.py.
  void turn(const float* head, const float* cos, const float* sin, float scale, bf16* turned) const {
    const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    const __m512 by = _mm512_set1_ps(scale);
    for (int64_t i = 0; i < D; i += 16) {
      const __m512 v = _mm512_loadu_ps(head + i);
      const __m512 swapped = _mm512_permute_ps(v, 0xB1);
      const __m512 c = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(cos + i / 2)));
      const __m512 s = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(sin + i / 2)));
      store(turned + i, _mm512_mul_ps(by, _mm512_fmaddsub_ps(v, c, _mm512_mul_ps(swapped, s))));
    }
  }

  // Turn queries and keys, write keys and values, and attend.
  Tensor attend(const Tensor& qkv, const Tensor& keys, const Tensor& values, const int64_t* positions,
                const int64_t* slots, const Step& step) const {
    const int64_t T = qkv.size(0), width = qkv.size(1), G = H / K, context = keys.size(2);
    const float scale = 1.f / std::sqrt(float(D));
    const Tensor queries = at::empty({T, H * D}, at::kBFloat16);
    Tensor out = at::empty({T, H * D}, at::kFloat);
    const auto run = [&](Attention& attention, const Run& r, int64_t k) {
      const bf16* asked[kQueries];
      float* outs[kQueries];
      int64_t counts[kQueries], n = 0;
      const int64_t at = (r.slot * K + k) * context * D;
      for (int64_t g = 0; g < G; g++)
        for (int64_t i = 0; i < r.count; i++) {
          const int64_t head = (r.first + i) * H * D + (k * G + g) * D;
          asked[n] = bits(queries) + head;
          outs[n] = floats(out) + head;
          counts[n++] = r.start + i + 1;
          if (n == kQueries || (g + 1 == G && i + 1 == r.count)) {
            attention(asked, counts, n, bits(keys) + at, bits(values) + at, D, outs);
            n = 0;
          }
        }
    };
    in_pieces(T * K, 3, [&](int64_t from, int64_t to) {
      Attention attention;
      for (int64_t u = from; u < to; u++) {
        const int64_t t = u / K, k = u % K, position = positions[t];
        const float* row = floats(qkv) + t * width;
        const float* cos = floats(cosines) + position * D / 2;
        const float* sin = floats(sines) + position * D / 2;
        for (int64_t g = 0; g < G; g++)
          turn(row + (k * G + g) * D, cos, sin, scale, bits(queries) + t * H * D + (k * G + g) * D);
        const int64_t at = ((slots[t] * K + k) * context + position) * D;
        turn(row + (H + k) * D, cos, sin, 1.f, bits(keys) + at);
        for (int64_t i = 0; i < D; i += 16) store(bits(values) + at + i, _mm512_loadu_ps(row + (H + K + k) * D + i));
        if (t < step.decoding) run(attention, {t, 1, slots[t], position}, k);
      }
    });
    in_pieces(step.runs.size() * K, 1, [&](int64_t from, int64_t to) {
      Attention attention;
      for (int64_t u = from; u < to; u++) run(attention, step.runs[u / K], u % K);
    });
    return out;
  }

  // Pieces of prompts [P, 4] as runs.
  std::vector<Run> runs_of(const Tensor& pieces) const {
    const int64_t tokens = std::max<int64_t>(1, kQueries * K / H);
    std::vector<Run> runs;
    const int64_t* piece = pieces.data_ptr<int64_t>();
    for (int64_t p = 0; p < pieces.size(0); p++, piece += 4)
      for (int64_t done = 0; done < piece[1]; done += tokens)
        runs.push_back({piece[0] + done, std::min(tokens, piece[1] - done), piece[2], piece[3] + done});
    return runs;
  }

  // x [T, hidden] float32, which is changed; pieces [P, 4] of (first row, rows, slot, start);
  // places [T], the adapter of each row or -1; ranks [places].
  Tensor step(Tensor x, Tensor positions, Tensor slots, int64_t decoding, Tensor pieces,
              Tensor places, Tensor ranks, Tensors keys, Tensors values) const {
    const int64_t T = x.size(0), size = x.size(1);
    const int64_t together = eight ? kRowsAtOnce : kTogether;
    Step step{decoding, grouped(places.data_ptr<int32_t>(), T, together), {}, runs_of(pieces), ranks.data_ptr<int32_t>()};
    for (const Group& g : step.groups) step.order.insert(step.order.end(), g.rows, g.rows + g.count);
    Tensor made;  // by the part before, to be added to x
    for (size_t i = 0; i < layers.size(); i++) {
      const Layer& layer = layers[i];
      const Tensor qkv = project(4 * i, T, size, step, [&](int64_t t, float* h) {
        add_and_norm(x, made, layer.attention_norm, t, h);
      });
      const Tensor mixed = attend(qkv, keys[i], values[i], positions.data_ptr<int64_t>(), slots.data_ptr<int64_t>(), step);
      made = project(4 * i + 1, T, H * D, step, [&](int64_t t, float* h) {
        std::memcpy(h, floats(mixed) + t * H * D, H * D * sizeof(float));
      });
      const Tensor gates = project(4 * i + 2, T, size, step, [&](int64_t t, float* h) {
        add_and_norm(x, made, layer.mlp_norm, t, h);
      });
      const int64_t inner = gates.size(1) / 2;
      made = project(4 * i + 3, T, inner, step, [&](int64_t t, float* h) {
        gate(floats(gates) + t * 2 * inner, inner, h);
      });
    }
    Tensor h = at::empty({T, size}, at::kFloat);
    in_pieces(T, 16, [&](int64_t from, int64_t to) {
      for (int64_t t = from; t < to; t++) add_and_norm(x, made, norm, t, floats(h) + t * size);
    });
    return h;
  }
};

// The output layer: a product of its own.
struct Head : torch::CustomClassHolder {
  Linear linear;
  Head(const Tensor& plain, Tensor packed, const Tensor& bias, bool eight_bits) {
    if (eight_bits) linear.eight = eight_bit(plain);
    if (!eight_bits || tiles_allowed()) linear.weight = std::move(packed);
    if (bias.numel()) linear.bias = bias;
  }
  // x [T, K] and the result [T, N], float32.
  Tensor product(const Tensor& x) const {
    const int64_t T = x.size(0), size = x.size(1);
    const Rows rows(T, size, linear.eight.defined());
    in_pieces(T, 8, [&](int64_t from, int64_t to) {
      for (int64_t t = from; t < to; t++) rows.take(t, floats(x) + t * size);
    });
    return linear(rows, nothing, nothing);
  }
};

bool has_tiles() { return tiles_allowed(); }

}  // namespace

TORCH_LIBRARY(tunery, m) {
  m.def("has_tiles", has_tiles);
  m.class_<Decoder>("Decoder")
      .def(torch::init<int64_t, int64_t, int64_t, double, bool, Tensor, Tensor, Tensor>())
      .def("add_layer", &Decoder::add_layer)
      .def("set_adapters", &Decoder::set_adapters)
      .def("set_adapter", &Decoder::set_adapter)
      .def("clear_adapter", &Decoder::clear_adapter)
      .def("adapter_bytes", &Decoder::adapter_bytes)
      .def("step", [](const c10::intrusive_ptr<Decoder>& self, Tensor x, Tensor positions, Tensor slots,
                      int64_t decoding, Tensor pieces, Tensor places, Tensor ranks, Tensors keys,
                      Tensors values) {
        return self->step(std::move(x), std::move(positions), std::move(slots), decoding, std::move(pieces),
                          std::move(places), std::move(ranks), std::move(keys), std::move(values));
      });
  m.class_<Head>("Head").def(torch::init<Tensor, Tensor, Tensor, bool>()).def("product", &Head::product);
}

}  // namespace tunery
