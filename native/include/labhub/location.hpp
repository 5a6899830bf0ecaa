// Where the segments of a broker are, for programs without Python: the same rules as labhub/datablock/location.py.
#pragma once

#include <cstdlib>
#include <filesystem>

#include "segment.hpp"

namespace labhub {

// `<base>/<broker>`, where base is the environment's LABHUB_SHM_DIR, or /dev/shm/labhub-<uid>.
inline std::string segment_directory(const std::string& broker = "default") {
  check_name(broker);
  const char* given = std::getenv("LABHUB_SHM_DIR");
  if (given && *given) return (std::filesystem::absolute(given).lexically_normal() / broker).string();
  if (::access("/dev/shm", W_OK | X_OK) != 0)
    throw Fault(Code::access, "/dev/shm cannot be written; set LABHUB_SHM_DIR, here and for every labhub program")
        .with("path", std::string("/dev/shm"));
  return "/dev/shm/labhub-" + str(::getuid()) + "/" + broker;
}

}  // namespace labhub
