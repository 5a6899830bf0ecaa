// The one exception of the core: a code, a message for people, and the facts behind it for programs.
#pragma once

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <exception>
#include <string>
#include <utility>
#include <vector>

namespace labhub {

enum class Code {
  invalid_argument, invalid_name, incompatible, version, token, access, space, not_found, busy, schema,
  backpressure, lapped, evicted, producer_gone, closed, concurrent, forked, timed_out, interrupted
};

struct Fault : std::exception {
  Code code;
  std::string message;
  std::vector<std::pair<const char*, std::int64_t>> numbers;
  std::vector<std::pair<const char*, std::string>> words;

  Fault(Code c, std::string m) : code(c), message(std::move(m)) {}
  const char* what() const noexcept override { return message.c_str(); }
  Fault&& with(const char* key, std::int64_t value) && { numbers.emplace_back(key, value); return std::move(*this); }
  Fault&& with(const char* key, std::string value) && { words.emplace_back(key, std::move(value)); return std::move(*this); }
};

inline std::string str(std::uint64_t n) { return std::to_string(n); }

// What the kernel said about a file, as the error that a user can act upon.
inline Fault system_fault(int error, const std::string& what, const std::string& path) {
  const std::string text = what + " " + path + ": " + std::strerror(error);
  switch (error) {
    case ENOENT: case ENOTDIR: return Fault(Code::not_found, text).with("channel", path);
    case EACCES: case EPERM: case ELOOP: case EROFS:
      return Fault(Code::access, text + " (sharing between users of one machine is not supported)").with("path", path);
    case ENOSPC: case EDQUOT: case ENOMEM: case EMFILE: case ENFILE: case EFBIG:
      return Fault(Code::space, text);
    case ENAMETOOLONG: case EINVAL: return Fault(Code::invalid_argument, text);
    default: return Fault(Code::incompatible, text).with("path", path);
  }
}

}  // namespace labhub
