//! `ttmem run` behind `sudo`: whose the command is, and which environment it gets.
//!
//! Root needs no sudo to become another user: what sudo says of who called is said here by hand.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{or_skip, refusal::compile, ttmem::Ttmem};

#[test]
fn the_command_is_run_by_the_user_who_asked() {
    let ttmem = or_skip!(Ttmem::locate());
    let mut command = ttmem.command(&["run", "--headless", "-o", "/dev/null", "--", "id", "-u"]);
    let output = command.env("SUDO_UID", "65534").env("SUDO_GID", "65534").output().unwrap();
    assert_eq!(output.stdout, b"65534\n", "{}", String::from_utf8_lossy(&output.stderr));
}

/// Says who has loaded it, in a line of the file that it is told.
const PRELOADED: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
__attribute__((constructor)) static void loaded(void) {
    FILE *file = fopen(getenv("TTMEM_TEST_LOADED"), "a");
    fprintf(file, "%u\n", geteuid());
    fclose(file);
}
"#;

#[test]
fn what_the_user_has_the_loader_do_is_not_done_as_root() {
    let ttmem = or_skip!(Ttmem::locate());
    let folder = tempfile::tempdir().unwrap();
    let library = compile(folder.path(), "loaded.so", PRELOADED, &["-shared", "-fPIC"]).unwrap();
    let loaded = folder.path().join("loaded");
    fs::write(&loaded, "").unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&loaded, Permissions::from_mode(0o666)).unwrap();
    let mut command = ttmem.command(&["run", "--headless", "-o", "/dev/null", "--", "id", "-u"]);
    command.env("SUDO_UID", "65534").env("SUDO_GID", "65534");
    command.env("LD_PRELOAD", &library).env("TTMEM_TEST_LOADED", &loaded);
    let output = command.output().unwrap();
    assert_eq!(output.stdout, b"65534\n", "{}", String::from_utf8_lossy(&output.stderr));
    // ttmem itself was started with it here, where sudo would have left it out.
    assert_eq!(fs::read_to_string(&loaded).unwrap(), "0\n65534\n");
}

/// A user and a group that nobody has.
const STRANGER: &str = "54321";

#[test]
fn a_user_without_a_name_gets_no_group_of_roots() {
    let ttmem = or_skip!(Ttmem::locate());
    // Root may have no group but its own.
    let mut command = Command::new("setpriv");
    command.args(["--groups", "0,7"]).arg(ttmem.path());
    command.args(["run", "--headless", "-o", "/dev/null", "--", "id", "-G"]);
    let output = command.env("SUDO_UID", STRANGER).env("SUDO_GID", STRANGER).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.stdout, b"54321\n", "{text}");
}

/// What a command gets for `X`. It is run from a script of a shell that is called this way, which
/// began with `X=outer` and has set `X=inner`.
fn value_of_x(ttmem: &Ttmem, caller: &Path, script: &str) -> Result<String> {
    let mut command = Command::new(caller);
    command.args(["-c", script]).arg(ttmem.path());
    command.env("X", "outer").env("SUDO_UID", STRANGER).env("SUDO_GID", STRANGER);
    let output = command.output().context("the shell")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn what_was_set_in_a_shell_of_sudo_reaches_the_command() {
    let ttmem = or_skip!(Ttmem::locate());
    let folder = tempfile::tempdir().unwrap();
    let sudo = folder.path().join("sudo");
    symlink("/bin/bash", &sudo).unwrap();
    let run = r#"export X=inner; "$0" run --headless -o /dev/null -- sh -c 'echo $X'; exit"#;
    assert_eq!(value_of_x(&ttmem, &sudo, run).unwrap(), "outer\n", "sudo ttmem run");
    let shell = format!("bash -c '{}' \"$0\"; exit", run.replace('\'', r"'\''"));
    assert_eq!(value_of_x(&ttmem, &sudo, &shell).unwrap(), "inner\n", "sudo -s, ttmem run");
}
