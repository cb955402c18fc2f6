//! Mock cluster descriptors: the files that `TT_METAL_MOCK_CLUSTER_DESC_PATH` names.
//!
//! tt-metal then takes the described cards for real up to the chip: its allocators, meshes and
//! caches run, and no kernel does. The numbers below are those of real cards: which Ethernet
//! channels join the chips of a card, which rows are harvested, and the board number in bits 36
//! to 55 of a board id.

use std::fmt::Write;

/// A machine that can be described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// One Wormhole chip.
    N150,
    /// One card of two Wormhole chips.
    N300,
    /// Two n300 cards: four chips.
    T3k4,
    /// Four n300 cards: eight chips.
    T3k,
    /// One Blackhole chip with one DRAM channel harvested.
    P100,
    /// One Blackhole chip.
    P150,
    /// One card of two Blackhole chips.
    P300,
    /// Four p150 cards.
    P150x4,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::N150,
        Self::N300,
        Self::T3k4,
        Self::T3k,
        Self::P100,
        Self::P150,
        Self::P300,
        Self::P150x4,
    ];

    /// The name on the command line and of the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::N150 => "n150",
            Self::N300 => "n300",
            Self::T3k4 => "t3k4",
            Self::T3k => "t3k",
            Self::P100 => "p100",
            Self::P150 => "p150",
            Self::P300 => "p300",
            Self::P150x4 => "p150x4",
        }
    }

    fn blackhole(self) -> bool {
        matches!(self, Self::P100 | Self::P150 | Self::P300 | Self::P150x4)
    }
}

/// Two Ethernet channels joined by a cable: (chip, channel) twice.
type Cable = ((u32, u32), (u32, u32));

/// A card and the chips on it.
#[derive(Debug)]
struct Board {
    name: &'static str,
    /// The vendor's number of this product.
    number: u64,
    serial: u64,
    chips: Vec<u32>,
}

impl Board {
    fn new(name: &'static str, serial: u64, chips: Vec<u32>) -> Self {
        let number = match name {
            "n150" => 0x18,
            "n300" => 0x14,
            "p100" => 0x43,
            "p300" => 0x44,
            _ => 0x40,
        };
        Self { name, number, serial, chips }
    }

    fn id(&self) -> u64 {
        self.number << 36 | self.serial
    }
}

#[derive(Debug)]
struct Cluster {
    kind: Kind,
    /// Where each chip is in the grid; Blackhole states none.
    places: Vec<(u32, u32)>,
    cables: Vec<Cable>,
    /// The chips that the host reaches over PCIe.
    local: Vec<u32>,
    /// The harvested Tensix rows or columns, the same for each chip of a kind.
    tensix_mask: u32,
    boards: Vec<Board>,
}

/// The descriptor's text.
pub fn describe(kind: Kind) -> String {
    Cluster::of(kind).to_yaml()
}

impl Cluster {
    fn of(kind: Kind) -> Self {
        let empty = Self {
            kind,
            places: Vec::new(),
            cables: Vec::new(),
            local: vec![0],
            tensix_mask: 0,
            boards: Vec::new(),
        };
        match kind {
            Kind::N150 => Self {
                places: vec![(0, 0)],
                tensix_mask: 0x20,
                boards: vec![Board::new("n150", 1, vec![0])],
                ..empty
            },
            Kind::N300 => empty.n300_cards(&[(0, 0)], &[(1, 0)]),
            Kind::T3k4 => empty.n300_cards(&[(0, 0), (0, 1)], &[(1, 0), (1, 1)]),
            Kind::T3k => empty
                .n300_cards(&[(1, 0), (1, 1), (2, 0), (2, 1)], &[(0, 0), (0, 1), (3, 0), (3, 1)]),
            Kind::P100 => {
                Self { tensix_mask: 0x101, boards: vec![Board::new("p100", 1, vec![0])], ..empty }
            }
            Kind::P150 => Self { boards: vec![Board::new("p150", 1, vec![0])], ..empty },
            Kind::P300 => Self {
                cables: vec![((0, 2), (1, 9)), ((0, 3), (1, 8))],
                local: vec![0, 1],
                tensix_mask: 0x101,
                boards: vec![Board::new("p300", 1, vec![0, 1])],
                ..empty
            },
            Kind::P150x4 => Self {
                cables: p150_ring(),
                local: (0..4).collect(),
                boards: (0..4).map(|c| Board::new("p150", u64::from(c) + 1, vec![c])).collect(),
                ..empty
            },
        }
    }

