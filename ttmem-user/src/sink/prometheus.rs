//! A report in Prometheus' text format.
//!
//! What is not known has no sample, as is the custom there: a 0 would be a number. A process that has
//! ended has none either, so that sums are of what is held now.

use std::sync::Arc;

use prometheus::{
    Error, TextEncoder,
    proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

use crate::{
    format,
    ledger::{
        report::Report,
        snapshot::{ChipSnapshot, PoolSnapshot, Snapshot},
    },
};

/// The format's name, for who asks by HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page with all that is known of the running targets.
pub fn page(report: &Report) -> Result<String, Error> {
    let running: Vec<&Arc<Snapshot>> = report.running().collect();
    let none = Labels::new();
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    let unreadable = report.unwatched.len();
    let mut families = vec![
        Family::of_none("ttmem_build_info", "The ttmem that says this; always 1.", &version, 1),
        Family::of_none("ttmem_processes", "Processes that are watched.", &none, running.len()),
        Family::of_none(
            "ttmem_unreadable_processes",
            "Processes that are watched, and whose numbers could not be read.",
            &none,
            unreadable,
        ),
    ];
    families.extend(PROCESS.iter().map(|figure| figure.of_all(&running, processes)));
    families.extend(POOL.iter().map(|figure| figure.of_all(&running, pools)));
    families.extend(CHIP.iter().map(|figure| figure.of_all(&running, chips)));
    let families: Vec<MetricFamily> = families.into_iter().filter_map(Family::end).collect();
    TextEncoder::new().encode_to_string(&families)
}

/// Names and values.
type Labels = Vec<(&'static str, String)>;
/// Things, and what tells each from the others of its process.
type Labelled<'a, T> = Vec<(Labels, &'a T)>;

/// One figure of each of many things.
struct Figure<T> {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    /// Its samples: none if it is not known.
    value: fn(&T) -> Vec<Sample>,
}

/// A value, and the labels that it has beside those of the thing that it is of.
struct Sample {
    labels: Labels,
    value: f64,
}

/// Those of a process.
const PROCESS: &[Figure<Snapshot>] = &[
    Figure {
        name: "ttmem_process_info",
        help: "What is known of a watched process; always 1.",
        kind: MetricType::GAUGE,
        value: |process| vec![info(process)],
    },
    Figure {
        name: "ttmem_exact",
        help: "Whether every number of the process is known to equal the allocator's own: 1, else 0.",
        kind: MetricType::GAUGE,
        value: |process| plain(Some(process.exact.into())),
    },
    Figure {
        name: "ttmem_lost_records_total",
        help: "Records that could not be delivered since the attach, of all processes that the same ttmem watches.",
        kind: MetricType::COUNTER,
        value: |process| {
            let cause = |cause: &str, value| Sample {
                labels: vec![("cause", cause.to_owned())],
                value: number(value),
            };
            let lost = process.lost;
            vec![cause("ring_full", lost.ring_full), cause("read_fault", lost.read_fault)]
        },
    },
    Figure {
        name: "ttmem_anomalies_total",
        help: "Events that disagreed with what was known.",
        kind: MetricType::COUNTER,
        value: |process| plain(Some(process.anomaly_count())),
    },
    Figure {
        name: "ttmem_failed_allocations_total",
        help: "Allocations that failed for want of memory.",
        kind: MetricType::COUNTER,
        value: |process| plain(process.failures.count),
    },
];

/// Those of a pool: one buffer type on one chip.
const POOL: &[Figure<PoolSnapshot>] = &[
    Figure {
        name: "ttmem_used_bytes",
        help: "What live buffers take of a pool: bytes per bank times banks, alignment included.",
        kind: MetricType::GAUGE,
        value: |pool| plain(pool.used_bytes),
    },
    Figure {
        name: "ttmem_capacity_bytes",
        help: "Size of a pool: bank size times banks.",
        kind: MetricType::GAUGE,
        value: |pool| plain(pool.capacity_bytes),
    },
    Figure {
        name: "ttmem_peak_used_bytes",
        help: "Highest ttmem_used_bytes since the attach.",
        kind: MetricType::GAUGE,
        value: |pool| plain(pool.peak_used_bytes),
    },
    Figure {
        name: "ttmem_logical_bytes",
        help: "Sum of the sizes that live buffers were asked for.",
        kind: MetricType::GAUGE,
        value: |pool| plain(Some(pool.logical_bytes)),
    },
    Figure {
        name: "ttmem_buffers",
        help: "Live buffers, those from before the attach included.",
        kind: MetricType::GAUGE,
        value: |pool| plain(Some(pool.buffers)),
    },
    Figure {
        name: "ttmem_allocations_total",
        help: "Allocations seen since the attach.",
        kind: MetricType::COUNTER,
        value: |pool| plain(Some(pool.allocations)),
    },
    Figure {
        name: "ttmem_frees_total",
        help: "Frees seen since the attach, those of older buffers included.",
        kind: MetricType::COUNTER,
        value: |pool| plain(Some(pool.frees + pool.pre_attach_frees)),
    },
];

/// Those of a chip's L1 that circular and dataflow buffers share with tensors.
const CHIP: &[Figure<ChipSnapshot>] = &[
    Figure {
        name: "ttmem_circular_programs",
        help: "Programs seen that keep circular buffers.",
        kind: MetricType::GAUGE,
        value: |chip| plain(Some(chip.circular.programs)),
    },
    Figure {
        name: "ttmem_circular_buffers",
        help: "Their circular buffers with memory of their own.",
        kind: MetricType::GAUGE,
        value: |chip| plain(Some(chip.circular.buffers)),
    },
    Figure {
        name: "ttmem_circular_core_bytes",
        help: "The most that circular buffers take of one core.",
        kind: MetricType::GAUGE,
        value: |chip| plain(chip.circular.core_bytes),
    },
    Figure {
        name: "ttmem_circular_peak_core_bytes",
        help: "Highest ttmem_circular_core_bytes since the attach.",
        kind: MetricType::GAUGE,
        value: |chip| plain(chip.circular.peak_core_bytes),
    },
    Figure {
        name: "ttmem_core_capacity_bytes",
        help: "What the L1 of one core has for buffers.",
        kind: MetricType::GAUGE,
        value: |chip| plain(chip.circular.core_capacity_bytes),
    },
    Figure {
        name: "ttmem_headroom_bytes",
        help: "Room between circular buffers and tensors in L1; below 0 they overlap.",
        kind: MetricType::GAUGE,
        value: |chip| {
            let bytes = chip.circular.headroom.bytes;
            bytes
                .map(|bytes| Sample { labels: Vec::new(), value: signed(bytes) })
                .into_iter()
                .collect()
        },
    },
];

impl<T> Figure<T> {
    /// The figure of all things of all processes.
    fn of_all(
        &self,
        running: &[&Arc<Snapshot>],
        things: fn(&Snapshot) -> Labelled<'_, T>,
    ) -> Family {
        let mut family = Family::new(self.name, self.help, self.kind);
        for process in running {
            let pid = [("pid", process.pid.to_string())];
            for (labels, thing) in things(process) {
                for sample in (self.value)(thing) {
                    let all = [&pid, labels.as_slice(), sample.labels.as_slice()].concat();
                    family.add(&all, sample.value);
                }
            }
        }
        family
    }
}

fn processes(process: &Snapshot) -> Labelled<'_, Snapshot> {
    vec![(Vec::new(), process)]
}

