//! What was found in a library, as one line of JSON: `ttmem.doctor/1`, see `docs/json.md`.
//!
//! Invariant: nothing in it depends on the machine but the path of the library.

use std::path::Path;

use serde::Serialize;

use crate::{
    missing::Unresolved,
    resolve::plan::{AttachPlan, InstructionCost},
};

/// The line.
#[derive(Serialize)]
struct Report<'p> {
    schema: &'static str,
    library: String,
    build_id: Option<&'p str>,
    probes: Vec<Probe<'p>>,
    fields: Vec<Field<'p>>,
    older_buffers: OlderBuffers<'p>,
    unresolved: &'p [Unresolved],
}

/// Where a probe goes.
#[derive(Serialize)]
struct Probe<'p> {
    #[serde(rename = "probe")]
    name: &'static str,
    symbol: &'p str,
    offset: u64,
    cost: &'static str,
}

/// A decoded field; without a value, the reason why this version has none.
#[derive(Serialize)]
struct Field<'p> {
    name: &'p str,
    value: Option<&'p str>,
    absent_because: Option<&'p str>,
    from: &'p str,
}

/// Whether the buffers from before an attach can be read.
#[derive(Serialize)]
struct OlderBuffers<'p> {
    readable: bool,
    reason: Option<&'p str>,
}

fn report<'p>(library: &Path, build_id: Option<&'p str>, plan: &'p AttachPlan) -> Report<'p> {
    let probes = plan.points.iter().map(|point| Probe {
        name: point.probe.name(),
        symbol: &point.symbol,
        offset: point.offset.0,
        cost: match point.cost {
            InstructionCost::Emulated => "emulated",
            InstructionCost::SingleStepped => "single-stepped",
        },
    });
    let fields = plan.facts.iter().map(|fact| {
        let absent_because = fact.absent_because();
        Field {
            name: &fact.name,
            value: absent_because.is_none().then_some(&fact.value),
            absent_because,
            from: &fact.from,
        }
    });
    let reason = plan.memory.as_ref().err().map(String::as_str);
    Report {
        schema: "ttmem.doctor/1",
        library: library.display().to_string(),
        build_id,
        probes: probes.collect(),
        fields: fields.collect(),
        older_buffers: OlderBuffers { readable: reason.is_none(), reason },
        unresolved: &plan.unresolved,
    }
}

/// The line.
pub fn line(
    library: &Path,
    build_id: Option<&str>,
    plan: &AttachPlan,
) -> serde_json::Result<String> {
    Ok(serde_json::to_string(&report(library, build_id, plan))? + "\n")
}

#[cfg(test)]
mod tests {
    use ttmem_common::{
        failure::FailureLayout,
        layout::{BUFFER_TYPES, BufferLayout, Chain, DeviceLayout, LayoutTable, PoolLayout},
        probe::ProbeId,
    };

    use super::*;
    use crate::{
        resolve::plan::{AttachPoint, Fact},
        units::{FileOffset, Svma},
    };

    fn fact(name: &str, value: &str) -> Fact {
        Fact { name: name.into(), value: value.into(), from: "function".into() }
    }

    #[test]
    fn every_key_is_there_and_what_is_absent_is_null() {
        let absent = Chain::ABSENT;
        let pool = PoolLayout {
            banks: absent,
            alignment: absent,
            manager_alignment: absent,
            bank_size: absent,
            block_minimum: absent,
            block_unit: absent,
            base: ttmem_common::layout::ABSENT,
            shrunk: ttmem_common::layout::ABSENT,
        };
        let device = DeviceLayout {
            device_vptr: 0,
            mesh_vptr: 0,
            chip_id: absent,
            mesh_id: absent,
            mesh_devices_begin: absent,
            mesh_devices_end: absent,
            mesh_devices_stride: 0,
            mesh_devices_local: 0,
        };
        let plan = AttachPlan {
            points: vec![AttachPoint {
                probe: ProbeId::Allocate,
                symbol: "_Zf".into(),
                address: Svma(0x2000),
                behind_entry: 0,
                offset: FileOffset(0x1000),
                cost: InstructionCost::SingleStepped,
            }],
            layout: LayoutTable {
                tgid: 0,
                in_use: 0,
                buffer: BufferLayout::ABSENT,
                device,
                pools: [pool; BUFFER_TYPES],
                failure: FailureLayout::ABSENT,
                circular: ttmem_common::layout::CircularLayout::ABSENT,
            },
            memory: Err("no set".into()),
            facts: vec![fact("Buffer::size", "+0x8"), fact("Buffer::unique_id", "absent: old")],
            unresolved: vec![Unresolved { probe: "free".into(), reason: "gone".into() }],
        };
        let line = serde_json::to_string(&report(Path::new("l.so"), Some("ab"), &plan)).unwrap();
        let expected = concat!(
            r#"{"schema":"ttmem.doctor/1","library":"l.so","build_id":"ab","#,
            r#""probes":[{"probe":"allocate","symbol":"_Zf","offset":4096,"cost":"single-stepped"}],"#,
            r#""fields":[{"name":"Buffer::size","value":"+0x8","absent_because":null,"from":"function"},"#,
            r#"{"name":"Buffer::unique_id","value":null,"absent_because":"old","from":"function"}],"#,
            r#""older_buffers":{"readable":false,"reason":"no set"},"#,
            r#""unresolved":[{"probe":"free","reason":"gone"}]}"#,
        );
        assert_eq!(line, expected);
    }
}
