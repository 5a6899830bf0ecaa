// How a producer comes to its segment: create it, take a dead producer's over, or replace a dead one that differs.
#pragma once

#include <dirent.h>
#include <signal.h>

#include "endpoint.hpp"

namespace labhub {

struct Claimed {  // a segment whose producer lock we hold
  std::unique_ptr<Descriptor> file;
  std::shared_ptr<MemoryMap> map;
  struct stat status {};
  bool took_over = false;
};

inline void end_stream(Header& h, Closed how) {
  h.owner.closed.store(how, std::memory_order_release);  // pairs with the acquire loads in wait()
  LABHUB_FAILPOINT(end_flag_stored);
  // With a head that nobody expects. With the true one, a reader that sets the waiters bit just after this exchange, before
  // it sees the flag, would restore the very word on which another one, past its look at the flag, is about to sleep.
  wake_readers(h, h.commit.commit.load(std::memory_order_relaxed) + (std::uint64_t{1} << 30));
  LABHUB_FAILPOINT(end_readers_woken);
  wake_producer(h);
  LABHUB_FAILPOINT(end_producer_woken);
}

class SignalsHeld {  // no signal handler runs in this thread meanwhile, and no system call is interrupted
 public:
  SignalsHeld() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsHeld() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsHeld(const SignalsHeld&) = delete;

 private:
  sigset_t before_;
};

class Creation {
 public:
  Creation(const DirectoryHandle& dir, const std::string& name, const Shape& shape, std::uint64_t first_seq, Look look = {})
      : dir_(dir), name_(name), path_(dir.path + "/" + name), shape_(shape), first_seq_(first_seq), look_(std::move(look)) {
    if (!compute_sizes(shape.capacity, shape.slot_nbytes, page_size(), shape.page_nbytes, sizes_))
      throw Fault(Code::invalid_argument, "a ring of " + str(shape.capacity) + " slots of " + str(shape.slot_nbytes) +
                                          " bytes cannot be made");
  }

  Claimed run() {
    for (int attempt = 0; attempt < 200; ++attempt) {  // each retry means that somebody else made progress
      Claimed c;
      if (open_existing(c) || create(c)) {
        sweep(c.status);
        LABHUB_FAILPOINT(sweep_done);
        return c;
      }
    }
    throw Fault(Code::busy, "other producers keep creating and removing " + path_).with("pid", std::int64_t{0});
  }

 private:
  bool open_existing(Claimed& c) {
    OpenFile o;
    try {
      o = open_file(dir_, name_);
    } catch (const Fault& f) {
      if (f.code == Code::not_found) return false;
      throw;
    }
    if (!take_lock(o.file->get(), kProducerLock, path_)) return refuse_live(o);
    if (!still_there(dir_, name_, o.status)) return false;  // unlinked between open and lock
    LABHUB_FAILPOINT(takeover_locked);
    auto map = map_checked(o, path_, PROT_READ | PROT_WRITE, true, look_);
    Header& h = *reinterpret_cast<Header*>(map->base());
    if (h.owner.closed.load(std::memory_order_acquire) != kOpen) {  // its producer died between the flag and the unlink
      ::unlinkat(dir_.fd, name_.c_str(), 0);
      LABHUB_FAILPOINT(leftover_unlinked);
      return false;
    }
    if (!same_shape(h)) {
      end_stream(h, kReplaced);
      LABHUB_FAILPOINT(replace_ended);
      ::unlinkat(dir_.fd, name_.c_str(), 0);  // we hold its lock and it is still there: nobody else's
      LABHUB_FAILPOINT(replace_unlinked);
      return false;
    }
    if (h.identity.shared_secret != shape_.shared_secret)
      throw Fault(Code::token, path_ + " was created with another shared secret; use the same one to take it over");
    c.file = std::move(o.file);
    c.map = std::move(map);
    c.status = o.status;
    c.took_over = true;
    LABHUB_FAILPOINT(takeover_accepted);
    return true;
  }

