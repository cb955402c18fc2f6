// Writes nonsense over the program's own heap, where all that ttmem reads lies.
#pragma once

#include <cstdint>

namespace standin {

/// Answers `ok`, and then does nothing else until the program is killed. At each moment `words` words
/// of the heap are wrong, by random choice from `seed`; each gets its own value back after a while.
/// With `still`, they are made wrong once and stay so.
///
/// Vtable pointers are left alone: an object that cannot be found cannot lead anybody astray.
[[noreturn]] void scribble(std::uint64_t seed, std::uint64_t words, bool still);

}  // namespace standin
