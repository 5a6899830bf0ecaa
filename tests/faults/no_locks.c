// A file system that cannot hold locks: preloaded, every lock fails with the errno in the file $NO_LOCKS (an int64), and
// works while that is 0.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static const volatile int64_t *failing;

__attribute__((constructor)) static void open_errno(void) {
  int file = open(getenv("NO_LOCKS"), O_RDONLY | O_CLOEXEC);
  failing = mmap(NULL, sizeof *failing, PROT_READ, MAP_SHARED, file, 0);
  if (failing == MAP_FAILED) abort();
  close(file);
}

static int fails(void) {
  if (!*failing) return 0;
  errno = (int)*failing;
  return 1;
}

int fcntl64(int file, int command, ...) {
  va_list rest;
  va_start(rest, command);
  void *argument = va_arg(rest, void *);
  va_end(rest);
  if ((command == F_OFD_SETLK || command == F_OFD_GETLK) && fails()) return -1;
  return (int)syscall(SYS_fcntl, file, command, argument);
}

int fcntl(int file, int command, ...) {
  va_list rest;
  va_start(rest, command);
  void *argument = va_arg(rest, void *);
  va_end(rest);
  return fcntl64(file, command, argument);
}

int flock(int file, int operation) {
  if (fails()) return -1;
  return (int)syscall(SYS_flock, file, operation);
}
