//! The source and files that change under it.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use config_runtime::Interest;
use config_runtime::source::{Source, Update};

fn pool(name: &str, address: &str) -> String {
    format!(
        "apiVersion: foghorn.dev/v1alpha1\nkind: IPAddressPool\nmetadata: {{name: {name}}}\nspec:\n  addresses: [{address}]\n---\n"
    )
}

async fn next(source: &mut Source) -> Update {
    tokio::time::timeout(Duration::from_secs(10), source.changed())
        .await
        .unwrap()
}

fn start(path: &Path) -> Source {
    Source::start(None, &[path.to_owned()], Interest::default())
}

fn pools(source: &Source) -> Vec<String> {
    source
        .snapshot()
        .pools()
        .keys()
        .map(ToString::to_string)
        .collect()
}

#[tokio::test]
async fn a_config_map_is_swapped_by_its_link() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (version, address) in [("v1", "192.0.2.1"), ("v2", "192.0.2.2")] {
        std::fs::create_dir(path(version)).unwrap();
        std::fs::write(path(version).join("lan.yaml"), pool("lan", address)).unwrap();
    }
    symlink("v1", path("..data")).unwrap();
    symlink("..data/lan.yaml", path("lan.yaml")).unwrap();
    for watched in [folder.path().to_owned(), path("lan.yaml")] {
        symlink("v1", path("..tmp")).unwrap();
        std::fs::rename(path("..tmp"), path("..data")).unwrap();
        let mut source = start(&watched);
        let update = source.synced().await;
        assert!(update.dirty.configuration);
        assert_eq!(pools(&source), ["lan"]);
        symlink("v2", path("..tmp")).unwrap();
        std::fs::rename(path("..tmp"), path("..data")).unwrap();
        assert!(next(&mut source).await.dirty.configuration);
        let address = source.snapshot().pools()[&"lan".into()].ranges[0].to_string();
        assert_eq!(address, "192.0.2.2");
    }
}

#[tokio::test]
async fn a_broken_document_stands_alone_and_its_last_version_stays() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lan.yaml");
    std::fs::write(&file, pool("good", "192.0.2.1") + &pool("bad", "192.0.2.2")).unwrap();
    let mut source = start(folder.path());
    source.synced().await;

    // It cannot even be named: nothing of the file goes, the rest of it applies.
    let text = pool("good", "192.0.2.3") + "apiVersion: [\n---\n" + &pool("new", "192.0.2.4");
    std::fs::write(&file, text).unwrap();
    let update = next(&mut source).await;
    assert_eq!(pools(&source), ["bad", "good", "new"]);
    assert_eq!(
        source.snapshot().pools()[&"good".into()].ranges[0].to_string(),
        "192.0.2.3"
    );
    let refused: Vec<_> = update.refused.iter().map(ToString::to_string).collect();
    let expected = format!(
        "{}:7:13: the document is not YAML: unclosed bracket '['",
        file.display()
    );
    assert_eq!(refused, [expected]);

    std::fs::write(&file, pool("good", "192.0.2.3")).unwrap();
    let update = next(&mut source).await;
    assert_eq!(
        (pools(&source), update.settled.len()),
        (vec!["good".to_owned()], 1)
    );

    std::fs::remove_file(&file).unwrap();
    next(&mut source).await;
    assert_eq!(pools(&source), Vec::<String>::new());
}

#[tokio::test]
async fn a_file_that_is_not_there_yet_is_refused_and_found_later() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lan.yaml");
    let mut source = start(&file);
    let update = source.synced().await;
    assert_eq!(update.refused.len(), 1);
    std::fs::write(&file, pool("lan", "192.0.2.1")).unwrap();
    let update = next(&mut source).await;
    assert_eq!(
        (pools(&source), update.settled.len()),
        (vec!["lan".to_owned()], 1)
    );
}

#[tokio::test]
async fn what_is_not_ours_in_a_folder_does_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("README.md", "apiVersion: [");
    write(".hidden.yaml", "apiVersion: [");
    write(
        "service.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n",
    );
    write("huge.yaml", &"# padding\n".repeat(1_100_000));
    write("lan.yaml", &pool("lan", "192.0.2.1"));
    let mut source = start(folder.path());
    let update = source.synced().await;
    assert_eq!(pools(&source), ["lan"]);
    let refused: Vec<_> = update.refused.iter().map(ToString::to_string).collect();
    let expected = format!(
        "{}/huge.yaml:1:1: the file has more than 1048576 bytes: split it",
        folder.path().display()
    );
    assert_eq!(refused, [expected]);
}
