// A full ring and CONSUMERS lossless readers that do not read: each try_write is one scan of the cursor lines. Prints the
// nanoseconds of one.
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "labhub/consumer.hpp"
#include "labhub/producer.hpp"

using namespace labhub;

int main(int n, char** words) {
  if (n != 4) return 2;
  Shape shape;
  shape.capacity = 8;
  shape.slot_nbytes = 64;
  Producer producer(words[1], "scan", shape);
  std::vector<std::unique_ptr<Consumer>> consumers;
  for (int k = std::atoi(words[2]); k > 0; --k)
    consumers.push_back(std::make_unique<Consumer>(words[1], "scan", true, kStartNewest));
  const std::uint8_t slot[64] = {};
  while (producer.try_write(slot, sizeof slot)) continue;
  const int looks = std::atoi(words[3]);
  const std::int64_t began = monotonic_ns();
  for (int k = looks; k > 0; --k)
    if (producer.try_write(slot, sizeof slot)) return 1;
  std::printf("%.2f\n", static_cast<double>(monotonic_ns() - began) / looks);
}
