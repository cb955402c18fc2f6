//! The eBPF side's own diagnostics, on standard error.

use std::time::Duration;

use crate::{
    kernel::{Attacher, KernelError},
    stderr::remark,
};

/// How often they are read.
const TICK: Duration = Duration::from_millis(100);

/// Writes them to standard error from now on.
pub fn pass_on(attacher: &mut Attacher) -> Result<(), KernelError> {
    static STDERR: Stderr = Stderr;
    let mut logger = attacher.logger(&STDERR)?;
    let mut tick = tokio::time::interval(TICK);
    tokio::spawn(async move {
        loop {
            tick.tick().await;
            logger.flush();
        }
    });
    Ok(())
}

struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        remark!("ttmem: eBPF {}: {}", record.level(), record.args());
    }

    fn flush(&self) {}
}
