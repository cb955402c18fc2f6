//! The versions of the protocol: which number an item has in each.
//!
//! An item's number is its place in Tracy's list of items, which has grown from version to
//! version. The list is here once, with the version that each later item came with.

use std::fmt;

/// What a client may send. One name a place; `@N`: since version N, `@tt`: in Tenstorrent's fork.
const ITEMS: &str = "
    ZoneText ZoneName Message MessageColor MessageCallstack MessageColorCallstack MessageAppInfo
    ZoneBeginAllocSrcLoc ZoneBeginAllocSrcLocCallstack CallstackSerial Callstack CallstackAlloc
    CallstackSample CallstackSample32@78 CallstackSample16@78
    CallstackSampleContextSwitch CallstackSampleContextSwitch32@78 CallstackSampleContextSwitch16@78
    FrameImage ZoneBegin ZoneBegin32@78 ZoneBegin16@78
    ZoneBeginCallstack ZoneBeginCallstack32@78 ZoneBeginCallstack16@78
    ZoneEnd ZoneEnd32@78 ZoneEnd16@78
    LockWait LockObtain LockRelease LockSharedWait LockSharedObtain LockSharedRelease LockName
    MemAlloc MemAllocNamed MemFree MemFreeNamed
    MemAllocCallstack MemAllocCallstackNamed MemFreeCallstack MemFreeCallstackNamed
    MemDiscard@72 MemDiscardCallstack@72
    GpuZoneBegin GpuZoneBeginCallstack GpuZoneBeginAllocSrcLoc GpuZoneBeginAllocSrcLocCallstack
    GpuZoneEnd GpuZoneBeginSerial GpuZoneBeginCallstackSerial GpuZoneBeginAllocSrcLocSerial
    GpuZoneBeginAllocSrcLocCallstackSerial GpuZoneEndSerial
    PlotDataInt PlotDataFloat PlotDataDouble ContextSwitch ThreadWakeup GpuTime GpuContextName
    GpuAnnotationName@76 GpuMarkerMeta@tt GpuMarker@tt
    CallstackFrameSize SymbolInformation ExternalNameMetadata SymbolCodeMetadata SourceCodeMetadata
    FiberEnter FiberLeave SectionEnter@82 SectionLeave@82 SectionSetup@82
    Terminate KeepAlive ThreadContext GpuCalibration GpuTimeSync GpuZone@tt Crash CrashReport
    ZoneValidation ZoneColor ZoneValue FrameMarkMsg FrameMarkMsgStart FrameMarkMsgEnd FrameVsync
    SourceLocation LockAnnounce LockTerminate LockMark
    MessageLiteral MessageLiteralColor MessageLiteralCallstack MessageLiteralColorCallstack
    GpuNewContext CallstackFrame SysTimeReport SysPowerReport TidToPid
    HwSampleCpuCycle HwSampleInstructionRetired HwSampleCacheReference HwSampleCacheMiss
    HwSampleBranchRetired HwSampleBranchMiss PlotConfig ParamSetup
    AckServerQueryNoop AckSourceCodeNotAvailable AckSymbolCodeNotAvailable CpuTopology
    SingleStringData SecondStringData SingleStringData8@80 SecondStringData8@80
    MemNamePayload ThreadGroupHint@69 GpuZoneAnnotation@76
    StringData ThreadName PlotName SourceLocationPayload CallstackPayload CallstackAllocPayload
    FrameName FrameImageData ExternalName ExternalThreadName SymbolCode SourceCode FiberName";

/// Released versions of the protocol, with the versions of Tracy that speak them.
const RELEASED: [(u32, &str); 6] = [
    (66, "0.11.0"),
    (69, "0.11.1"),
    (72, "0.11.2 (development)"),
    (74, "0.12"),
    (76, "0.13"),
    (82, "0.14"),
];

macro_rules! items {
    ($($name:ident),* $(,)?) => {
        /// The items that are sent.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the names are Tracy's")]
        pub enum Item { $($name),* }

        impl Item {
            const ALL: &[(Self, &str)] = &[$((Self::$name, stringify!($name))),*];
        }
    };
}

items! {
    Message, MessageAppInfo, CallstackSerial,
    MemAllocNamed, MemFreeNamed, MemAllocCallstackNamed, MemFreeCallstackNamed,
    PlotDataInt, CallstackFrameSize, SymbolInformation, Terminate, KeepAlive, ThreadContext,
    CallstackFrame, PlotConfig,
    AckServerQueryNoop, AckSourceCodeNotAvailable, AckSymbolCodeNotAvailable,
    SingleStringData, SecondStringData, SingleStringData8, SecondStringData8,
    MemNamePayload, StringData, ThreadName, PlotName, CallstackPayload,
    FrameName, ExternalName, ExternalThreadName, FiberName,
}

/// The number of an item that a version does not have; never sent.
const ABSENT: u8 = u8::MAX;

/// One version of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Its number.
    pub version: u32,
    /// Tenstorrent's fork of it.
    pub is_fork: bool,
    numbers: Vec<u8>,
}

/// Which versions are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The one that the viewer offers, if it is a released one.
    #[default]
    Negotiated,
    /// This one only.
    Only(u32),
    /// That of Tenstorrent's fork with this number only.
    Fork(u32),
}

