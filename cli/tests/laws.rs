//! What holds for every file.

use std::collections::BTreeMap;

use cli::check::check;
use cli::diagnostic::{Severity, render};
use cli::files::File;
use cli::{dump, import};
use proptest::prelude::*;

/// Pieces of configuration, right and wrong, with what is hard to point at between them.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("apiVersion: foghorn.dev/v1alpha1\nkind: IPAddressPool\n".to_owned()),
        Just("apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\n".to_owned()),
        Just("metadata: {name: lan}\n".to_owned()),
        Just("metadata: {name: Größe}\n".to_owned()),
        Just("spec: {addresses: [192.0.2.0/24, \"192.0.2.9-192.0.2.7\"]}\r\n".to_owned()),
        Just("spec:\n\taddresses:\n".to_owned()),
        Just("  addresses: [\u{1f6a8}ü, 192.0.2.1, 192.0.2.1]\n".to_owned()),
        Just("spec: {ipAddressPools: [lan, \"ü\"]}\n".to_owned()),
        Just("---\n".to_owned()),
        Just("\u{feff}".to_owned()),
        Just("# ü\n".to_owned()),
        "[a-zü:{}\\[\\]\"'\\- \t\r\n]{0,12}",
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn every_mistake_is_shown_where_it_is(texts in proptest::collection::vec(any_text(), 1..3), cut in 0_usize..60) {
        let files: Vec<File> = texts
            .iter()
            .enumerate()
            .map(|(index, text)| File {
                path: format!("{index}.yaml").into(),
                // A file may end within a character.
                content: Ok(text.as_bytes().iter().copied().take(text.len().saturating_sub(cut % 7)).collect()),
            })
            .collect();
        let report = check(&files);
        // A lone carriage return ends a line too (YAML 1.2.2 §5.4).
        let lines: BTreeMap<_, _> = report
            .sources
            .iter()
            .map(|(path, source)| (path.clone(), source.matches(['\n', '\r']).count()))
            .collect();
        for found in &report.diagnostics {
            let last = lines.get(&found.path).copied().unwrap_or_default();
            prop_assert!(found.line >= 1 && found.line as usize <= last + 1, "{}", found.line());
            let shown = render(std::slice::from_ref(found), &report.sources, false);
            let word = if found.severity == Severity::Error { "error: " } else { "warning: " };
            prop_assert!(shown.starts_with(word), "{shown}");
            prop_assert!(shown.contains(&format!("{}:", found.path)), "{shown}");
        }
    }

    #[test]
    fn what_is_imported_and_not_to_be_corrected_is_accepted(text in any_text()) {
        let Ok(objects) = dump::objects(text.as_bytes()) else {
            return Ok(());
        };
        let mut imported = import::import(&objects);
        imported.objects.retain(|object| object.mistakes.is_empty());
        let written = imported.yaml().map_err(|error| TestCaseError::fail(error.to_string()))?;
        let files = [File { path: "imported.yaml".into(), content: Ok(written.into_bytes()) }];
        let report = check(&files);
        prop_assert_eq!(report.errors(), 0, "{:?}", report.diagnostics);
    }
}