  bool refuse_live(const OpenFile& o) {
    auto map = map_checked(o, path_, PROT_READ, false);
    const OwnerLine& owner = reinterpret_cast<Header*>(map->base())->owner;
    std::uint32_t pid = 0;
    // Whoever took the lock a moment ago has not signed yet, or only buries the segment: the name is a dead one's then.
    for (int look = 0; look < 100; ++look) {
      if (!locked_by_other(o.file->get(), kProducerLock, path_) || !still_there(dir_, name_, o.status)) return false;
      pid = owner.pid.load(std::memory_order_relaxed);
      if (start_time(str(pid)) == owner.start_time.load(std::memory_order_relaxed)) break;
      const timespec millisecond{0, 1'000'000};
      ::nanosleep(&millisecond, nullptr);
    }
    throw Fault(Code::busy, path_ + " already has a live producer, process " + str(pid) +
                            "; close that one first, or choose another channel name").with("pid", std::int64_t{pid});
  }

  bool same_shape(const Header& h) const {
    const Geometry& g = h.geometry;
    return g.capacity == shape_.capacity && g.slot_nbytes == shape_.slot_nbytes && g.total_nbytes == sizes_.total_nbytes &&
           std::memcmp(h.identity.schema_hash, shape_.schema_hash, 32) == 0 && h.identity.policy == shape_.policy &&
           h.identity.sync == shape_.sync && h.identity.checksum == shape_.checksum;
  }

  Fault no_space(const std::string& why, std::uint64_t free) const {
    return Fault(Code::space, path_ + " needs " + str(sizes_.total_nbytes) + " bytes, " + str(free) + " are free (" + why +
                 "); use a smaller capacity, or set LABHUB_SHM_DIR to a larger file system")
        .with("needed", static_cast<std::int64_t>(sizes_.total_nbytes)).with("free", static_cast<std::int64_t>(free));
  }

  bool create(Claimed& c) {
    struct statvfs fs {};
    if (::fstatvfs(dir_.fd, &fs) != 0) throw system_fault(errno, "cannot inspect", dir_.path);
    const std::uint64_t free = std::uint64_t{fs.f_bavail} * fs.f_frsize;
    if (free < sizes_.total_nbytes) throw no_space("checked before anything was created", free);

    std::uint64_t random = 0;
    if (::getrandom(&random, sizeof random, 0) != sizeof random) throw system_fault(errno, "no random bytes for", path_);
    const std::string temporary = "." + name_ + "." + str(::getpid()) + "." + str(random) + ".tmp";
    const int fd = ::openat(dir_.fd, temporary.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) throw system_fault(errno, "cannot create", path_);
    c.file = std::make_unique<Descriptor>(fd);
    LABHUB_FAILPOINT(create_opened);
    try {
      const bool filled = fill(c, free);  // false: it is being swept away, between open and lock
      const bool linked = filled && ::linkat(dir_.fd, temporary.c_str(), dir_.fd, name_.c_str(), 0) == 0;
      if (filled && !linked && errno != EEXIST && errno != ENOENT)  // somebody was faster; it was swept away
        throw system_fault(errno, "cannot link", path_);
      LABHUB_FAILPOINT(create_linked);
      ::unlinkat(dir_.fd, temporary.c_str(), 0);
      LABHUB_FAILPOINT(create_unlinked);
      return linked;
    } catch (...) {
      ::unlinkat(dir_.fd, temporary.c_str(), 0);
      throw;
    }
  }

  // Give the file its size for good: with ftruncate alone a full tmpfs would kill the writer with SIGBUS later.
  bool fill(Claimed& c, std::uint64_t free) {
    const int fd = c.file->get();
    if (!take_lock(fd, kProducerLock, path_)) return false;
    LABHUB_FAILPOINT(create_locked);
    const int error = allocate(fd);
    if (error == ENOSPC || error == EFBIG) throw no_space(std::strerror(error), free);
    if (error) throw system_fault(error, "cannot allocate", path_);
    LABHUB_FAILPOINT(create_allocated);
    if (::fstat(fd, &c.status) != 0) throw system_fault(errno, "cannot inspect", path_);
    c.map = std::make_shared<MemoryMap>(fd, sizes_.total_nbytes, PROT_READ | PROT_WRITE, true, look_);
    LABHUB_FAILPOINT(create_mapped);
    initialise(*reinterpret_cast<Header*>(c.map->base()));
    return true;
  }

