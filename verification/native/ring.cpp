// The real ring under threads: ring <directory> <one|two> <slots>. Every scenario checks payloads, counts and bounded waits.
#include "common.hpp"

#include <csignal>
#include <random>
#include <thread>

namespace {

using namespace verify;
using labhub::HeaderCopy;
using labhub::Patience;

constexpr std::uint64_t kCapacity = 4, kWords = 64, kSlotNbytes = 8 * kWords;
std::string directory;
bool one_mapping;
std::uint64_t slots;

std::int64_t give_up_at;
bool too_late() { return labhub::monotonic_ns() > give_up_at; }  // turns a hang into Code::interrupted, and so into a failure

std::shared_ptr<labhub::MemoryMap> common_map(const labhub::Producer& p) {
  return one_mapping ? p.segment().map() : nullptr;
}
std::uint64_t committed_nbytes(std::uint64_t seq) { return seq % 3 ? kSlotNbytes : 8 * (1 + seq % kWords); }

void fill(std::uint8_t* to, std::uint64_t seq, std::uint64_t words = kWords) {
  for (std::uint64_t k = 0; k < words; ++k) reinterpret_cast<std::uint64_t*>(to)[k] = word_of(seq, k);
}
void check_payload(const std::uint8_t* data, std::uint64_t seq, std::uint64_t nbytes) {
  const auto* words = reinterpret_cast<const std::uint64_t*>(data);
  for (std::uint64_t k = 0; k < nbytes / 8; ++k)
    expect(words[k] == word_of(seq, k), "slot " + std::to_string(seq) + " is torn at word " + std::to_string(k));
}

template <class Act>
auto without_fault(Act act) {
  try {
    return act();
  } catch (const Fault& f) {
    fail(std::string("the producer: ") + f.what());
  }
}

// One slot or a few, in each of the ways that there are; the seq to go on with.
std::uint64_t try_to_write_some(labhub::Producer& p, std::uint64_t seq, std::uint64_t end, const Patience& patience) {
  std::vector<std::uint8_t> data(3 * kSlotNbytes);
  const std::uint64_t run = std::min<std::uint64_t>(3, end - seq);
  for (std::uint64_t k = 0; k < run; ++k) fill(&data[k * kSlotNbytes], seq + k);
  switch (seq % 4) {
    case 0:
      expect(p.write(data.data(), committed_nbytes(seq), patience, labhub::kNow, too_late) == seq, "write gives another seq");
      return seq + 1;
    case 1: {
      std::uint64_t written = 0;
      p.write_many(data.data(), run, patience, too_late, written);
      expect(written == run, "write_many wrote less");
      return seq + run;
    }
    case 2:
      expect(p.claim(patience, too_late) == seq, "claim gives another seq");
      p.abort();
      [[fallthrough]];
    default:
      expect(p.claim(patience, too_late) == seq, "a claim after an abort gives another seq");
      fill(p.segment().payload(seq), seq);
      expect(p.commit(committed_nbytes(seq)) == seq, "commit gives another seq");
      return seq + 1;
  }
}

std::uint64_t write_some(labhub::Producer& p, std::uint64_t seq, std::uint64_t end, const Patience& patience) {
  return without_fault([&] { return try_to_write_some(p, seq, end, patience); });
}

// The seqs that nobody writes: every other one, more or less, and now and then more than the ring holds.
bool perforated = false;
bool is_hole(std::uint64_t seq) {
  return perforated && seq + 1 < slots && (word_of(seq, 0) >> 63 || seq / kCapacity % 16 < 3);
}

// Slots with these seqs, as if they had come from another ring.
struct Copies {
  Copies(const std::vector<std::uint64_t>& seqs, std::uint64_t slot_nbytes) : data(seqs.size() * slot_nbytes), headers(seqs.size()) {
    for (std::size_t k = 0; k < seqs.size(); ++k) {
      fill(&data[k * slot_nbytes], seqs[k], slot_nbytes / 8);
      headers[k].seq = seqs[k];
      headers[k].nbytes = slot_nbytes;
    }
  }
  void write(labhub::Producer& p, const Patience& patience) const {
    std::uint64_t written = 0;
    p.write_copies(data.data(), headers.data(), headers.size(), patience, too_late, written);
    if (written != headers.size()) fail("write_copies wrote less");  // a signal handler makes no string that nobody needs
  }
  std::vector<std::uint8_t> data;
  std::vector<HeaderCopy> headers;
};

struct Tally {
  std::uint64_t received = 0, lost = 0, next = 0;

