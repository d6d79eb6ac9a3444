// A product with a base's weights: in bfloat16 by oneDNN, or in eight bits.

#pragma once

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>

#include "eight.h"
#include "parallel.h"

namespace tunery {

using Pointwise = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, c10::string_view,
                             c10::List<std::optional<at::Scalar>>, std::optional<c10::string_view>);

struct Linear {
  at::Tensor weight;  // laid out by oneDNN
  at::Tensor bias;    // undefined for none
  Eight eight;        // undefined where the product is computed in bfloat16

  // The outputs, float32: what is added to them is not rounded twice. `before` is called for those from
  // a first to a last one that are computed next, where they are not computed all at once, and `then`
  // once they are there.
  template <class Before, class Then>
  at::Tensor operator()(const Rows& x, Before before, Then then) const {
    if (!eight.defined() || (tiles_allowed() && x.count > kMostTileRows)) {
      at::Tensor y = whole(x.plain).to(at::kFloat);
      const int64_t N = y.size(1);
      in_pieces((N + 31) / 32, 8, [&](int64_t first, int64_t last) { then(y, first * 32, std::min(N, last * 32)); });
      return y;
    }
    const int64_t N = eight.outputs;
    at::Tensor y = at::empty({x.count, N}, at::kFloat);
    const int64_t piece = std::max<int64_t>(1, 131072 / (32 * eight.inputs * std::max<int64_t>(1, x.count)));
    in_pieces((N + 31) / 32, piece, [&](int64_t first, int64_t last) {
      before(first * 32, std::min(N, last * 32));
      for (int64_t columns = first; columns < last; columns++) multiply_columns(x, eight, bias, columns, static_cast<float*>(y.data_ptr()));
      then(y, first * 32, std::min(N, last * 32));
    });
    return y;
  }

 private:
  at::Tensor whole(const at::Tensor& x) const {
    static const auto product = c10::Dispatcher::singleton()
                                    .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
                                    .typed<Pointwise>();
    const std::optional<at::Tensor> added = bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt;
    return product.call(x, weight, added, "none", c10::List<std::optional<at::Scalar>>(), std::nullopt);
  }
};

}  // namespace tunery
