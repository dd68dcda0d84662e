//! Dependencies point one way, and what is pure reads no clock.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::path::{Path, PathBuf};

/// Packages without an async runtime, a Kubernetes client, tracing or a clock.
const PURE: [&str; 4] = [
    "config",
    "controller/allocator",
    "proxy/table",
    "speaker/announcer",
];
/// Packages that are pure but for these modules.
const PURE_BUT: [(&str, &[&str]); 3] = [
    ("proxy/iptables", &["kernel.rs", "kernel", "plane.rs"]),
    ("proxy/ipvs", &["kernel.rs", "kernel"]),
    ("proxy/nftables", &["kernel.rs", "kernel"]),
];

const IMPURE_CRATES: [&str; 8] = [
    "async-std",
    "axum",
    "hyper",
    "kube",
    "kube-client",
    "kube-runtime",
    "tokio",
    "tracing",
];
const IMPURE_WORDS: [&str; 9] = [
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::thread::",
    "println!",
    "thread_rng",
];

/// What each package of ours may depend on of ours, by manifest folder; the end-to-end tests link no program,
/// but ask the specification.
const ALLOWED: [(&str, &[&str]); 14] = [
    ("config", &[]),
    ("config/runtime", &["config"]),
    ("controller/allocator", &["config"]),
    ("proxy/table", &["config"]),
    ("speaker/announcer", &["config"]),
    ("proxy/iptables", &["config", "proxy-table"]),
    ("proxy/ipvs", &["config", "proxy-nftables", "proxy-table"]),
    ("proxy/nftables", &["config", "proxy-table"]),
    (
        "controller",
        &["config", "config-runtime", "controller-allocator"],
    ),
    (
        "speaker",
        &["config", "config-runtime", "speaker-announcer"],
    ),
    (
        "proxy",
        &[
            "config",
            "config-runtime",
            "proxy-table",
            "proxy-iptables",
            "proxy-ipvs",
            "proxy-nftables",
        ],
    ),
    (
        "cli",
        &[
            "config",
            "config-runtime",
            "controller-allocator",
            "proxy-table",
            "speaker-announcer",
        ],
    ),
    ("e2e", &["config", "handbook", "proxy-table"]),
    // Its tests ask the parsers of all programs; what others use of it knows none.
    (
        "handbook",
        &["config", "cli", "controller", "proxy", "speaker"],
    ),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The keys of a table of a manifest, as `[dependencies]` or `[dependencies.name]`.
fn dependencies(manifest: &Path, tables: &[&str]) -> Vec<String> {
    let text = std::fs::read_to_string(manifest).unwrap();
    let mut table = String::new();
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(header) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            header.trim_matches(['[', ']']).clone_into(&mut table);
            for wanted in tables {
                found.extend(table.strip_prefix(&format!("{wanted}.")).map(str::to_owned));
            }
        } else if tables.contains(&table.as_str()) && !line.starts_with('#') {
            let key = line.split(['=', '.', ' ']).next().unwrap_or_default();
            if !key.is_empty() {
                found.push(key.to_owned());
            }
        }
    }
    found
}

fn members() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let list = text.split("members = [").nth(1).unwrap();
    let list = list.split(']').next().unwrap();
    list.split(',')
        .map(|member| member.trim().trim_matches('"').to_owned())
        .filter(|member| !member.is_empty())
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    let members = members();
    let names: Vec<String> = members.iter().map(|path| path.replace('/', "-")).collect();
    for member in &members {
        let (_, allowed) = ALLOWED
            .iter()
            .find(|(path, _)| path == member)
            .ok_or_else(|| format!("say in ALLOWED what {member} may depend on"))
            .unwrap();
        let manifest = root().join(member).join("Cargo.toml");
        for found in dependencies(&manifest, &["dependencies", "dev-dependencies"]) {
            assert!(
                !names.contains(&found) || allowed.contains(&found.as_str()),
                "{member} must not depend on {found}"
            );
        }
    }
}

#[test]
fn what_is_pure_depends_on_no_runtime_client_or_tracing() {
    let pure = PURE.iter().copied();
    for package in pure {
        let manifest = root().join(package).join("Cargo.toml");
        for found in dependencies(&manifest, &["dependencies", "build-dependencies"]) {
            assert!(
                !IMPURE_CRATES.contains(&found.as_str()),
                "{package} is pure and must not depend on {found}"
            );
        }
    }
}

#[test]
fn what_is_pure_reads_no_clock_and_opens_no_socket() {
    let whole = PURE.iter().map(|&package| (package, &[][..]));
    for (package, impure) in whole.chain(PURE_BUT) {
        let source = root().join(package).join("src");
        for file in files(&source) {
            let relative = file.strip_prefix(&source).unwrap();
            if relative
                .iter()
                .any(|part| impure.iter().any(|name| part == *name))
            {
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap();
            // Tests stand at the end and may start a virtual time at the real one.
            let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            for word in IMPURE_WORDS {
                assert!(
                    !code.contains(word),
                    "{} is pure and must not say {word}",
                    file.display()
                );
            }
        }
    }
}

/// The sources below a folder, except files of tests.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path.file_stem().is_none_or(|stem| stem != "tests")
            && !path.iter().any(|part| part == "tests")
        {
            found.push(path);
        }
    }
    found
}

#[test]
fn the_check_itself_reads_manifests_as_cargo_does() {
    let folder = tempfile();
    let manifest = folder.join("Cargo.toml");
    let text = "[package]\nname = \"x\"\n[dependencies]\n# tokio\nkube.workspace = true\nserde = \"1\"\n\
                [dependencies.tokio]\nversion = \"1\"\n[dev-dependencies]\naxum = \"1\"\n";
    std::fs::write(&manifest, text).unwrap();
    assert_eq!(
        dependencies(&manifest, &["dependencies"]),
        ["kube", "serde", "tokio"]
    );
    std::fs::remove_dir_all(folder).unwrap();
}

fn tempfile() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("foghorn-architecture-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
