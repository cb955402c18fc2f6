//! The answers of `ttmem fits` as plain text.

use std::fmt::Write as _;

use super::text::chip_ranges;
use crate::{
    event::BufferType,
    format,
    ledger::fit::{Answer, InTheWay},
};

/// One line per allocator, and under it the buffers in the way.
pub fn render(buffer_type: BufferType, answers: &[Answer], inexact_because: &[String]) -> String {
    let mut text = String::new();
    for reason in inexact_because {
        let _ = writeln!(text, "inexact: {}", format::one_line(reason));
    }
    if answers.is_empty() {
        let _ = writeln!(text, "unknown: what of {} is free cannot be told", buffer_type.name());
    }
    for answer in answers {
        line(&mut text, buffer_type, answer);
        if let Some(way) = &answer.in_the_way {
            in_the_way(&mut text, way);
        }
    }
    text
}

fn line(text: &mut String, buffer_type: BufferType, answer: &Answer) {
    let verdict = match answer.fits {
        Some(true) => "fits",
        Some(false) => "does not fit",
        None => "unknown",
    };
    let mesh = answer.mesh.map_or_else(String::new, |mesh| format!(" mesh {mesh}"));
    let _ = write!(
        text,
        "{verdict}: {}{mesh} chips {}: ",
        buffer_type.name(),
        chip_ranges(&answer.chips)
    );
    let _ = match (answer.block_bytes, answer.largest_free_bank_bytes, &answer.unknown_because) {
        (_, _, Some(reason)) => writeln!(text, "{}", format::one_line(reason)),
        (Some(block), Some(largest), None) => writeln!(
            text,
            "{block} bytes per bank wanted, largest hole {largest}, free {} in {} holes of {}{}",
            answer.free_bank_bytes.unwrap_or(0),
            answer.holes.unwrap_or(0),
            answer.bank_size,
            if block > answer.bank_size { ": more than a bank has" } else { "" },
        ),
        _ => writeln!(text, "the pool has no memory"),
    };
}

fn in_the_way(text: &mut String, way: &InTheWay) {
    let _ = writeln!(
        text,
        "  in the way: {} bytes per bank; without them {} to {} would be free",
        way.bank_bytes, way.start, way.end
    );
    let _ = writeln!(
        text,
        "  {:>8}  {:<13} {:>12} {:>12} {:>14}",
        "BUFFER", "TYPE", "ADDRESS", "PER BANK", "SIZE"
    );
    for buffer in &way.buffers {
        let unknown = || format::UNKNOWN.to_owned();
        let _ = writeln!(
            text,
            "  {:>8}  {:<13} {:>12} {:>12} {:>14}",
            buffer.unique_id.map_or_else(unknown, |id| id.to_string()),
            buffer.buffer_type.name(),
            buffer.address.to_string(),
            buffer.bank_bytes,
            buffer.size.map_or_else(unknown, |size| size.to_string()),
        );
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::{
        ledger::fit::Pinning,
        units::{ChipId, DeviceAddr, MeshId},
    };

    fn answer() -> Answer {
        Answer {
            id: 0,
            mesh: Some(MeshId(0)),
            chips: vec![ChipId(0), ChipId(1)],
            fits: Some(true),
            unknown_because: None,
            block_bytes: Some(65_536),
            bank_size: 1_393_312,
            free_bank_bytes: Some(300_000),
            largest_free_bank_bytes: Some(100_000),
            holes: Some(4),
            in_the_way: None,
        }
    }

    #[test]
    fn golden_answers() {
        let pinning = Pinning {
            unique_id: Some(17),
            buffer_type: BufferType::L1,
            address: DeviceAddr(0x2_0000),
            bank_bytes: 4096,
            size: Some(262_144),
        };
        let way = InTheWay {
            start: DeviceAddr(0x1_8000),
            end: DeviceAddr(0x4_0000),
            bank_bytes: 4096,
            buffers: vec![pinning.clone(), Pinning { unique_id: None, size: None, ..pinning }],
        };
        let no = Answer { fits: Some(false), in_the_way: Some(way), ..answer() };
        let unknown = Answer {
            fits: None,
            unknown_because: Some("live buffers of unknown size per bank".into()),
            ..answer()
        };
        let none = Answer { fits: Some(false), block_bytes: None, mesh: None, ..answer() };
        let answers = [answer(), no, unknown, none];
        assert_snapshot!("fits", render(BufferType::L1, &answers, &["records lost: 3".into()]));
    }
}
