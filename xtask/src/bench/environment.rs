//! On what it was measured.

use std::fs;
use std::process::Command;

use super::report::Report;
use super::rig::Rig;
use crate::run;

/// Writes down the machine and the tools.
pub fn note(rig: Option<&Rig>, report: &mut Report) {
    let said = |program: &str, arguments: &[&str]| {
        run::capture(Command::new(program).args(arguments)).map(|said| said.trim().to_owned()).ok()
    };
    let unknown = || "not known".to_owned();
    report.fact("date", &said("date", &["-u", "+%Y-%m-%d"]).unwrap_or_else(unknown));
    report.fact("kernel", &said("uname", &["-sr"]).unwrap_or_else(unknown));
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    report.fact("processor", &processor(&cpuinfo).unwrap_or_else(unknown));
    let hypervisor = said("systemd-detect-virt", &[]).unwrap_or_else(|| {
        let guest = cpuinfo.lines().any(|line| {
            line.starts_with("flags") && line.split_whitespace().any(|flag| flag == "hypervisor")
        });
        if guest { "a hypervisor" } else { "none seen" }.to_owned()
    });
    report.fact("hypervisor", &hypervisor);
    report.fact("load before", fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    report
        .fact("commit", &said("git", &["describe", "--always", "--dirty"]).unwrap_or_else(unknown));
    let Some(rig) = rig else { return };
    let ttmem = said(&rig.ttmem.display().to_string(), &["--version"]);
    report.fact("ttmem", &ttmem.unwrap_or_else(unknown));
    let versions: Vec<&str> = rig.bpftraces.iter().map(|tool| tool.version.as_str()).collect();
    report.fact(
        "bpftrace",
        &if versions.is_empty() { "none".to_owned() } else { versions.join(", ") },
    );
    report.fact("target", &rig.real.name());
    report.fact(
        "wake-up policy",
        "armed: a tick while records flow, one wake-up after a quiet spell",
    );
}

fn processor(cpuinfo: &str) -> Option<String> {
    let value = |key: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let count = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    Some(format!("{count} × {}", value("model name")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_and_named() {
        let text = "processor\t: 0\nmodel name\t: A B\n\nprocessor\t: 1\nmodel name\t: A B\n";
        assert_eq!(processor(text).as_deref(), Some("2 × A B"));
        assert_eq!(processor(""), None);
    }
}
