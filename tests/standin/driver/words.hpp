// One line of the script, cut into words.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "session.hpp"

namespace standin {

class Words {
public:
    explicit Words(const std::string& line);
    bool empty() const { return words_.empty(); }
    bool more() const { return next_ < words_.size(); }
    /// The next word; an error that names `what` when there is none.
    std::string word(const char* what);
    std::uint64_t number(const char* what);
    double real(const char* what);
    BufferType type();
    /// Takes `key=value` out, wherever it stands.
    std::optional<std::string> option(const std::string& key);
    void end() const;

private:
    std::vector<std::string> words_;
    std::size_t next_ = 0;
};

BufferType parse_type(const std::string& name);
std::uint64_t parse_number(const std::string& text, const std::string& what);
/// `layout=… cores=… shard=HxW page=HxW` and `dist=SHARDS,CORES,PAGES`.
BufferShardingArgs sharding(Words& words);

/// The next line of standard input, read byte by byte so that a program that replaces this one
/// finds the rest of the script; nothing at the end.
std::optional<std::string> read_line();

}  // namespace standin
