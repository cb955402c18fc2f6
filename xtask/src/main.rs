//! Development tasks of ttmem.
fn main() {}
