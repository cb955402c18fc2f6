//! A stand-in for the RISC-V kernel compiler that tt-metal calls at run time.
//!
//! Mock devices never run a kernel, but opening one and the first run of each op want the files
//! that a compiler leaves. This one leaves a dependency file and, for every object and program,
//! a copy of one tiny RISC-V program that has the sections and symbols that the loader looks for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::elf;

const TOOLS: [&str; 4] = ["gcc", "g++", "objcopy", "objdump"];

const SCRIPT: &str = r#"#!/bin/sh
# Stand-in for the kernel compiler, written by `cargo xtask setup`: mock devices run no kernel.
case "$1" in
    --version | -v)
        echo "riscv-tt-elf-g++ (ttmem stand-in) 15.1.0"
        exit 0
        ;;
esac
output= dependencies= previous=
for word in "$@"; do
    case "$previous" in
        -o) output=$word ;;
        -MF) dependencies=$word ;;
    esac
    previous=$word
done
if [ -n "$dependencies" ]; then
    printf '%s: %s\n' "$output" "$0" >"$dependencies"
fi
if [ -n "$output" ]; then
    cp "${0%/*}/stand-in.elf" "$output"
fi
"#;

/// Writes the stand-in below the `sfpi` folder of a wheel's `ttnn/runtime`.
pub fn install(sfpi: &Path) -> Result<()> {
    let bin = sfpi.join("compiler/bin");
    fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
    write(&bin.join("stand-in.elf"), &elf::tiny_program(), 0o644)?;
    for tool in TOOLS {
        write(&bin.join(format!("riscv-tt-elf-{tool}")), SCRIPT.as_bytes(), 0o755)?;
    }
    Ok(())
}

fn write(file: &Path, content: &[u8], mode: u32) -> Result<()> {
    let written = fs::write(file, content)
        .and_then(|()| fs::set_permissions(file, fs::Permissions::from_mode(mode)));
    written.with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn leaves_an_object_and_its_dependencies() {
        let dir = std::env::temp_dir().join(format!("ttmem-compiler-{}", std::process::id()));
        install(&dir).unwrap();
        let compiler = dir.join("compiler/bin/riscv-tt-elf-g++");
        let (object, dependencies) = (dir.join("a.o"), dir.join("a.d"));
        let mut command = Command::new(compiler);
        command.arg("-c").arg("-MF").arg(&dependencies).arg("-o").arg(&object).arg("a.cc");
        assert!(command.status().unwrap().success());
        assert_eq!(fs::read(&object).unwrap(), elf::tiny_program());
        let first = object.display().to_string() + ": ";
        assert!(fs::read_to_string(&dependencies).unwrap().starts_with(&first));
        fs::remove_dir_all(&dir).unwrap();
    }
}