    /// Cards with one chip on PCIe (the first ids) and one behind it (the ids after those).
    fn n300_cards(self, near: &[(u32, u32)], far: &[(u32, u32)]) -> Self {
        let count = u32::try_from(near.len()).unwrap_or(0);
        let places = [near, far].concat();
        let on_card = (0..count).flat_map(|c| [((c, 8), (c + count, 0)), ((c, 9), (c + count, 1))]);
        let mut cables: Vec<Cable> = on_card.collect();
        cables.extend(between_cards(&places, count));
        let board = |c: u32| Board::new("n300", u64::from(c) + 1, vec![c, c + count]);
        Self {
            places,
            cables,
            local: (0..count).collect(),
            tensix_mask: 0x21,
            boards: (0..count).map(board).collect(),
            ..self
        }
    }

    fn chips(&self) -> u32 {
        self.boards.iter().map(|board| u32::try_from(board.chips.len()).unwrap_or(0)).sum()
    }

    fn unique_id(&self, chip: u32) -> u64 {
        for board in &self.boards {
            if let Some(index) = (0_u64..).zip(&board.chips).find(|(_, c)| **c == chip) {
                let shift = if self.kind.blackhole() { 0 } else { 2 };
                return (board.id() << shift) + index.0;
            }
        }
        0
    }

    fn harvesting(&self, chip: u32) -> String {
        let mut text = format!("noc_translation: true, harvest_mask: {}", self.tensix_mask);
        if self.kind.blackhole() {
            let dram = u32::from(self.kind == Kind::P100);
            // The chips of a p300 use different PCIe instances.
            let pcie = if self.kind == Kind::P300 && chip == 1 { 1 } else { 2 };
            let _ = write!(
                text,
                ", dram_harvesting_mask: {dram}, eth_harvesting_mask: 288, \
                 pcie_harvesting_mask: {pcie}, l2cpu_harvesting_mask: 0"
            );
        }
        text
    }

    fn to_yaml(&self) -> String {
        let arch = if self.kind.blackhole() { "blackhole" } else { "wormhole_b0" };
        let mut lines = vec![
            format!("arch: {{{}}}", list(0..self.chips(), |c| format!("{c}: {arch}"))),
            format!(
                "chips: {{{}}}",
                list((0_u32..).zip(&self.places), |(c, (x, y))| format!("{c}: [{x}, {y}, 0, 0]"))
            ),
            format!(
                "chip_unique_ids: {{{}}}",
                list(0..self.chips(), |c| format!("{c}: {}", self.unique_id(c)))
            ),
            format!("ethernet_connections:{}", if self.cables.is_empty() { " []" } else { "" }),
        ];
        lines.extend(self.cables.iter().map(|((a, from), (b, to))| {
            format!("  - [{{chip: {a}, chan: {from}}}, {{chip: {b}, chan: {to}}}]")
        }));
        lines.push("ethernet_connections_to_remote_devices: []".to_owned());
        let local = list((0..).zip(&self.local), |(slot, c): (u32, _)| format!("{{{c}: {slot}}}"));
        lines.push(format!("chips_with_mmio: [{local}]"));
        lines.push("harvesting:".to_owned());
        lines.extend((0..self.chips()).map(|c| format!("  {c}: {{{}}}", self.harvesting(c))));
        lines.push("boards:".to_owned());
        lines.extend(self.boards.iter().map(|board| {
            let (id, name, chips) = (board.id(), board.name, list(&board.chips, u32::to_string));
            format!("  - [{{board_id: {id}}}, {{board_type: {name}}}, {{chips: [{chips}]}}]")
        }));
        if self.kind == Kind::P300 {
            lines.push("asic_locations: {0: 0, 1: 1}".to_owned());
        }
        lines.join("\n") + "\n"
    }
}

