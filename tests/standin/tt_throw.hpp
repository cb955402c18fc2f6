// The throwing functions of tt-metal: instantiated for the arguments of each message, exported, and called with the
// message's text and references to its numbers. ttmem finds them by their mangled names.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>

namespace fmt::v11 {
/// A text that is passed in two registers, as the real one.
template <typename... Args>
struct fstring {
    using t = fstring;
    const char* data;
    std::size_t size;
    template <std::size_t N>
    constexpr fstring(const char (&text)[N]) : data(text), size(N - 1) {}
};
}  // namespace fmt::v11

namespace tt::assert::detail {

inline std::string shown(std::string_view value) { return std::string(value); }
inline std::string shown(unsigned long value) { return std::to_string(value); }
inline std::string shown(unsigned int value) { return std::to_string(value); }

/// Fills the placeholders of a text one after the other.
template <typename... Args>
std::string filled(std::string_view text, const Args&... args) {
    std::string message;
    const auto fill = [&](const std::string& value) {
        const std::size_t at = text.find("{}");
        message.append(text.substr(0, at)).append(value);
        text.remove_prefix(at + 2);
    };
    (fill(shown(args)), ...);
    return message.append(text);
}

/// Not said to never return, as in the real library, and the same function for every caller.
template <typename... Args>
[[gnu::noipa]] void tt_throw(
    const char* file,
    int line,
    const char* /*function*/,
    const char* /*condition*/,
    typename fmt::v11::fstring<const Args&...>::t text,
    const Args&... args) {
    throw std::runtime_error(
        filled(std::string_view(text.data, text.size), args...) + " [" + file + ":" + std::to_string(line) + "]");
}

}  // namespace tt::assert::detail
