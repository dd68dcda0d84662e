//! The files of `--config`, read again whenever they change.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use config::file::{MOST_BYTES, Reading, read, unreadable};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::delivery::Delivery;

/// What the source calls the files while it waits for them.
pub(crate) const NAME: &str = "files";
/// After a change, files are read once nothing has changed for this long: an editor writes in several steps.
const QUIET: Duration = Duration::from_millis(50);
/// However often something changes, files are read after this long.
const LONGEST_UNREST: Duration = Duration::from_secs(1);
/// Without a change the files are compared this often, for file systems that report none.
const PERIOD: Duration = Duration::from_secs(30);

/// Delivers the files now and after each change of content, for as long as somebody receives.
pub(crate) async fn run(paths: Vec<PathBuf>, deliveries: mpsc::Sender<Delivery>) {
    let (sender, mut changes) = mpsc::channel(1);
    // One waiting notice is enough: it makes everything be read.
    let notice = move |_: notify::Result<notify::Event>| {
        let _ = sender.try_send(());
    };
    let mut watcher = notify::recommended_watcher(notice)
        .inspect_err(|error| tracing::warn!(%error, "Files are compared every 30 seconds only"))
        .ok();
    let mut watched = BTreeSet::new();
    let mut files = Files::default();
    let mut synced = false;
    loop {
        watch_directories(&paths, watcher.as_mut(), &mut watched);
        let asked = paths.clone();
        let Ok((next, readings)) =
            tokio::task::spawn_blocking(move || files.read_again(&asked)).await
        else {
            return;
        };
        files = next;
        for (path, reading) in readings {
            if deliveries
                .send(Delivery::File(path, reading))
                .await
                .is_err()
            {
                return;
            }
        }
        if !std::mem::replace(&mut synced, true)
            && deliveries.send(Delivery::Synced(NAME)).await.is_err()
        {
            return;
        }
        tokio::select! {
            Some(()) = changes.recv() => {
                // What never rests is read all the same.
                let _ = tokio::time::timeout(LONGEST_UNREST, settle(&mut changes)).await;
            }
            () = tokio::time::sleep(PERIOD) => {}
            () = deliveries.closed() => return,
        }
    }
}

/// Waits until no change has come for a while.
async fn settle(changes: &mut mpsc::Receiver<()>) {
    while let Ok(Some(())) = tokio::time::timeout(QUIET, changes.recv()).await {}
}

/// Watches the directories that the files are in: a ConfigMap is replaced by a link in its directory.
fn watch_directories(
    paths: &[PathBuf],
    watcher: Option<&mut RecommendedWatcher>,
    watched: &mut BTreeSet<PathBuf>,
) {
    let Some(watcher) = watcher else {
        return;
    };
    for path in paths {
        let directory = match path.parent() {
            _ if path.is_dir() => path.as_path(),
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        if !directory.exists() {
            // A directory that comes back is another one.
            watched.remove(directory);
        } else if !watched.contains(directory)
            && watcher
                .watch(directory, RecursiveMode::NonRecursive)
                .is_ok()
        {
            watched.insert(directory.to_owned());
        }
    }
}

/// What the files said when they were read last.
#[derive(Default)]
struct Files {
    contents: BTreeMap<Arc<str>, Result<Vec<u8>, String>>,
}

impl Files {
    /// Reads everything again; returns what is different.
    fn read_again(mut self, paths: &[PathBuf]) -> (Self, Vec<(Arc<str>, Reading)>) {
        let mut now: BTreeMap<Arc<str>, Result<Vec<u8>, String>> = BTreeMap::new();
        for path in paths {
            self.collect(path, &mut now);
        }
        let mut readings = Vec::new();
        for (path, content) in &now {
            if self.contents.get(path) != Some(content) {
                let reading = match content {
                    Ok(content) => read(path, content),
                    Err(error) => unreadable(path, error),
                };
                readings.push((Arc::clone(path), reading));
            }
        }
        let gone = self.contents.keys().filter(|path| !now.contains_key(*path));
        readings.extend(gone.map(|path| (Arc::clone(path), Reading::default())));
        self.contents = now;
        (self, readings)
    }

    fn collect(&self, path: &Path, now: &mut BTreeMap<Arc<str>, Result<Vec<u8>, String>>) {
        let name = |path: &Path| Arc::<str>::from(path.to_string_lossy());
        if !path.is_dir() {
            now.insert(name(path), content(path));
            return;
        }
        match configuration_files(path) {
            Ok(files) => now.extend(files.iter().map(|file| (name(file), content(file)))),
            Err(error) => {
                // What the directory held stays as it was.
                let inside = |file: &str| Path::new(file).parent() == Some(path);
                let held = self.contents.iter().filter(|(file, _)| inside(file));
                now.extend(held.map(|(file, content)| (Arc::clone(file), content.clone())));
                now.insert(name(path), Err(error.to_string()));
            }
        }
    }
}

/// The files of a directory that are meant: `*.yaml`, `*.yml`, `*.json`, none that are hidden.
fn configuration_files(directory: &Path) -> std::io::Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let is_meant = path.extension().is_some_and(|extension| {
            ["yaml", "yml", "json"]
                .iter()
                .any(|known| extension == *known)
        });
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if is_meant && !is_hidden && !path.is_dir() {
            files.insert(path);
        }
    }
    Ok(files)
}

/// At most one octet more than a file may have, so that a large one costs nothing.
fn content(path: &Path) -> Result<Vec<u8>, String> {
    let text = |error: std::io::Error| error.to_string();
    let file = std::fs::File::open(path).map_err(text)?;
    if !file.metadata().map_err(text)?.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut content = Vec::new();
    file.take(MOST_BYTES + 1)
        .read_to_end(&mut content)
        .map_err(text)?;
    Ok(content)
}
