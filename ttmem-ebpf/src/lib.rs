//! Empty: gives the package a library target, so that `ttmem-user` can depend on it at build time
//! and cargo rebuilds the probes when they change.
#![no_std]
