//! What a client may send, by version of the protocol: every item in the order of its number, and
//! its length with the number, bytes. Those that carry a text of their own are longer.
//!
//! As Tracy's `TracyQueue.hpp` has it, and not as ttmem does.

/// Name, length in protocol 82, and the first version that has it.
const ITEMS: &[(&str, usize, u32)] = &[
    ("ZoneText", 1, 0),
    ("ZoneName", 1, 0),
    ("Message", 10, 0),
    ("MessageColor", 13, 0),
    ("MessageCallstack", 10, 0),
    ("MessageColorCallstack", 13, 0),
    ("MessageAppInfo", 9, 0),
    ("ZoneBeginAllocSrcLoc", 9, 0),
    ("ZoneBeginAllocSrcLocCallstack", 9, 0),
    ("CallstackSerial", 1, 0),
    ("Callstack", 1, 0),
    ("CallstackAlloc", 1, 0),
    ("CallstackSample", 13, 0),
    ("CallstackSample32", 9, 78),
    ("CallstackSample16", 7, 78),
    ("CallstackSampleContextSwitch", 13, 0),
    ("CallstackSampleContextSwitch32", 9, 78),
    ("CallstackSampleContextSwitch16", 7, 78),
    ("FrameImage", 10, 0),
    ("ZoneBegin", 17, 0),
    ("ZoneBegin32", 13, 78),
    ("ZoneBegin16", 11, 78),
    ("ZoneBeginCallstack", 17, 0),
    ("ZoneBeginCallstack32", 13, 78),
    ("ZoneBeginCallstack16", 11, 78),
    ("ZoneEnd", 9, 0),
    ("ZoneEnd32", 5, 78),
    ("ZoneEnd16", 3, 78),
    ("LockWait", 17, 0),
    ("LockObtain", 17, 0),
    ("LockRelease", 13, 0),
    ("LockSharedWait", 17, 0),
    ("LockSharedObtain", 17, 0),
    ("LockSharedRelease", 17, 0),
    ("LockName", 5, 0),
    ("MemAlloc", 27, 0),
    ("MemAllocNamed", 27, 0),
    ("MemFree", 21, 0),
    ("MemFreeNamed", 21, 0),
    ("MemAllocCallstack", 27, 0),
    ("MemAllocCallstackNamed", 27, 0),
    ("MemFreeCallstack", 21, 0),
    ("MemFreeCallstackNamed", 21, 0),
    ("MemDiscard", 21, 72),
    ("MemDiscardCallstack", 21, 72),
    ("GpuZoneBegin", 24, 0),
    ("GpuZoneBeginCallstack", 24, 0),
    ("GpuZoneBeginAllocSrcLoc", 16, 0),
    ("GpuZoneBeginAllocSrcLocCallstack", 16, 0),
    ("GpuZoneEnd", 16, 0),
    ("GpuZoneBeginSerial", 24, 0),
    ("GpuZoneBeginCallstackSerial", 24, 0),
    ("GpuZoneBeginAllocSrcLocSerial", 16, 0),
    ("GpuZoneBeginAllocSrcLocCallstackSerial", 16, 0),
    ("GpuZoneEndSerial", 16, 0),
    ("PlotDataInt", 25, 0),
    ("PlotDataFloat", 21, 0),
    ("PlotDataDouble", 25, 0),
    ("ContextSwitch", 23, 0),
    ("ThreadWakeup", 16, 0),
    ("GpuTime", 12, 0),
    ("GpuContextName", 2, 0),
    ("GpuAnnotationName", 10, 76),
    ("CallstackFrameSize", 10, 0),
    ("SymbolInformation", 13, 0),
    ("ExternalNameMetadata", 1, 0),
    ("SymbolCodeMetadata", 1, 0),
    ("SourceCodeMetadata", 1, 0),
    ("FiberEnter", 25, 0),
    ("FiberLeave", 13, 0),
    ("SectionEnter", 15, 82),
    ("SectionLeave", 13, 82),
    ("SectionSetup", 3, 82),
    ("Terminate", 1, 0),
    ("KeepAlive", 1, 0),
    ("ThreadContext", 5, 0),
    ("GpuCalibration", 26, 0),
    ("GpuTimeSync", 18, 0),
    ("Crash", 1, 0),
    ("CrashReport", 17, 0),
    ("ZoneValidation", 5, 0),
    ("ZoneColor", 4, 0),
    ("ZoneValue", 9, 0),
    ("FrameMarkMsg", 17, 0),
    ("FrameMarkMsgStart", 17, 0),
    ("FrameMarkMsgEnd", 17, 0),
    ("FrameVsync", 13, 0),
    ("SourceLocation", 32, 0),
    ("LockAnnounce", 22, 0),
    ("LockTerminate", 13, 0),
    ("LockMark", 17, 0),
    ("MessageLiteral", 17, 0),
    ("MessageLiteralColor", 20, 0),
    ("MessageLiteralCallstack", 17, 0),
    ("MessageLiteralColorCallstack", 20, 0),
    ("GpuNewContext", 28, 0),
    ("CallstackFrame", 17, 0),
    ("SysTimeReport", 13, 0),
    ("SysPowerReport", 25, 0),
    ("TidToPid", 17, 0),
    ("HwSampleCpuCycle", 17, 0),
    ("HwSampleInstructionRetired", 17, 0),
    ("HwSampleCacheReference", 17, 0),
    ("HwSampleCacheMiss", 17, 0),
    ("HwSampleBranchRetired", 17, 0),
    ("HwSampleBranchMiss", 17, 0),
    ("PlotConfig", 16, 0),
    ("ParamSetup", 18, 0),
    ("AckServerQueryNoop", 1, 0),
    ("AckSourceCodeNotAvailable", 5, 0),
    ("AckSymbolCodeNotAvailable", 1, 0),
    ("CpuTopology", 17, 0),
    ("SingleStringData", 1, 0),
    ("SecondStringData", 1, 0),
    ("SingleStringData8", 1, 80),
    ("SecondStringData8", 1, 80),
    ("MemNamePayload", 9, 0),
    ("ThreadGroupHint", 9, 69),
    ("GpuZoneAnnotation", 24, 76),
    ("StringData", 9, 0),
    ("ThreadName", 9, 0),
    ("PlotName", 9, 0),
    ("SourceLocationPayload", 9, 0),
    ("CallstackPayload", 9, 0),
    ("CallstackAllocPayload", 9, 0),
    ("FrameName", 9, 0),
    ("FrameImageData", 9, 0),
    ("ExternalName", 9, 0),
    ("ExternalThreadName", 9, 0),
    ("SymbolCode", 9, 0),
    ("SourceCode", 9, 0),
    ("FiberName", 9, 0),
];

/// The items of a version, by number.
pub fn items(version: u32) -> Vec<(&'static str, usize)> {
    let of_it = ITEMS.iter().filter(|(_, _, since)| version >= *since);
    of_it.map(|(name, len, _)| (*name, len - shorter(name, version))).collect()
}

/// How much shorter an item was before a field was added to it.
fn shorter(name: &str, version: u32) -> usize {
    match name {
        // How much it matters.
        "Message" | "MessageColor" | "MessageCallstack" | "MessageColorCallstack"
            if version < 77 =>
        {
            1
        }
        // What threads it is with.
        "FiberEnter" if version < 69 => 4,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::items;

    #[test]
    fn there_are_as_many_as_tracy_has() {
        // NUM_TYPES of each version.
        for (version, count) in [(66, 112), (69, 113), (72, 115), (74, 115), (76, 117), (82, 132)] {
            assert_eq!(items(version).len(), count, "{version}");
        }
        assert_eq!(items(76)[2], ("Message", 9));
        assert_eq!(items(82)[131], ("FiberName", 9));
    }
}
