// Every byte of a DataBlock segment. docs/spec describes the same bytes in words.
//
// A segment is one file: header lines, cursor lines, slot headers, payload. All integers are little-endian. Lines are
// 64 bytes and never shared between two writers of different roles, so that no writer slows another by false sharing.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace labhub {

constexpr std::uint64_t kMagic = 0x3142'4B4C'4248'4C00ULL;  // "\0LHBLKB1"
constexpr std::uint32_t kAbiVersion = 1;
constexpr std::size_t kLine = 64;
constexpr std::uint32_t kMaxLossless = 64;
constexpr std::uint32_t kMaxObservers = 64;
constexpr std::uint32_t kMaxLines = kMaxLossless + kMaxObservers;

// Lock bytes lie far beyond any data; a lock there needs no file contents.
constexpr std::int64_t kProducerLock = std::int64_t{1} << 62;
constexpr std::int64_t line_lock(std::uint32_t line) { return kProducerLock + 1 + line; }

enum Policy : std::uint8_t { kSingle = 0, kDoubleBuffer = 1, kRingBuffer = 2 };
enum SyncPolicy : std::uint8_t { kLatestOnly = 0, kSequential = 1, kSequentialSync = 2 };
enum Closed : std::uint32_t { kOpen = 0, kEnded = 1, kReplaced = 2 };
enum LineState : std::uint64_t { kFree = 0, kActive = 1, kEvicted = 2 };

static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::uint32_t>::is_always_lock_free,
              "atomics in shared memory must not need a lock");

struct alignas(kLine) Geometry {  // immutable once magic is stored
  std::atomic<std::uint64_t> magic;
  std::uint32_t abi;
  std::uint32_t header_nbytes;
  std::uint64_t capacity;
  std::uint64_t slot_nbytes;
  std::uint64_t stride;
  std::uint64_t slot_headers_offset;
  std::uint64_t payload_offset;
  std::uint64_t total_nbytes;
};

struct alignas(kLine) Identity {  // immutable once magic is stored
  std::uint8_t schema_hash[32];
  std::uint8_t instance_id[16];
  std::uint64_t shared_secret;
  std::uint8_t policy, sync, checksum, reserved[5];
};

struct alignas(kLine) CommitLine {
  std::atomic<std::uint64_t> commit;  // seq of the next slot to be committed: the head
  std::uint64_t first_seq;            // seq of the first slot of this instance
  std::int64_t created_ns;
};

struct alignas(kLine) DataLine {
  std::atomic<std::uint32_t> word;  // futex: low 31 bits of commit, then the waiters bit
};

struct alignas(kLine) SpaceLine {
  std::atomic<std::uint32_t> word;              // futex: counts wake-ups of the producer
  std::atomic<std::uint32_t> producer_waiting;  // 1 while the producer sleeps, or is about to
  std::atomic<std::uint64_t> wake_at;           // it wants to be woken by a cursor at or beyond this seq
  std::atomic<std::uint32_t> joined;            // counts lossless consumers that registered for slots that are there already
  std::atomic<std::uint32_t> seen;              // `joined` as the producer's last scan found it
};

struct alignas(kLine) OwnerLine {
  std::atomic<std::uint64_t> start_time;  // clock ticks since boot, for messages only
  std::atomic<std::uint32_t> pid;         // for messages only
  std::atomic<std::uint32_t> epoch;       // 1 for the creator, one more for each takeover and each step of its clock
  std::atomic<std::uint32_t> closed;      // Closed
  std::atomic<std::uint32_t> opened_epoch;  // with which this producer began; 0 if its labhub does not say
  std::atomic<std::int64_t> clock_offset_ns;  // from the monotonic clock to that of the slots
};

struct alignas(kLine) CounterLine {  // written by the producer, relaxed; read by tools
  std::atomic<std::uint64_t> bytes_written, aborts, evictions, blocked, blocked_ns, takeovers, timeouts, clock_steps;
};

struct Counter {
  const char* name;
  std::atomic<std::uint64_t> CounterLine::*member;
};
constexpr Counter kCounters[] = {
    {"bytes_written", &CounterLine::bytes_written}, {"aborts", &CounterLine::aborts},
    {"evictions", &CounterLine::evictions},         {"blocked", &CounterLine::blocked},
    {"blocked_ns", &CounterLine::blocked_ns},       {"takeovers", &CounterLine::takeovers},
    {"timeouts", &CounterLine::timeouts},           {"clock_steps", &CounterLine::clock_steps},
};

struct alignas(kLine) CursorLine {
  std::atomic<std::uint64_t> cursor;  // seq that the consumer reads next
  std::atomic<std::uint64_t> state;   // generation << 2 | LineState
  std::atomic<std::uint64_t> received, lost, start_time;
  std::atomic<std::uint64_t> received_before, lost_before;  // at the last reset; written by tools, read by tools
  std::atomic<std::uint32_t> pid;
};

struct alignas(kLine) SlotHeader {
  std::atomic<std::uint64_t> seq;  // 2 i + 1 while slot i is written and for ever in a hole, 2 i + 2 once it is complete
  std::atomic<std::int64_t> timestamp_ns;
  std::atomic<std::uint64_t> nbytes;
  std::atomic<std::uint32_t> flags;
  std::atomic<std::uint32_t> epoch;
  std::uint8_t checksum[32];
};

struct Header {
  Geometry geometry;
  Identity identity;
  CommitLine commit;
  DataLine data;
  SpaceLine space;
  OwnerLine owner;
  CounterLine counters;
  CounterLine before;  // the counters at the last reset: a reset writes here only, so that no live user notices it
  CursorLine lines[kMaxLines];  // lossless consumers first, then observers
};

static_assert(sizeof(Geometry) == 64 && sizeof(Identity) == 64 && sizeof(CursorLine) == 64 && sizeof(SlotHeader) == 64);
static_assert(offsetof(Header, identity) == 64 && offsetof(Header, commit) == 128 && offsetof(Header, data) == 192);
static_assert(offsetof(Header, space) == 256 && offsetof(Header, owner) == 320 && offsetof(Header, counters) == 384);
static_assert(offsetof(Header, before) == 448 && offsetof(Header, lines) == 512 && sizeof(Header) == 512 + 64 * kMaxLines);
static_assert(offsetof(CursorLine, received_before) == 40 && offsetof(CursorLine, pid) == 56);
static_assert(offsetof(SlotHeader, timestamp_ns) == 8 && offsetof(SlotHeader, nbytes) == 16);
static_assert(offsetof(SlotHeader, flags) == 24 && offsetof(SlotHeader, epoch) == 28);
static_assert(offsetof(SlotHeader, checksum) == 32);

constexpr std::uint64_t line_state(std::uint64_t generation, LineState s) { return generation << 2 | s; }
constexpr std::uint64_t writing(std::uint64_t i) { return 2 * i + 1; }
constexpr std::uint64_t complete(std::uint64_t i) { return 2 * i + 2; }
constexpr std::uint32_t data_word(std::uint64_t commit) { return static_cast<std::uint32_t>(commit << 1); }

}  // namespace labhub