impl Choice {
    /// What the viewer offers, if it is spoken.
    pub fn agree(self, offered: u32) -> Option<Protocol> {
        let is_released = RELEASED.iter().any(|(version, _)| *version == offered);
        match self {
            Self::Negotiated => is_released.then(|| Protocol::new(offered, false)),
            Self::Only(version) => {
                (is_released && version == offered).then(|| Protocol::new(offered, false))
            }
            // Number 66 of the fork has no items of its own.
            Self::Fork(version) => {
                (version == offered).then(|| Protocol::new(offered, offered != 66))
            }
        }
    }

    /// Which versions fit, in words.
    pub fn fits(self) -> String {
        match self {
            Self::Negotiated => {
                let all = RELEASED.map(|(version, tracy)| format!("{version} (Tracy {tracy})"));
                format!("{}; Tenstorrent's by --tracy-protocol", all.join(", "))
            }
            Self::Only(version) => format!("{version}, as --tracy-protocol says"),
            Self::Fork(version) => format!("Tenstorrent's {version}, as --tracy-protocol says"),
        }
    }

    /// All that can be chosen, by name.
    pub fn named(name: &str) -> Option<Self> {
        if name == "auto" {
            return Some(Self::Negotiated);
        }
        if let Some(number) = name.strip_prefix("tt-") {
            let version = number.parse().ok()?;
            return [66, 79, 83].contains(&version).then_some(Self::Fork(version));
        }
        let version = name.parse().ok()?;
        RELEASED.iter().any(|(released, _)| *released == version).then_some(Self::Only(version))
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Negotiated => f.write_str("auto"),
            Self::Only(version) => write!(f, "{version}"),
            Self::Fork(version) => write!(f, "tt-{version}"),
        }
    }
}

impl Protocol {
    /// The protocol of that number.
    pub fn new(version: u32, is_fork: bool) -> Self {
        let mut numbers = vec![ABSENT; Item::ALL.len()];
        for (number, name) in names(version, is_fork).enumerate() {
            if let Some((item, _)) = Item::ALL.iter().find(|(_, known)| *known == name) {
                numbers[*item as usize] = u8::try_from(number).unwrap_or(ABSENT);
            }
        }
        Self { version, is_fork, numbers }
    }

    /// The number of an item.
    pub fn number(&self, item: Item) -> u8 {
        self.numbers[item as usize]
    }

    /// Whether messages say how much they matter.
    pub const fn has_severity(&self) -> bool {
        self.version >= 77
    }

    /// Whether short strings have a length of 8 bits.
    pub const fn has_short_strings(&self) -> bool {
        self.version >= 80
    }

    /// Whether the welcome says how long a measurement takes.
    pub const fn has_delay(&self) -> bool {
        self.version < 75
    }
}

/// The items of a version, in the order of their numbers.
fn names(version: u32, is_fork: bool) -> impl Iterator<Item = &'static str> {
    ITEMS.split_whitespace().filter_map(move |entry| match entry.split_once('@') {
        None => Some(entry),
        Some((name, "tt")) => is_fork.then_some(name),
        Some((name, since)) => {
            since.parse().is_ok_and(|since: u32| version >= since).then_some(name)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_as_long_as_tracys() {
        // NUM_TYPES of each version.
        for (version, is_fork, count) in [
            (66, false, 112),
            (69, false, 113),
            (72, false, 115),
            (74, false, 115),
            (76, false, 117),
            (82, false, 132),
            (79, true, 130),
            (83, true, 135),
        ] {
            let found = names(version, is_fork).count();
            assert_eq!(found, count, "{version}");
        }
    }

    #[test]
    fn every_item_has_its_place() {
        for (version, _) in RELEASED {
            let protocol = Protocol::new(version, false);
            for (item, name) in Item::ALL {
                let is_there = !name.ends_with('8') || version >= 80;
                assert_eq!(protocol.number(*item) != ABSENT, is_there, "{name} in {version}");
            }
        }
        let numbers = |version| {
            let protocol = Protocol::new(version, false);
            [Item::MemAllocNamed, Item::PlotDataInt, Item::StringData, Item::FiberName]
                .map(|item| protocol.number(item))
        };
        assert_eq!(numbers(66), [26, 43, 99, 111]);
        assert_eq!(numbers(72), [26, 45, 102, 114]);
        assert_eq!(numbers(82), [36, 55, 119, 131]);
    }

    #[test]
    fn what_is_not_known_is_not_spoken() {
        assert!(Choice::Negotiated.agree(82).is_some_and(|protocol| !protocol.is_fork));
        for unknown in [0, 65, 67, 79, 81, 83, u32::MAX] {
            assert_eq!(Choice::Negotiated.agree(unknown), None);
        }
        assert_eq!(Choice::Only(72).agree(66), None);
        assert!(Choice::Fork(79).agree(79).is_some_and(|protocol| protocol.is_fork));
        assert_eq!(Choice::Fork(79).agree(76), None);
    }

    #[test]
    fn choices_are_named_as_they_are_shown() {
        for name in ["auto", "66", "69", "72", "74", "76", "82", "tt-66", "tt-79", "tt-83"] {
            assert_eq!(Choice::named(name).unwrap().to_string(), name);
        }
        for name in ["", "tt-", "tt-82", "79", "83", "x", "-1"] {
            assert_eq!(Choice::named(name), None, "{name}");
        }
    }
}
