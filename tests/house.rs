//! House rules that a machine can check: the import table, the headers of rooms, the documents that repeat the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const ROOMS: [&str; 15] = [
    "frame",
    "message",
    "domain",
    "store",
    "engine",
    "erlang",
    "mapreduce",
    "service",
    "session",
    "grpc",
    "client",
    "control",
    "cli",
    "config",
    "server",
];

/// The source files of a room with their text, tests left out: those may reach for what they need.
fn sources(room: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let file = PathBuf::from(format!("src/{room}.rs"));
    if file.exists() {
        files.push(file);
    }
    collect(&PathBuf::from(format!("src/{room}")), &mut files);
    assert!(!files.is_empty(), "room {room} has no file");
    let is_source = |path: &PathBuf| !path.ends_with("tests.rs") && !path.ends_with("test_server.rs");
    files.into_iter().filter(is_source).map(|path| (path.clone(), without_tests(&read(&path)))).collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn without_tests(text: &str) -> String {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned()
}

/// The names that follow `crate::` in code, comments left out.
fn imported(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut rooms = BTreeSet::new();
    for line in code {
        for after in line.split("crate::").skip(1) {
            rooms.insert(after.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect());
        }
    }
    rooms
}

/// The table under "Rooms" in ARCHITECTURE.md.
fn import_table() -> BTreeMap<String, BTreeSet<String>> {
    let text = read("ARCHITECTURE.md");
    let section = text.split("## Rooms").nth(1).expect("a section on rooms");
    let rows = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1).take_while(|l| l.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let imports = cells[2].split(',').map(str::trim).filter(|name| !name.is_empty()).map(Into::into).collect();
        (cells[1].to_owned(), imports)
    })
    .collect()
}

#[test]
fn rooms_import_what_the_table_says_and_nothing_else() {
    let table = import_table();
    assert_eq!(table.keys().map(String::as_str).collect::<BTreeSet<_>>(), ROOMS.into_iter().collect());
    for room in ROOMS {
        let mut found = BTreeSet::new();
        for (path, text) in sources(room) {
            for name in imported(&text) {
                assert!(ROOMS.contains(&name.as_str()), "{}: no room {name}", path.display());
                found.insert(name);
            }
        }
        found.remove(room);
        assert_eq!(found, table[room], "the imports of {room}");
    }
}

#[test]
fn rooms_open_with_what_they_do_and_must_not_know() {
    for room in ROOMS {
        let path = PathBuf::from(format!("src/{room}/mod.rs"));
        if path.exists() {
            let header: Vec<_> =
                read(&path).lines().take_while(|line| line.starts_with("//!")).map(str::to_owned).collect();
            assert!(header.iter().any(|line| line.contains("Knows")), "{} says what it knows", path.display());
            assert!(header.iter().any(|line| line.contains("Must not know")), "{} says what not", path.display());
        }
    }
}

#[test]
fn generated_types_enter_in_one_place_of_each_front_end() {
    let including = ROOMS.iter().flat_map(|room| sources(room)).filter(|(_, text)| text.contains("include!("));
    let expected = ["src/message/generated.rs", "src/grpc/generated.rs"].map(PathBuf::from);
    assert_eq!(including.map(|(path, _)| path).collect::<Vec<_>>(), expected);
}

#[test]
fn the_readme_names_every_configuration_key_with_its_meaning() {
    let readme = read("README.md");
    for (key, doc) in ombak::config::key_docs() {
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{key}` |")));
        let row = row.unwrap_or_else(|| panic!("README.md does not name {key}"));
        assert!(row.ends_with(&format!("| {doc} |")), "README.md says something else of {key}");
    }
}

#[test]
fn an_import_that_is_not_in_the_table_is_found() {
    assert_eq!(imported("use crate::store::Store;\n// crate::engine\nfn f(x: crate::domain::X) {}"), {
        BTreeSet::from(["store".to_owned(), "domain".to_owned()])
    });
    assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests { use crate::engine; }"), "a\n");
}
