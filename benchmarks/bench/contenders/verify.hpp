// How a slot is verified, by `pair.cpp` and by `payload.py` alike: one word of each cache line is read.
#pragma once
#include <cstdint>

inline std::uint64_t sum_of_lines(const std::uint8_t* slot, std::uint64_t lines) {
  constexpr std::uint64_t kWords = 8;
  const auto* words = reinterpret_cast<const std::uint64_t*>(slot);
  std::uint64_t sum = 0;
  for (std::uint64_t line = 0; line < lines; ++line) sum += words[line * kWords];
  return sum;
}
