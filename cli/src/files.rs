//! Files that the user names.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file and what it holds, or why it cannot be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct File {
    /// What messages call it.
    pub path: Arc<str>,
    /// What it holds.
    pub content: Result<Vec<u8>, String>,
}

/// Reads files, the files of directories (as the programs do: those that end in `.yaml`, `.yml` or `.json` and are not
/// hidden), and standard input for `-`.
pub fn read_all(paths: &[PathBuf]) -> Vec<File> {
    let mut files = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut content = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut content);
            files.push(File {
                path: "<standard input>".into(),
                content: read.map(|_| content).map_err(|error| error.to_string()),
            });
        } else if path.is_dir() {
            match inside(path) {
                Ok(inside) => files.extend(inside.iter().map(|path| one(path))),
                Err(error) => files.push(File {
                    path: name(path),
                    content: Err(error.to_string()),
                }),
            }
        } else {
            files.push(one(path));
        }
    }
    files
}

fn one(path: &Path) -> File {
    File {
        path: name(path),
        content: std::fs::read(path).map_err(|error| error.to_string()),
    }
}

fn name(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}

fn inside(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let is_meant = path
            .extension()
            .is_some_and(|found| ["yaml", "yml", "json"].iter().any(|known| found == *known));
        let hidden = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with('.');
        if is_meant && !path.file_name().is_some_and(hidden) && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}