fn chips(process: &Snapshot) -> Labelled<'_, ChipSnapshot> {
    process.devices.iter().map(|chip| (vec![chip_label(chip)], chip)).collect()
}

fn pools(process: &Snapshot) -> Labelled<'_, PoolSnapshot> {
    let mut pools = Vec::new();
    for chip in &process.devices {
        for pool in chip.pools.iter().filter(|pool| format::has_row(pool)) {
            let buffer_type = ("type", pool.buffer_type.name().to_owned());
            pools.push((vec![chip_label(chip), buffer_type], pool));
        }
    }
    pools
}

fn chip_label(chip: &ChipSnapshot) -> (&'static str, String) {
    ("chip", chip.chip.to_string())
}

fn info(process: &Snapshot) -> Sample {
    let label = &process.process;
    let namespace_pid = label.namespace_pid.map(|pid| pid.to_string());
    let labels = vec![
        ("command", label.command.clone()),
        ("namespace_pid", namespace_pid.unwrap_or_default()),
        ("library", label.library.clone().unwrap_or_default()),
        ("build_id", label.build_id.clone().unwrap_or_default()),
    ];
    Sample { labels, value: 1.0 }
}

fn plain(value: Option<u64>) -> Vec<Sample> {
    let value = value.map(number);
    value.map(|value| Sample { labels: Vec::new(), value }).into_iter().collect()
}

