//! Where records come from.

/// A source of raw records. Whatever the source, the same decoder reads them.
pub trait EventSource {
    /// Hands every record that has arrived so far to `each`, oldest first.
    fn drain(&mut self, each: &mut dyn FnMut(&[u8]));

    /// Hands over every record of an event up to now, waiting for those that are being written.
    fn drain_to_now(&mut self, each: &mut dyn FnMut(&[u8]));

    /// How many records were lost so far.
    fn lost(&self) -> crate::ledger::snapshot::Lost;
}
