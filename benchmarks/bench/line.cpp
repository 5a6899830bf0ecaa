// How long a cache line takes from one CPU to the other and back: two processes that answer each other, spinning.
//
//   line FILE ping|pong
//
// ping prints nanoseconds; neither waits longer than a second for the other.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>

using Clock = std::chrono::steady_clock;

int main(int n, char** words) {
  if (n != 3) return 2;
  constexpr std::uint32_t kTrips = 2000, kWarm = 200;
  const int fd = ::open(words[1], O_RDWR | O_CREAT, 0600);
  if (fd < 0 || ::ftruncate(fd, 4096)) return 1;
  void* const at = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (at == MAP_FAILED) return 1;
  auto& word = *static_cast<std::atomic<std::uint32_t>*>(at);
  const auto limit = Clock::now() + std::chrono::seconds(1);
  const auto becomes = [&](std::uint32_t value) {
    for (std::uint32_t k = 1; word.load(std::memory_order_acquire) != value; ++k)
      if (k % 4096 == 0 && Clock::now() > limit) return false;
    return true;
  };
  const bool ping = std::strcmp(words[2], "ping") == 0;
  auto began = Clock::now();
  for (std::uint32_t k = 0; k < kTrips; ++k) {
    if (ping) word.store(2 * k + 1, std::memory_order_release);
    if (!becomes(2 * k + (ping ? 2 : 1))) return 1;
    if (!ping) word.store(2 * k + 2, std::memory_order_release);
    if (k == kWarm) began = Clock::now();
  }
  const std::chrono::duration<double, std::nano> taken = Clock::now() - began;
  if (ping) std::printf("%.1f\n", taken.count() / (kTrips - 1 - kWarm));
}