#[expect(clippy::cast_precision_loss, reason = "the format's numbers are such; exact to 9 PB")]
const fn number(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "as above")]
const fn signed(value: i64) -> f64 {
    value as f64
}

/// All samples of one name.
struct Family {
    whole: MetricFamily,
    kind: MetricType,
    metrics: Vec<Metric>,
}

impl Family {
    fn new(name: &str, help: &str, kind: MetricType) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Self { whole: family, kind, metrics: Vec::new() }
    }

    /// A number that is of no process.
    fn of_none(name: &str, help: &str, labels: &Labels, value: usize) -> Self {
        let mut family = Self::new(name, help, MetricType::GAUGE);
        family.add(labels, number(value as u64));
        family
    }

    fn add(&mut self, labels: &[(&'static str, String)], value: f64) {
        let pair = |(name, value): &(&str, String)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value.clone());
            pair
        };
        let mut metric = Metric::from_label(labels.iter().map(pair).collect());
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    /// `None` without a sample, which to the encoder is an error.
    fn end(mut self) -> Option<MetricFamily> {
        if self.metrics.is_empty() {
            return None;
        }
        self.whole.set_metric(self.metrics);
        Some(self.whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture,
        ledger::{report::Unwatched, snapshot::TargetState},
        units::Pid,
    };

    fn shown(targets: Vec<Snapshot>) -> String {
        let targets = targets.into_iter().map(Arc::new).collect();
        page(&Report { targets, ..Report::default() }).expect("a page")
    }

    #[test]
    fn what_is_known_is_on_the_page() {
        insta::assert_snapshot!(shown(vec![fixture::circulars()]));
    }

    /// `docs/metrics.md` is what users read.
    #[test]
    fn each_name_is_documented() {
        let docs = include_str!("../../../docs/metrics.md");
        let page = shown(vec![fixture::circulars()]);
        let names: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        for name in &names {
            assert!(docs.contains(&format!("| `{name}` |")), "{name}");
        }
        assert_eq!(docs.matches("| `ttmem_").count(), names.len());
    }

    #[test]
    fn without_a_process_it_says_so() {
        let page = shown(Vec::new());
        assert!(page.contains("\nttmem_processes 0\n"), "{page}");
        assert!(!page.contains("pid="), "{page}");
    }

    #[test]
    fn what_cannot_be_read_is_counted() {
        let left_out = Unwatched { pid: Pid(9), command: String::new(), reason: "torn".to_owned() };
        let report = Report { unwatched: vec![left_out], ..Report::default() };
        let page = page(&report).expect("a page");
        assert!(page.contains("\nttmem_unreadable_processes 1\n"), "{page}");
    }

    #[test]
    fn who_has_ended_holds_nothing() {
        let ended = Snapshot { state: TargetState::Exited, ..fixture::circulars() };
        assert!(!shown(vec![ended]).contains("ttmem_used_bytes"));
    }

    #[test]
    fn what_is_unknown_has_no_sample() {
        let mut snapshot = fixture::circulars();
        for device in &mut snapshot.devices {
            device.circular.core_bytes = None;
            for pool in &mut device.pools {
                pool.used_bytes = None;
            }
        }
        let page = shown(vec![snapshot]);
        assert!(!page.contains("ttmem_used_bytes{"), "{page}");
        assert!(!page.contains("ttmem_circular_core_bytes{"), "{page}");
        assert!(page.contains("ttmem_buffers{"), "{page}");
    }

    #[test]
    fn whatever_a_command_is_called_stays_in_its_quotes() {
        let mut snapshot = fixture::circulars();
        let mut label = (*snapshot.process).clone();
        label.command = "a \"b\" \\ c\nttmem_used_bytes 1".to_owned();
        snapshot.process = Arc::new(label);
        let page = shown(vec![snapshot]);
        let line = page.lines().find(|line| line.starts_with("ttmem_process_info{"));
        let expected = r#"command="a \"b\" \\ c\nttmem_used_bytes 1""#;
        assert!(line.is_some_and(|line| line.contains(expected)), "{page}");
    }
}
