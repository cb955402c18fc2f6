//! Entry point of `ttmem`.

fn main() -> std::process::ExitCode {
    ttmem::app::main()
}