  void take(std::uint64_t seq) {
    expect(seq >= next, "seq does not rise");
    expect(!is_hole(seq), "a hole was read");
    next = seq + 1;
    ++received;
  }
};

enum class Way { batches, in_place, copied_slot };

void continue_after_lapse(labhub::Consumer& c) {  // a lapse that open_header found leaves the slot open
  try {
    c.release();
  } catch (const Fault& f) {
    expect(f.code == Code::lapped, std::string("a release after a lapse: ") + f.what());
  }
}

// Read until the stream ends. `in_place` looks into the shared payload with instrumented code: only for a lossless reader
// that is never evicted, where ThreadSanitizer must find the accesses ordered.
Tally drain(labhub::Consumer& c, Way way, bool may_be_evicted, unsigned stall) {
  Tally t;
  std::vector<std::uint8_t> data(kCapacity * kSlotNbytes);
  std::vector<HeaderCopy> headers(kCapacity);
  bool open = false;
  for (unsigned round = 0;; ++round) {
    if (stall && round % stall == 0) std::this_thread::yield();
    try {
      if (way == Way::batches) {
        if (c.wait(1 + round % 2, -1, false, too_late) < 0) break;
        const labhub::Got got = c.read(data.data(), headers.data(), 1 + round % kCapacity);
        for (std::uint64_t k = 1; c.lossless() && k <= got.lost; ++k)
          expect(is_hole(got.first - k), "a lossless reader lost slots and was not told that it was evicted");
        t.lost += got.lost;
        for (std::uint64_t k = 0; k < got.count; ++k) {
          check_payload(&data[k * kSlotNbytes], got.first + k, headers[k].nbytes);
          t.take(got.first + k);
        }
        continue;
      }
      const std::int64_t seq = c.acquire(false, -1, false, too_late);
      if (seq < 0) break;
      open = true;
      const HeaderCopy h = c.open_header();
      const std::uint8_t* payload = c.segment().payload(static_cast<std::uint64_t>(seq));
      if (way == Way::copied_slot) labhub::racy_copy(data.data(), payload, h.nbytes);
      else check_payload(payload, h.seq, h.nbytes);
      open = false;
      c.release();
      if (way == Way::copied_slot) check_payload(data.data(), h.seq, h.nbytes);
      t.take(h.seq);
    } catch (const Fault& f) {
      if (f.code == Code::evicted && may_be_evicted) {
        open = false;
      } else if (f.code == Code::lapped && !c.lossless()) {
        if (open) continue_after_lapse(c);
        open = false;
      } else {
        fail(std::string("a reader: ") + f.what());
      }
    }
  }
  t.lost = c.lost();
  return t;
}

void expect_all(const Tally& t, const std::string& who) {
  expect(t.received + t.lost == slots, who + ": " + std::to_string(t.received) + " received and " + std::to_string(t.lost) +
                                       " lost are not " + std::to_string(slots));
}

struct Reader {
  Reader(const labhub::Producer& p, const std::string& name, bool lossless, Way way, bool may_be_evicted, unsigned stall)
      : consumer(directory, name, lossless, labhub::kStartNewest) {
    consumer.move_to(common_map(p));
    thread = std::thread([=] { tally = drain(consumer, way, may_be_evicted, stall); });
  }
  Consumer consumer;
  Tally tally;
  std::thread thread;
};

using Readers = std::vector<std::unique_ptr<Reader>>;

void join(Readers& readers) {
  for (auto& r : readers) r->thread.join();
}

void stream() {
  auto p = std::make_unique<Producer>(directory, "stream", shape_of(kCapacity, kSlotNbytes, labhub::kSequentialSync));
  Readers readers;
  readers.push_back(std::make_unique<Reader>(*p, "stream", true, Way::batches, false, 0));
  readers.push_back(std::make_unique<Reader>(*p, "stream", true, Way::in_place, false, 3));
  readers.push_back(std::make_unique<Reader>(*p, "stream", false, Way::batches, false, 2));
  for (std::uint64_t seq = 0; seq < slots;) seq = write_some(*p, seq, slots, {});
  p->close();
  join(readers);
  for (auto& r : readers) {
    expect_all(r->tally, r->consumer.lossless() ? "a lossless reader" : "a lossy reader");
    if (r->consumer.lossless()) expect(r->tally.lost == 0, "a lossless reader lost slots");
  }
}

void lossy() {  // nobody holds the producer up: every copy races with it
  auto p = std::make_unique<Producer>(directory, "lossy", shape_of(kCapacity, kSlotNbytes, labhub::kLatestOnly));
  Readers readers;
  readers.push_back(std::make_unique<Reader>(*p, "lossy", false, Way::batches, false, 0));
  readers.push_back(std::make_unique<Reader>(*p, "lossy", false, Way::copied_slot, false, 0));
  for (std::uint64_t seq = 0; seq < 4 * slots;) seq = write_some(*p, seq, 4 * slots, {});
  p->close();
  join(readers);
  for (auto& r : readers)
    expect(r->tally.received + r->tally.lost == 4 * slots, "a lossy reader's counts are wrong");
}

void holes() {
  perforated = true;
  auto p = std::make_unique<Producer>(directory, "holes", shape_of(kCapacity, kSlotNbytes, labhub::kSequentialSync));
  Readers readers;
  readers.push_back(std::make_unique<Reader>(*p, "holes", true, Way::batches, false, 3));
  readers.push_back(std::make_unique<Reader>(*p, "holes", true, Way::in_place, false, 0));
  readers.push_back(std::make_unique<Reader>(*p, "holes", false, Way::batches, false, 2));
  readers.push_back(std::make_unique<Reader>(*p, "holes", false, Way::copied_slot, false, 0));
  std::uint64_t written = 0;
  for (std::uint64_t seq = 0; seq < slots;) {
    std::vector<std::uint64_t> seqs;
    for (const std::uint64_t n = 1 + written % 3; seq < slots && seqs.size() < n; ++seq)
      if (!is_hole(seq)) seqs.push_back(seq);
    without_fault([&] { Copies(seqs, kSlotNbytes).write(*p, {}); });
    written += seqs.size();
  }
  p->close();
  join(readers);
  for (auto& r : readers) {
    expect_all(r->tally, "a reader over holes");
    if (r->consumer.lossless()) expect(r->tally.received == written, "a lossless reader lost more than holes");
  }
  perforated = false;
}

// Holes that fill the ring keep lossless readers from the slot behind them only until they have passed over them.
void full_of_holes() {
  Producer p(directory, "full", shape_of(kCapacity, kSlotNbytes, labhub::kSequentialSync));
  Consumer c(directory, "full", true, labhub::kStartNewest);
  std::vector<std::uint8_t> data(kCapacity * kSlotNbytes);
  std::vector<HeaderCopy> headers(kCapacity);
  const auto write = [&] { Copies({10 * kCapacity}, kSlotNbytes).write(p, Patience{0, -1}); };
  try {
    write();
    fail("there was room behind holes that nobody has seen");
  } catch (const Fault& f) {
    expect(f.code == Code::backpressure, f.message);
  }
  expect(c.wait(1, 0, false, too_late) > 0, "holes that fill the ring are not shown");
  while (c.cursor() < c.head()) expect(c.read(data.data(), headers.data(), kCapacity).count == 0, "a hole was read");
  write();
  expect(c.read(data.data(), headers.data(), kCapacity).first == 10 * kCapacity, "the slot behind the holes is not there");
  expect(c.lost() == 10 * kCapacity, "the count of the holes is wrong");
}

void eviction() {  // whoever fills the ring is evicted at once
  auto p = std::make_unique<Producer>(directory, "eviction", shape_of(kCapacity, kSlotNbytes, labhub::kSequentialSync));
  Readers readers;
  readers.push_back(std::make_unique<Reader>(*p, "eviction", true, Way::batches, true, 2));
  readers.push_back(std::make_unique<Reader>(*p, "eviction", true, Way::copied_slot, true, 1));
  for (std::uint64_t seq = 0; seq < slots;) seq = write_some(*p, seq, slots, Patience{-1, 0});
  const std::uint64_t evictions = p->header().counters.evictions.load();
  p->close();
  join(readers);
  expect(evictions > 0, "nobody was evicted");
  for (auto& r : readers) expect_all(r->tally, "an evicted reader");
}

// Stopped in the middle of a copy: the second page of the reader's buffer is not there, and the handler of the fault lets the
// producer overwrite the slot before it provides the page.
std::uint8_t* trap_page;
std::function<void()> meanwhile;

void on_fault(int, siginfo_t* info, void*) {
  auto* at = static_cast<std::uint8_t*>(info->si_addr);
  if (at < trap_page || at >= trap_page + 4096) fail("a segmentation fault of another origin");
  ::mprotect(trap_page, 4096, PROT_READ | PROT_WRITE);
  meanwhile();
}

void overtaken() {
  constexpr std::uint64_t kPages = 8192, kBytes = kCapacity * kPages;
  struct sigaction action {}, before {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  ::sigaction(SIGSEGV, &action, &before);
  auto* data = static_cast<std::uint8_t*>(::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  struct Case {
    bool lossless;
    std::uint64_t holes;
  };
  for (const Case way : {Case{true, 0}, Case{false, 0}, Case{false, kCapacity - 1}}) {
    Producer p(directory, "overtaken", shape_of(kCapacity, kPages, labhub::kSequentialSync));
    Consumer c(directory, "overtaken", way.lossless, labhub::kStartNewest);
    Copies({0, 1, 2, 3}, kPages).write(p, {});
    const Copies next({kCapacity + way.holes}, kPages);  // made before the signal handler, which may not allocate
    bool happened = false;
    meanwhile = [&] {
      happened = true;
      next.write(p, Patience{-1, 0});
    };
    trap_page = data + 4096;
    ::mprotect(trap_page, 4096, PROT_NONE);
    HeaderCopy headers[kCapacity];
    try {
      const labhub::Got got = c.read(data, headers, kCapacity);
      expect(!way.lossless, "a lossless reader that was evicted in the middle of a copy was not told");
      if (way.holes) expect(got.first == kCapacity + way.holes && got.count == 1 && got.lost == got.first, "a clobbered slot was read");
      else expect(got.first == 1 && got.count == kCapacity - 1 && got.lost == 1, "the clobbered slot is not the one that is lost");
      for (std::uint64_t k = 0; k < got.count; ++k) check_payload(data + k * kPages, got.first + k, kPages);
    } catch (const Fault& f) {
      expect(way.lossless && f.code == Code::evicted, f.message);
      expect(f.numbers.at(0).second == static_cast<std::int64_t>(kCapacity + 1), "the eviction names another loss");
    }
    expect(happened, "the copy was not interrupted");
  }
  ::munmap(data, kBytes);
  ::sigaction(SIGSEGV, &before, nullptr);
}

void churn() {  // lossless readers come and go
  auto p = std::make_unique<Producer>(directory, "churn", shape_of(kCapacity, kSlotNbytes, labhub::kSequentialSync));
  std::atomic<bool> over{false};
  std::vector<std::thread> threads;
  for (unsigned who = 0; who < 2; ++who)
    threads.emplace_back([&, who] {
      std::vector<std::uint8_t> data(kCapacity * kSlotNbytes);
      std::vector<HeaderCopy> headers(kCapacity);
      for (unsigned round = who; !over.load(); ++round) {
        try {
          Consumer c(directory, "churn", true, round % 3 ? labhub::kStartNewest : labhub::kStartOldest);
          c.move_to(common_map(*p));
          for (unsigned k = 0; k < round % 7 && c.wait(1, -1, false, too_late) > 0; ++k) {
            const std::uint64_t before = c.cursor();
            const labhub::Got got = c.read(data.data(), headers.data(), kCapacity);
            if (round % 3) expect(got.lost == 0 && got.first == before, "a registered reader was overrun");
            for (std::uint64_t i = 0; i < got.count; ++i) check_payload(&data[i * kSlotNbytes], got.first + i, headers[i].nbytes);
          }
          if (round % 5 == 4) c.die();  // instead of leaving
        } catch (const Fault& f) {
          expect(f.code == Code::not_found, std::string("churn: ") + f.what());
        }
      }
    });
  for (std::uint64_t seq = 0; seq < slots;) seq = write_some(*p, seq, slots, {});
  p->close();
  over.store(true);
  for (auto& t : threads) t.join();
}

void takeover() {  // die idle, in the middle of a slot, or between the slot and its commit; readers go on
  const auto shape = shape_of(kCapacity, kSlotNbytes, labhub::kSequentialSync);
  auto p = std::make_unique<Producer>(directory, "takeover", shape);
  const auto map = common_map(*p);
  Readers readers;
  readers.push_back(std::make_unique<Reader>(*p, "takeover", true, Way::in_place, false, 0));
  readers.push_back(std::make_unique<Reader>(*p, "takeover", false, Way::batches, false, 0));
  std::mt19937_64 random(1);
  std::uint64_t seq = 0, deaths = 0;
  while (seq < slots) {
    for (std::uint64_t n = random() % 100; n && seq < slots; --n) seq = write_some(*p, seq, slots, {});
    if (seq == slots) break;
    const unsigned step = random() % 3;
    if (step) {
      without_fault([&] { return p->claim({}, too_late); });
      fill(p->segment().payload(seq), seq);
    }
    if (step == 2) {
      p->segment().slot(seq).nbytes.store(kSlotNbytes, std::memory_order_relaxed);
      p->segment().slot(seq).seq.store(labhub::complete(seq), std::memory_order_release);
      ++seq;
    }
    p->die();
    p = without_fault([&] { return std::make_unique<Producer>(directory, "takeover", shape); });
    expect(p->took_over() && p->epoch() == ++deaths + 1, "the segment was not taken over");
    expect(p->head() == seq, "the successor goes on at " + std::to_string(p->head()) + ", not " + std::to_string(seq));
    p->move_to(map);
  }
  p->close();
  join(readers);
  expect(deaths > 10, "nobody died");
  for (auto& r : readers) expect_all(r->tally, "a reader over takeovers");
}

// A wait that was woken ends at once, one that was forgotten ends with its slice of 50 ms. A loaded machine may delay one
// or the other, but not most of them.
template <class Act>
void expect_prompt(const char* what, Act act) {
  int slow = 0;
  constexpr int kRounds = 12;
  for (int round = 0; round < kRounds; ++round) slow += act(round) ? 1 : 0;
  expect(slow <= kRounds / 2, std::string(what) + ": " + std::to_string(slow) + " of " + std::to_string(kRounds) + " waits lasted a whole slice");
}

template <class Condition>
void until(Condition holds) {
  while (!holds()) {
    if (too_late()) fail("a condition did not come true");
    std::this_thread::yield();
  }
}

// From the act until the other thread is through, longer than most of a slice?
template <class Wait, class Armed, class Wake>
bool lasts(Wait wait, Armed armed, Wake wake) {
  std::atomic<std::int64_t> done{0};
  std::thread t([&] {
    wait();
    done.store(labhub::monotonic_ns());
  });
  until(armed);
  until([began = labhub::monotonic_ns()] { return labhub::monotonic_ns() - began > 2'000'000; });  // from armed to asleep
  const std::int64_t acted = labhub::monotonic_ns();
  wake();
  t.join();
  return done.load() - acted > labhub::kSlice / 2;
}

void wakes() {
  const auto shape = shape_of(kCapacity, kSlotNbytes, labhub::kSequentialSync);
  std::vector<std::uint8_t> data(kCapacity * kSlotNbytes);
  std::vector<HeaderCopy> headers(kCapacity);
  const auto armed = [](labhub::Producer& p) { return [&p] { return (p.header().data.word.load() & 1) != 0; }; };
  const auto blocked = [](labhub::Producer& p) { return [&p] { return p.header().space.producer_waiting.load() != 0; }; };

  expect_prompt("a commit wakes readers", [&](int) {
    Producer p(directory, "wakes", shape);
    Consumer c(directory, "wakes", false, labhub::kStartNewest);
    return lasts([&] { c.wait(1, -1, false, too_late); }, armed(p), [&] { p.write(data.data(), 8, {}, labhub::kNow, too_late); });
  });
  expect_prompt("closing wakes readers", [&](int round) {
    Producer p(directory, "wakes", shape);
    Consumer c(directory, "wakes", round % 2 == 0, labhub::kStartNewest);
    return lasts([&] { expect(c.wait(1, -1, false, too_late) == labhub::kStreamEnded, "no end"); }, armed(p), [&] { p.close(); });
  });
  for (const bool leaving : {false, true})
    expect_prompt(leaving ? "leaving wakes the producer" : "reading wakes the producer", [&](int) {
      Producer p(directory, "wakes", shape);
      Consumer c(directory, "wakes", true, labhub::kStartNewest);
      for (std::uint64_t k = 0; k < kCapacity; ++k) p.write(data.data(), 8, {}, labhub::kNow, too_late);
      return lasts([&] { p.write(data.data(), 8, {}, labhub::kNow, too_late); }, blocked(p), [&] {
        if (leaving) c.close();
        else c.read(data.data(), headers.data(), kCapacity);
      });
    });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) fail("usage: ring <directory> <one|two> <slots>");
  directory = argv[1];
  one_mapping = std::string(argv[2]) == "one";
  slots = std::strtoull(argv[3], nullptr, 10);
  give_up_at = labhub::monotonic_ns() + 150'000'000'000;
  // The short ones first: a mutant without a wake-up makes the long ones very long.
  const std::pair<const char*, void (*)()> scenarios[] = {{"wakes", wakes},       {"overtaken", overtaken}, {"full of holes", full_of_holes},
                                                          {"takeover", takeover}, {"stream", stream},       {"lossy", lossy},
                                                          {"holes", holes},       {"eviction", eviction},   {"churn", churn}};
  for (const auto& [name, run] : scenarios) {
    const std::int64_t began = labhub::monotonic_ns();
    try {
      run();
    } catch (const Fault& f) {
      fail(std::string(name) + ": " + f.what());
    }
    std::printf("%s %lld ms\n", name, static_cast<long long>((labhub::monotonic_ns() - began) / 1'000'000));
  }
  std::printf("HOLDS iterations=%llu\n", static_cast<unsigned long long>(9 * slots));
}