fn list<T>(items: impl IntoIterator<Item = T>, show: impl Fn(T) -> String) -> String {
    items.into_iter().map(show).collect::<Vec<_>>().join(", ")
}

/// Two cables between each pair of chips that are neighbours in the grid but not on one card.
fn between_cards(places: &[(u32, u32)], cards: u32) -> Vec<Cable> {
    let mut cables = Vec::new();
    let chips: Vec<(u32, (u32, u32))> = (0..).zip(places.iter().copied()).collect();
    for (a, (x, y)) in &chips {
        for (right, down, channels) in [(1, 0, [6, 7]), (0, 1, [14, 15])] {
            let neighbour = chips.iter().find(|(_, place)| *place == (x + right, y + down));
            let Some((b, _)) = neighbour else { continue };
            if a % cards != b % cards {
                cables.extend(channels.map(|channel| ((*a, channel), (*b, channel))));
            }
        }
    }
    cables
}

/// Four cards in a ring, four cables between neighbours.
fn p150_ring() -> Vec<Cable> {
    let pairs = [(0, 2, 4), (1, 3, 4), (0, 3, 8), (1, 2, 8)];
    pairs
        .into_iter()
        .flat_map(|(a, b, first)| {
            (first..first + 4).map(move |channel| ((a, channel), (b, channel)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn chips_of_each_kind() {
        let counts = Kind::ALL.map(|kind| Cluster::of(kind).chips());
        assert_eq!(counts, [1, 2, 4, 8, 1, 1, 2, 4]);
    }

    #[test]
    fn no_channel_is_used_twice() {
        for kind in Kind::ALL {
            let cluster = Cluster::of(kind);
            let mut used = HashSet::new();
            for (a, b) in &cluster.cables {
                assert!(used.insert(*a) && used.insert(*b), "{kind:?}: {a:?} {b:?}");
                assert_ne!(a.0, b.0);
            }
        }
    }

    #[test]
    fn unique_ids_are_unique_and_hold_the_board_number() {
        for kind in Kind::ALL {
            let cluster = Cluster::of(kind);
            let ids: HashSet<u64> = (0..cluster.chips()).map(|c| cluster.unique_id(c)).collect();
            assert_eq!(ids.len(), cluster.chips() as usize);
            for board in &cluster.boards {
                assert_eq!(board.id() >> 36 & 0xf_ffff, board.number);
            }
        }
    }

    #[test]
    fn the_chips_of_a_card_are_joined() {
        let cluster = Cluster::of(Kind::T3k);
        for board in &cluster.boards {
            let joined = |(a, b): &&Cable| [a.0, b.0] == [board.chips[0], board.chips[1]];
            assert_eq!(cluster.cables.iter().filter(joined).count(), 2);
        }
        assert_eq!(cluster.cables.len(), 8 + 12);
    }

    #[test]
    fn n300_as_text() {
        let expected = "\
arch: {0: wormhole_b0, 1: wormhole_b0}
chips: {0: [0, 0, 0, 0], 1: [1, 0, 0, 0]}
chip_unique_ids: {0: 5497558138884, 1: 5497558138885}
ethernet_connections:
  - [{chip: 0, chan: 8}, {chip: 1, chan: 0}]
  - [{chip: 0, chan: 9}, {chip: 1, chan: 1}]
ethernet_connections_to_remote_devices: []
chips_with_mmio: [{0: 0}]
harvesting:
  0: {noc_translation: true, harvest_mask: 33}
  1: {noc_translation: true, harvest_mask: 33}
boards:
  - [{board_id: 1374389534721}, {board_type: n300}, {chips: [0, 1]}]
";
        assert_eq!(describe(Kind::N300), expected);
    }
}
