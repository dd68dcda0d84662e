//! The manifests of the custom resources are what the types say.
//!
//! `UPDATE=1 cargo test -p config --test custom_resources` writes them.

use std::path::PathBuf;

use config::crd::{IPAddressPool, L2Advertisement, ServiceL2Status};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::CustomResourceExt;

#[test]
fn the_manifests_are_what_the_types_say() {
    for definition in definitions() {
        let path = manifest(&definition);
        let expected = format!("{HEADER}{}", serde_yaml::to_string(&definition).unwrap());
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &expected).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == expected,
            "{} is not what the types say: run UPDATE=1 cargo test -p config --test custom_resources",
            path.display()
        );
    }
}

#[test]
fn what_the_api_server_demands_is_there() {
    for definition in definitions() {
        let of_services = definition.spec.names.kind == "ServiceL2Status";
        let scope = if of_services { "Namespaced" } else { "Cluster" };
        assert_eq!(definition.spec.scope, scope);
        let version = &definition.spec.versions[0];
        assert!(version.subresources.as_ref().unwrap().status.is_some());
        assert!(
            version
                .additional_printer_columns
                .as_ref()
                .is_some_and(|columns| columns.len() >= 4)
        );
    }
}

fn definitions() -> [CustomResourceDefinition; 3] {
    [
        IPAddressPool::crd(),
        L2Advertisement::crd(),
        ServiceL2Status::crd(),
    ]
}

const HEADER: &str = "# Written by: UPDATE=1 cargo test -p config --test custom_resources\n";

fn manifest(definition: &CustomResourceDefinition) -> PathBuf {
    let name = format!(
        "{}_{}.yaml",
        definition.spec.group, definition.spec.names.plural
    );
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/crds")
        .join(name)
}
