// Work on as many threads as torch has.

#pragma once

#include <ATen/Parallel.h>

#include "pieces.h"

namespace tunery {

template <class F>
void in_pieces(int64_t n, int64_t piece, const F& f) {
  in_pieces_on(at::get_num_threads(), n, piece, f);
}

}  // namespace tunery
