//! `include/ttmem.h` and `ttmem.hpp` agree with the layout here, and compile without a warning in
//! every language and by every compiler that is at hand.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use ttmem_common::table::{self, Field, chip, header, headroom, pool, state};

const WARNINGS: [&str; 8] = [
    "-Wall",
    "-Wextra",
    "-Werror",
    "-pedantic",
    "-Wconversion",
    "-Wshadow",
    "-Wcast-align",
    "-fsyntax-only",
];

/// A language: its compilers, its standards, the ending of its files.
struct Language {
    compilers: [&'static str; 2],
    standards: [&'static str; 3],
    ending: &'static str,
    include: &'static str,
    assert: &'static str,
}

const LANGUAGES: [Language; 3] = [
    Language {
        compilers: ["gcc", "clang"],
        standards: ["c11", "gnu11", "gnu17"],
        ending: "c",
        include: "ttmem.h",
        assert: "_Static_assert",
    },
    Language {
        compilers: ["g++", "clang++"],
        standards: ["c++17", "gnu++17", "c++20"],
        ending: "cpp",
        include: "ttmem.h",
        assert: "static_assert",
    },
    Language {
        compilers: ["g++", "clang++"],
        standards: ["c++17", "gnu++17", "c++20"],
        ending: "cpp",
        include: "ttmem.hpp",
        assert: "static_assert",
    },
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What has to be equal: a name of the header, and a number from here.
fn equalities() -> Vec<(String, u64)> {
    let mut all = vec![
        ("TTMEM_MAGIC".to_owned(), table::MAGIC),
        ("TTMEM_VERSION".to_owned(), table::VERSION),
        ("TTMEM_UNKNOWN".to_owned(), table::UNKNOWN),
        ("TTMEM_TYPES".to_owned(), table::POOLS as u64),
        ("TTMEM_HEADER_LAST_BYTE".to_owned(), header::LAST_BYTE),
        ("TTMEM_CHIP_LAST_BYTE".to_owned(), chip::LAST_BYTE),
        ("TTMEM_POOL_LAST_BYTE".to_owned(), pool::LAST_BYTE),
        ("TTMEM_STARTING".to_owned(), state::STARTING),
        ("TTMEM_RUNNING".to_owned(), state::RUNNING),
        ("TTMEM_EXITED".to_owned(), state::EXITED),
        ("TTMEM_REPLACED".to_owned(), state::REPLACED),
        ("TTMEM_UNWATCHED".to_owned(), state::UNWATCHED),
        ("TTMEM_HEADROOM_UNKNOWN".to_owned(), headroom::UNKNOWN),
        ("TTMEM_HEADROOM_OK".to_owned(), headroom::OK),
        ("TTMEM_HEADROOM_LOW".to_owned(), headroom::LOW),
        ("TTMEM_HEADROOM_CLASH".to_owned(), headroom::CLASH),
    ];
    let parts = [("HEADER", header::FIELDS), ("CHIP", chip::FIELDS), ("POOL", pool::FIELDS)];
    for (part, fields) in parts {
        let named = |field: &Field| (format!("TTMEM_{part}_{}", field.name), field.offset as u64);
        all.extend(fields.iter().map(named));
    }
    all
}

fn program(language: &Language) -> String {
    let mut text = format!("#include \"{}\"\n#include <stddef.h>\n", language.include);
    for (name, value) in equalities() {
        writeln!(text, "{}((uint64_t){name} == {value}U, \"{name}\");", language.assert)
            .expect("a string takes all");
    }
    for field in header::FIELDS.iter().filter(|field| field.unit == "text") {
        let (name, bytes) = (field.name.to_lowercase(), field.bytes);
        let size = format!("sizeof(((struct ttmem_process *)NULL)->{name})");
        writeln!(text, "{}({size} == {bytes}, \"{name}\");", language.assert)
            .expect("a string takes all");
    }
    // Every function is looked at, and not only where it is used.
    text + "int main(void) { struct ttmem_table table; return ttmem_open(&table, 0, NULL); }\n"
}

/// What the compiler complains of; `None` if it is not there.
fn complaints(compiler: &str, arguments: &[String]) -> Option<String> {
    let output = Command::new(compiler).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(if output.status.success() { String::new() } else { format!("it fails: {text}") })
}

fn arguments(standard: &str, file: &Path) -> Vec<String> {
    let mut arguments: Vec<String> = WARNINGS.iter().map(ToString::to_string).collect();
    arguments.push(format!("-std={standard}"));
    arguments.push(format!("-I{}", root().join("include").display()));
    arguments.push(file.display().to_string());
    arguments
}

#[test]
fn the_layout_of_the_headers_is_this_one() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut compiled = 0;
    for (at, language) in LANGUAGES.iter().enumerate() {
        let file = directory.join(format!("layout-{at}.{}", language.ending));
        fs::write(&file, program(language)).expect("written");
        for compiler in language.compilers {
            for standard in language.standards {
                if let Some(said) = complaints(compiler, &arguments(standard, &file)) {
                    assert_eq!(said, "", "{compiler} -std={standard} {}", language.include);
                    compiled += 1;
                }
            }
        }
    }
    assert!(compiled >= 9, "gcc and g++ have to be here: {compiled} were compiled");
}

#[test]
fn a_layout_that_is_not_this_one_does_not_compile() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wrong.c");
    let wrong =
        program(&LANGUAGES[0]).replace("TTMEM_POOL_FREES == 48U", "TTMEM_POOL_FREES == 56U");
    fs::write(&file, wrong).expect("written");
    let said = complaints("gcc", &arguments("c11", &file)).expect("gcc is here");
    assert!(said.contains("TTMEM_POOL_FREES"), "{said}");
}

#[test]
fn every_figure_of_a_chip_and_a_pool_is_read() {
    let header = fs::read_to_string(root().join("include/ttmem.h")).expect("it is there");
    for (part, fields) in [("CHIP", chip::FIELDS), ("POOL", pool::FIELDS)] {
        for field in fields {
            let loaded = format!("TTMEM_{part}_{} / 8)", field.name);
            assert!(header.contains(&loaded), "nobody reads {part}_{}", field.name);
        }
    }
}

#[test]
fn what_a_caller_has_by_default_is_not_hidden() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("first.c");
    let text = "#include \"ttmem.h\"\n#include <math.h>\n#include <unistd.h>\n\
                int main(void) { return MAP_ANONYMOUS == 0 || usleep((useconds_t)M_PI) != 0; }\n";
    fs::write(&file, text).expect("written");
    for compiler in ["gcc", "clang"] {
        for standard in ["gnu11", "gnu17"] {
            let said = complaints(compiler, &arguments(standard, &file)).unwrap_or_default();
            assert_eq!(said, "", "{compiler} -std={standard}");
        }
    }
}

#[test]
fn figures_of_cpp_compute_and_refuse() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/figures.cpp");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("figures");
    for standard in ["c++17", "c++20"] {
        let mut arguments = arguments(standard, &file);
        arguments.retain(|argument| argument != "-fsyntax-only");
        arguments.extend(["-O2".to_owned(), "-o".to_owned(), program.display().to_string()]);
        assert_eq!(complaints("g++", &arguments).as_deref(), Some(""));
        let output = Command::new(&program).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn the_examples_compile_without_a_warning() {
    for (compilers, standard, name) in [
        (["gcc", "clang"], "gnu11", "monitor.c"),
        (["gcc", "clang"], "c11", "monitor.c"),
        (["g++", "clang++"], "c++17", "query.cpp"),
        (["g++", "clang++"], "c++20", "query.cpp"),
    ] {
        let file = root().join("examples").join(name);
        for compiler in compilers {
            let said = complaints(compiler, &arguments(standard, &file)).unwrap_or_default();
            assert_eq!(said, "", "{compiler} -std={standard} {name}");
        }
    }
}