  // Signals come between the parts. During one, the kernel would give up what it has of it: a timer that is faster than a
  // part would keep us here for ever.
  int allocate(int fd) const {
    for (std::uint64_t at = 0; at < sizes_.total_nbytes; at += kPart) {
      if (look_) look_();
      const SignalsHeld hold;
      const auto n = static_cast<off_t>(std::min(kPart, sizes_.total_nbytes - at));
      if (const int error = ::posix_fallocate(fd, static_cast<off_t>(at), n)) return error;
    }
    return 0;
  }

  void initialise(Header& h) {  // the file is all zeros and nobody else can see it yet
    Geometry& g = h.geometry;
    g.abi = kAbiVersion;
    g.header_nbytes = sizeof(Header);
    g.capacity = shape_.capacity;
    g.slot_nbytes = shape_.slot_nbytes;
    g.stride = sizes_.stride;
    g.slot_headers_offset = sizes_.slot_headers_offset;
    g.payload_offset = sizes_.payload_offset;
    g.total_nbytes = sizes_.total_nbytes;
    Identity& id = h.identity;
    std::memcpy(id.schema_hash, shape_.schema_hash, sizeof id.schema_hash);
    if (::getrandom(id.instance_id, sizeof id.instance_id, 0) != sizeof id.instance_id)
      throw system_fault(errno, "no random bytes for", path_);
    id.shared_secret = shape_.shared_secret;
    id.policy = shape_.policy;
    id.sync = shape_.sync;
    id.checksum = shape_.checksum;
    h.commit.first_seq = first_seq_;
    h.commit.created_ns = clock_ns(CLOCK_REALTIME);
    h.commit.commit.store(first_seq_, std::memory_order_relaxed);
    h.data.word.store(data_word(first_seq_), std::memory_order_relaxed);
    sign(h.owner);  // before the file has a name: whoever is refused by us is told by whom
    LABHUB_FAILPOINT(create_initialised);
    g.magic.store(kMagic, std::memory_order_release);  // pairs with the acquire load in map_checked
    LABHUB_FAILPOINT(create_finished);
  }

  // Remove what creators of this channel left behind when they died, and our own second name if one did between link and
  // unlink. A file whose lock is held is being created by somebody who lives.
  void sweep(const struct stat& mine) const {
    const int fd = ::openat(dir_.fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR* entries = fd < 0 ? nullptr : ::fdopendir(fd);
    if (!entries) {
      if (fd >= 0) ::close(fd);
      return;
    }
    const std::string prefix = "." + name_ + ".";
    while (const dirent* e = ::readdir(entries)) {
      const std::string entry = e->d_name;
      if (entry.compare(0, prefix.size(), prefix) != 0 || entry.size() < 4 || entry.compare(entry.size() - 4, 4, ".tmp") != 0)
        continue;
      try {
        const OpenFile o = open_file(dir_, entry);
        const bool ours = o.status.st_ino == mine.st_ino && o.status.st_dev == mine.st_dev;
        if (!ours && !(take_lock(o.file->get(), kProducerLock, path_) && still_there(dir_, entry, o.status))) continue;
        LABHUB_FAILPOINT(sweep_locked);
        ::unlinkat(dir_.fd, entry.c_str(), 0);
      } catch (const Fault&) {  // not ours, or gone meanwhile: leave it
      }
    }
    ::closedir(entries);
  }

  const DirectoryHandle& dir_;
  std::string name_, path_;
  Shape shape_;
  std::uint64_t first_seq_;
  Look look_;
  Sizes sizes_{};
};

}  // namespace labhub
