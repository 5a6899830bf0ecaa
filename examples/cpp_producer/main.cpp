// A producer without Python: the load and the memory of this machine, as a labhub channel.
//
//   cpp_producer [SECONDS_BETWEEN_SLOTS [PROC]]        Ctrl-C ends it; readers get the end of the stream
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <limits>
#include <string>

#include <labhub/location.hpp>
#include <labhub/producer.hpp>

struct Reading {  // one slot
  double load_1, load_5, load_15;                // processes that want to run, averaged over so many minutes
  std::int64_t memory_total, memory_available;  // kB
};

constexpr const char* kChannel = "host.load";
constexpr const char* kSchema =
    "[('load_1', '<f8'), ('load_5', '<f8'), ('load_15', '<f8'), ('memory_total', '<i8'), ('memory_available', '<i8')]";
constexpr const char* kUnits = "load_1=1,load_5=1,load_15=1,memory_total=kB,memory_available=kB";

volatile std::sig_atomic_t stopped = 0;
bool interrupted() { return stopped != 0; }

Reading read(const std::string& proc) {
  Reading r{};
  std::ifstream(proc + "/loadavg") >> r.load_1 >> r.load_5 >> r.load_15;
  std::ifstream memory(proc + "/meminfo");
  std::int64_t kilobytes;
  for (std::string key; memory >> key >> kilobytes; memory.ignore(std::numeric_limits<std::streamsize>::max(), '\n')) {
    if (key == "MemTotal:") r.memory_total = kilobytes;
    if (key == "MemAvailable:") r.memory_available = kilobytes;
  }
  return r;
}

int main(int n, char** words) try {
  const double seconds = n > 1 ? std::atof(words[1]) : 1.0;
  const std::string proc = n > 2 ? words[2] : "/proc";

  struct sigaction stop {};  // without SA_RESTART, so that it also ends a sleep
  stop.sa_handler = [](int) { stopped = 1; };
  sigaction(SIGINT, &stop, nullptr);
  sigaction(SIGTERM, &stop, nullptr);

  labhub::Shape shape;
  shape.capacity = 1024;
  shape.slot_nbytes = sizeof(Reading);
  labhub::Producer producer(labhub::segment_directory(), kChannel, shape);
  std::cout << "writing " << producer.path() << "; tell the broker:\n"
            << "  labhub register " << kChannel << " --schema \"" << kSchema << "\" --units " << kUnits << std::endl;

  // A slow lossless reader may hold us up for 5 seconds in all; one that does not move for a second is evicted.
  const labhub::Patience patience{5'000'000'000, 1'000'000'000};
  const auto whole = static_cast<time_t>(seconds);
  const timespec pause{whole, static_cast<long>((seconds - static_cast<double>(whole)) * 1e9)};
  while (!stopped) {
    producer.write(read(proc), patience, interrupted);
    nanosleep(&pause, nullptr);
  }
  return 0;  // the destructor closes the channel: the segment is removed
} catch (const labhub::Fault& fault) {
  if (fault.code == labhub::Code::interrupted) return 0;
  std::cerr << "cpp_producer: " << fault.what() << "\n";
  return 1;
}
