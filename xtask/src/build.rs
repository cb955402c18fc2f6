//! Building ttmem for use, and where cargo put it.
//!
//! Only cargo knows that: its configuration may name another folder (`build.target-dir`), or a target
//! (`build.target`), which has one of its own. Whatever lies at the usual place may be of long ago.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{run, say, setup};

/// Builds ttmem for use; the binary.
pub fn ttmem() -> Result<PathBuf> {
    say::heading("Build");
    let mut build = run::cargo();
    build.args(["build", "--release", "--package", "ttmem", "--bins", "--examples"]);
    println!("    $ {}", run::show(&build));
    // What people read is on standard error.
    build.arg("--message-format=json-render-diagnostics").envs(setup::ebpf_env());
    let output = build.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot start `{}`", run::show(&build)))?;
    if !output.status.success() {
        bail!("`{}` ended with {}", run::show(&build), output.status);
    }
    let said = String::from_utf8_lossy(&output.stdout);
    binary(&said).with_context(|| format!("`{}` names no binary", run::show(&build)))
}

/// One of cargo's messages, as far as it matters here.
#[derive(Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// Where the binary is, by cargo's messages.
fn binary(said: &str) -> Option<PathBuf> {
    let messages = said.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    let mut built = messages.filter(|message| message.reason == "compiler-artifact");
    built.find_map(|Message { target, executable, .. }| {
        let Target { name, kind } = target?;
        executable.filter(|_| name == "ttmem" && kind.iter().any(|kind| kind == "bin"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_where_cargo_says() {
        let artifact = |name: &str, kind: &str, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"name":"{name}","kind":["{kind}"]}},"executable":{executable}}}"#
            )
        };
        let said = [
            "something else".to_owned(),
            r#"{"reason":"build-script-executed","package_id":"x"}"#.to_owned(),
            artifact("ttmem", "lib", "null"),
            artifact("ttmem", "example", r#""/t/examples/ttmem""#),
            artifact("ttmem", "bin", r#""/t/x86_64-unknown-linux-gnu/release/ttmem""#),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ];
        let expected = Some("/t/x86_64-unknown-linux-gnu/release/ttmem".into());
        assert_eq!(binary(&said.join("\n")), expected);
        assert_eq!(binary(&said[..4].join("\n")), None);
    }
}
