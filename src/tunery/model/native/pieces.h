// Work on several threads, a little at a time.

#pragma once

#include <algorithm>
#include <cstdint>

namespace tunery {

// f(first, last) for pieces of [0, n), at most `piece` long, each by the thread that is free next: a
// thread that the system takes its core from, for a request to be read, holds up one piece only.
template <class F>
void in_pieces_on(int threads, int64_t n, int64_t piece, const F& f) {
  const int64_t pieces = (n + piece - 1) / piece;
  if (threads == 1 || pieces <= 1) {
    if (n) f(int64_t(0), n);
    return;
  }
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t i = 0; i < pieces; i++) f(i * piece, std::min(n, (i + 1) * piece));
}

}  // namespace tunery
