// The programs that the script has made, and what they keep, as the library's own lists say.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "../program.hpp"
#include "session.hpp"
#include "words.hpp"

namespace standin {

class Programs {
public:
    /// Runs a command on programs; nothing if it is none of them.
    std::optional<std::string> run(const std::string& command, Words& words, const Session& session);

private:
    using Program = tt::tt_metal::Program;

    std::string make(Words& words);
    std::string add(Words& words, bool dataflow);
    std::string resize(Words& words);
    std::string dispatch(Words& words, const Session& session);
    std::string end(Words& words);
    std::string many(Words& words, const Session& session);
    std::string state() const;
    Program& program(const std::string& name);

    std::map<std::string, std::unique_ptr<Program>> programs_;
};

}  // namespace standin
