// STD_TORCH_CHECK without string streams. In a library that is linked with a C++ library of its own
// (-static-libstdc++), streams end in the middle of the message.
#pragma once

#include <stdexcept>
#include <string>
#include <type_traits>

namespace smnm {
namespace {

inline std::string as_text(const std::string& text) { return text; }

template <class Number, std::enable_if_t<std::is_integral_v<Number>, int> = 0>
std::string as_text(Number number) {
  return std::to_string(number);
}

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  throw std::runtime_error((std::string() + ... + as_text(parts)));
}

}  // namespace
}  // namespace smnm

#define SMNM_CHECK(condition, ...) \
  do {                             \
    if (!(condition)) {            \
      ::smnm::refuse(__VA_ARGS__); \
    }                              \
  } while (false)
