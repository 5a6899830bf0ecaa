// Where counting begins and ends, for a program that runs under callgrind; anywhere else the two do nothing.
#include <valgrind/callgrind.h>

extern "C" void begin_counting() { CALLGRIND_START_INSTRUMENTATION; }
extern "C" void end_counting(const char* name) {
  CALLGRIND_DUMP_STATS_AT(name);
  CALLGRIND_STOP_INSTRUMENTATION;
}
