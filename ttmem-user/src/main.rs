//! Entry point of `ttmem`.
fn main() {}
