// How threads of ours live through the end of the interpreter. From then on Python ends every other thread that asks for the
// GIL: up to 3.13 by unwinding its stack, which ends the process if C++ stands on it, from 3.14 on by letting it wait for
// ever. Here such a thread waits for ever on all of them, and asks for nothing any more.
#pragma once
#include <nanobind/nanobind.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

namespace labhub {

class Ending {
 public:
  // Called by the thread that ends the interpreter, with the GIL, when nothing of ours has to be closed any more.
  static void begin() {
    mine_ = true;
    over_.store(true);
    PyThreadState* const state = PyEval_SaveThread();
    // Whoever is between `enter` and `leave` needs the GIL for a moment; whoever comes later sees `over_`. Both are
    // sequentially consistent, so nobody is in between unseen.
    const timespec nap{0, 200'000};
    for (int k = 0; k < kNaps && within_.load() > 0; ++k) ::nanosleep(&nap, nullptr);
    PyEval_RestoreThread(state);
  }
  static bool over() { return over_.load() && !mine_; }

  // Between these two, Python may end nobody: this thread asks for the GIL, or calls Python from C++. False: it must not.
  static bool enter() {
    within_.fetch_add(1);
    ++depth_;
    if (!over()) return true;
    leave();
    return false;
  }
  static void leave() {
    --depth_;
    within_.fetch_sub(1);
  }

  // Without the GIL. The kernel ends this thread together with the process.
  [[noreturn]] static void wait_for_ever() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
    within_.fetch_sub(depth_);
    for (;;) ::pause();
  }

  static void install() {
    static const int once = ::pthread_atfork(nullptr, nullptr, [] { within_.store(depth_); });  // the others are not there
    (void)once;
  }

 private:
  static constexpr int kNaps = 5000;  // a second
  static inline std::atomic<bool> over_{false};
  static inline std::atomic<int> within_{0};
  static inline thread_local int depth_ = 0;
  static inline thread_local bool mine_ = false;
};

// Other Python threads run meanwhile.
class NoGil {
 public:
  NoGil() : state_(PyEval_SaveThread()) {}
  ~NoGil() {
    if (!Ending::enter()) Ending::wait_for_ever();
    PyEval_RestoreThread(state_);
    Ending::leave();
  }
  NoGil(const NoGil&) = delete;

 private:
  PyThreadState* state_;
};

// Around each call from C++ into Python code, which may give the GIL away and ask for it again.
class CallsPython {
 public:
  CallsPython() {
    if (Ending::enter()) return;
    PyEval_SaveThread();
    Ending::wait_for_ever();
  }
  ~CallsPython() { Ending::leave(); }
  CallsPython(const CallsPython&) = delete;
};

// Looked at after every part of a wait that did not bring what was waited for: a pending Ctrl-C ends the wait, and so does
// the end of the interpreter.
inline bool signalled() {
  if (!Ending::enter()) return true;
  bool stop;
  {
    const nanobind::gil_scoped_acquire gil;
    stop = PyErr_CheckSignals() != 0;
  }
  Ending::leave();
  return stop;
}

// A large map takes long to go. It can go anywhere: in a close, with the last array that looks into it, in the collector.
inline void unmap(void* base, std::size_t nbytes) {
  constexpr std::size_t kLarge = 4 * 1024 * 1024;
  if (nbytes < kLarge || !Py_IsInitialized() || !PyGILState_Check()) {
    ::munmap(base, nbytes);
    return;
  }
  const NoGil nogil;
  ::munmap(base, nbytes);
}

}  // namespace labhub
