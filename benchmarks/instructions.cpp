// The hot calls of the native core, each in two loops of different length: what they differ by is the call's own.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "labhub/consumer.hpp"
#include "labhub/producer.hpp"

extern "C" void begin_counting();
extern "C" void end_counting(const char* name);

using namespace labhub;

namespace {

constexpr int kWarm = 250, kFew = 1000, kMany = 3000, kRun = 250;
constexpr std::uint64_t kSize = 64, kCapacity = 4096;

using Loop = std::function<void(int)>;
using Consumers = std::vector<std::unique_ptr<Consumer>>;

std::string directory;
std::uint8_t slots[kRun * kSize];

std::unique_ptr<Producer> producer(const char* name, std::uint64_t capacity = kCapacity) {
  Shape shape;
  shape.capacity = capacity;
  shape.slot_nbytes = kSize;
  return std::make_unique<Producer>(directory, name, shape);
}

Consumers consumers(const char* name, int n, bool lossless) {
  Consumers made;
  while (n-- > 0) made.push_back(std::make_unique<Consumer>(directory, name, lossless, kStartNewest));
  return made;
}

// `prepare` is not counted.
void count(const std::string& name, const Loop& run, const Loop& prepare = [](int) {}) {
  prepare(kWarm);  // the first call of a function looks it up
  run(kWarm);
  for (const int passes : {kFew, kMany}) {
    const std::string mark = "native/" + name + "/" + std::to_string(passes);
    prepare(passes);
    begin_counting();
    run(passes);
    end_counting(mark.c_str());
  }
}

void require(bool good) {
  if (!good) throw std::runtime_error("a call did something else than it was counted for");
}

void count_writing() {
  for (const int lossy : {0, 8}) {
    auto p = producer("write");
    const Consumers watching = consumers("write", lossy, false);
    count("write 64 B, " + std::to_string(lossy) + " lossy consumers", [&](int n) {
      while (n-- > 0) p->write(slots, kSize);
    });
  }
  auto p = producer("many");
  count("write_many, one slot", [&](int n) {
    std::uint64_t written;
    for (; n > 0; n -= kRun) p->write_many(slots, kRun, {}, nullptr, written = 0);
  });
  auto q = producer("claim");
  count("claim and commit", [&](int n) {
    while (n-- > 0) {
      q->claim({}, nullptr);
      q->commit(kSize);
    }
  });
}

void count_scans() {
  {
    auto p = producer("scan", 1);
    count("scan and write, no lossless consumer", [&](int n) {
      while (n-- > 0) require(p->try_write(slots, kSize).has_value());
    });
  }
  for (const int lossless : {1, 64}) {
    auto p = producer("scan", 1);
    const Consumers blocking = consumers("scan", lossless, true);
    require(p->try_write(slots, kSize).has_value());
    count("scan of a full ring, lossless consumers: " + std::to_string(lossless), [&](int n) {
      while (n-- > 0) require(!p->try_write(slots, kSize));
    });
  }
}

void count_reading() {
  for (const bool lossless : {false, true}) {
    const std::string mode = lossless ? ", lossless" : ", lossy";
    auto p = producer("read");
    Consumer c(directory, "read", lossless, kStartNewest);
    const Loop fill = [&](int n) {
      std::uint64_t written;
      for (; n > 0; n -= kRun) p->write_many(slots, kRun, {}, nullptr, written = 0);
    };
    count("acquire and release" + mode, [&](int n) {
      while (n-- > 0) {
        require(c.acquire(false, 0, false, nullptr) >= 0);
        c.release();
      }
    }, fill);
    count("step" + mode, [&](int n) {
      while (n-- > 0) require(c.step(false, 0, nullptr) >= 0);
    }, fill);
    c.release();
    std::vector<std::uint8_t> data(kRun * kSize);
    std::vector<HeaderCopy> headers(kRun);
    count("read, one slot of a batch" + mode, [&](int n) {
      for (; n > 0; n -= kRun) require(c.read(data.data(), headers.data(), kRun).count == kRun);
    }, fill);
  }
}

}  // namespace

int main(int n, char** words) {
  if (n != 2) return 2;
  directory = words[1];
  count_writing();
  count_scans();
  count_reading();
}
