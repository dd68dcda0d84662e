//! Foghorn installed as the handbook says, on the real API server: its Pods run with the accounts, rights, arguments and
//! environment that the chart gives them, and with nothing else.
//!
//! Run by `make test-chart`.

#![expect(clippy::print_stdout, clippy::indexing_slicing, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::audit::{self, Right};
use e2e::image::{PROGRAMS, PROGRAMS_WITH_IPTABLES, ProgramOfImage};
use e2e::installation::NAMESPACE;
use e2e::lab::{Lab, Options, with_lab};
use e2e::namespace::output;
use e2e::topology::{POOL_IPV4, POOL_IPV6, ROUTER_IPV4};
use e2e::wait;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(90);
const ALL_PARTS: [(&str, usize); 3] = [("controller", 2), ("speaker", 3), ("proxy", 3)];

/// Each is a `--set` of the chart.
const SWITCHED_ON: [&str; 10] = [
    "pool=192.168.1.240/29",
    "prometheus.enabled=true,prometheus.podMonitor.enabled=true,prometheus.prometheusRule.enabled=true",
    "prometheus.enabled=true,prometheus.serviceMonitor.enabled=true,prometheus.dashboard.enabled=true",
    "proxy.enabled=true,proxy.apiServer.configMap=foghorn-api-server,proxy.privileged=true",
    "proxy.enabled=true,proxy.apiServer.host=192.168.1.10,proxy.dataplane=iptables,proxy.iptablesBackend=nft",
    "proxy.enabled=true,proxy.apiServer.host=192.168.1.10,proxy.dataplane=ipvs,proxy.privileged=true",
    "networkPolicy.egress[0].ports[0].port=6443,networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.a=b",
    "prometheus.enabled=true,prometheus.podMonitor.enabled=true,prometheus.podMonitor.tlsConfig.serverName=a,prometheus.speakerMetricsTLSSecret=b",
    "speaker.updateStrategy.type=OnDelete,proxy.enabled=true,proxy.apiServer.host=192.168.1.10,proxy.updateStrategy.type=OnDelete",
    "prometheus.enabled=true,controller.replicas=1,speaker.realTime=false,loadBalancerClass=example.com/lan",
];

/// The page "Install" with Helm, in the place of kube-proxy.
#[test]
#[ignore = "needs the lab: make test-chart"]
fn the_chart_runs_with_the_rights_that_it_gives_and_needs_all_of_them() -> Result<()> {
    with_lab(&Options::as_pods("chart"), |lab| {
        the_api_server_takes_everything_that_can_be_switched_on(lab)?;
        lab.kubectl.apply(&definitions_of_metallb())?;
        the_api_server_takes_every_object_of_the_handbook(lab)?;
        let pool = format!("pool={{{POOL_IPV4},{POOL_IPV6}}}");
        let host = format!("proxy.apiServer.host={ROUTER_IPV4}");
        let values = [
            pool.as_str(),
            "prometheus.enabled=true,proxy.enabled=true",
            &host,
        ];
        let notes = lab.install_by_helm(&values)?;
        ensure!(notes.contains("The pool lan gives addresses"), "{notes}");
        lab.create_web("web")?;
        let vips = lab.wait_until_web_answers(PATIENCE)?;
        println!("{vips:?} answer");
        lab.wait_for_components(&ALL_PARTS, PATIENCE)?;
        containers_are_confined_as_the_lab_confines_them(lab, &PROGRAMS)?;
        every_right_is_used_and_none_is_missing(lab)?;
        the_support_bundle_has_everything_but_secrets(lab)?;
        the_doctor_asks_the_wire(lab, vips[0])?;
        let manifest = lab.helm(&["get", "manifest", "foghorn", "--namespace", NAMESPACE])?;
        lab.expect_no_drift(&manifest)?;
        an_upgrade_to_the_same_changes_nothing(lab, &values)?;
        another_data_plane_is_an_upgrade(lab, &values)?;
        lab.expect_no_restarts()?;
        uninstalling_leaves_the_definitions_alone(lab)
    })
}

/// Whatever is switched on, the real API server takes it; strictly, so that a misspelt field is an error.
fn the_api_server_takes_everything_that_can_be_switched_on(lab: &Lab) -> Result<()> {
    lab.kubectl.run(&["create", "namespace", NAMESPACE])?;
    lab.kubectl.run(&["apply", "-f", &deploy("crds")])?;
    let monitoring = lab.binaries.lab.join("monitoring-definitions");
    let monitoring = monitoring.display().to_string();
    let wait = ["wait", "--for=condition=Established", "--timeout=20s", "-f"];
    lab.kubectl
        .run(&["apply", "--server-side", "-f", &monitoring])?;
    lab.kubectl.run(&[&wait[..], &[&monitoring]].concat())?;
    for set in SWITCHED_ON {
        let chart = ["template", "foghorn", "CHART", "--namespace", NAMESPACE];
        let rendered = lab.helm(&[&chart[..], &["--set", set]].concat())?;
        let strictly = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
        let said = lab.kubectl_with(&strictly, &rendered)?;
        ensure!(said.success, "--set {set}: {}", said.text);
        println!("--set {set}: {} objects", said.text.lines().count());
    }
    for file in ["foghorn.yaml", "foghorn-proxy.yaml"] {
        let file = deploy(file);
        lab.kubectl.run(
            &[
                &["apply", "--dry-run=server", "--validate=strict", "-f"],
                &[file.as_str()][..],
            ]
            .concat(),
        )?;
    }
    Ok(())
}

/// What the handbook shows as objects is applied, strictly, and nothing is kept of it.
fn the_api_server_takes_every_object_of_the_handbook(lab: &Lab) -> Result<()> {
    for namespace in ["shop", "metallb-system"] {
        lab.kubectl.run(&["create", "namespace", namespace])?;
    }
    let mut count = 0;
    for block in handbook::pages()?.iter().flat_map(handbook::Page::blocks) {
        if block.language == "yaml" && block.text.contains("apiVersion:") {
            let strictly = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
            let said = lab.kubectl_with(&strictly, &block.text)?;
            ensure!(said.success, "{}: {}", block.place, said.text);
            count += 1;
        }
    }
    ensure!(count >= 7, "only {count} blocks: are they found?");
    println!("{count} blocks of the handbook are taken");
    Ok(())
}

/// The lab gives each container the capabilities that the chart asks for: no others would be seen.
fn containers_are_confined_as_the_lab_confines_them(
    lab: &Lab,
    programs: &[ProgramOfImage],
) -> Result<()> {
    let pods = lab
        .api
        .get(&format!("/api/v1/namespaces/{NAMESPACE}/pods"))?;
    for pod in pods["items"].as_array().context("Pods")? {
        let part = &pod["metadata"]["labels"]["app.kubernetes.io/component"];
        let (_, capabilities) = programs
            .iter()
            .find(|(name, _)| part == name)
            .with_context(|| format!("no program is {part}"))?;
        let context = &pod["spec"]["containers"][0]["securityContext"];
        ensure!(context["allowPrivilegeEscalation"] == false, "{context}");
        ensure!(context["readOnlyRootFilesystem"] == true, "{context}");
        ensure!(
            context["capabilities"]["drop"] == json!(["ALL"]),
            "{context}"
        );
        let added = context["capabilities"]["add"].as_array();
        let added = added.cloned().unwrap_or_default();
        ensure!(json!(added) == json!(capabilities), "{part}: {context}");
    }
    Ok(())
}

/// What each account may do by its roles is what the API server saw it do, verb by verb.
fn every_right_is_used_and_none_is_missing(lab: &Lab) -> Result<()> {
    lab.kubectl.apply(ADVERTISEMENT)?;
    let given = given(lab)?;
    ensure!(given.len() == 3, "{given:?}");
    let mut difference = String::new();
    let outcome = wait::until("every right to be used", PATIENCE, || {
        // Rare things happen: an Event repeats itself after a while, a record is removed.
        the_service_gives_its_addresses_back_and_gets_them_again(lab)?;
        difference = difference_to_what_was_asked(lab, &given)?;
        ensure!(!difference.contains("lacks"), "{difference}");
        Ok(difference.is_empty().then_some(()))
    });
    outcome.with_context(|| difference.clone())?;
    for (account, given) in &given {
        println!("{account}: {} rights, all of them used", given.len());
    }
    Ok(())
}

fn difference_to_what_was_asked(
    lab: &Lab,
    given: &BTreeMap<String, BTreeSet<Right>>,
) -> Result<String> {
    let asked = audit::asked(&lab.folder)?;
    let mut difference = String::new();
    for (account, given) in given {
        let asked = asked.get(account).cloned().unwrap_or_default();
        for right in &asked.forbidden {
            difference.push_str(&format!("{account} lacks: {right}\n"));
        }
        for right in given.difference(&asked.allowed) {
            difference.push_str(&format!("{account} never used: {right}\n"));
        }
    }
    Ok(difference)
}

fn the_service_gives_its_addresses_back_and_gets_them_again(lab: &Lab) -> Result<()> {
    let service = "/api/v1/namespaces/default/services/web";
    for (kind, count) in [("ClusterIP", 0), ("LoadBalancer", 2)] {
        lab.api.patch(service, &json!({"spec": {"type": kind}}))?;
        lab.wait_for_external_addresses("default", "web", count, PATIENCE)?;
        wait::until("records that follow", PATIENCE, || {
            let list = lab.kubectl.run(&["get", "l2", "-o", "name"])?;
            Ok((list.lines().count() == count).then_some(()))
        })?;
    }
    Ok(())
}

/// The rights that the API server holds for each account of the namespace.
fn given(lab: &Lab) -> Result<BTreeMap<String, BTreeSet<Right>>> {
    let mut rights = BTreeMap::<String, BTreeSet<Right>>::new();
    let group = "/apis/rbac.authorization.k8s.io/v1";
    for (bindings, roles) in [
        (
            "/clusterrolebindings".to_owned(),
            "/clusterroles".to_owned(),
        ),
        (
            format!("/namespaces/{NAMESPACE}/rolebindings"),
            format!("/namespaces/{NAMESPACE}/roles"),
        ),
    ] {
        let bindings = lab.api.get(&format!("{group}{bindings}"))?;
        for binding in bindings["items"].as_array().context("bindings")? {
            let subject = &binding["subjects"][0];
            if subject["kind"] != "ServiceAccount" || subject["namespace"] != NAMESPACE {
                continue;
            }
            let account = subject["name"].as_str().unwrap_or_default().to_owned();
            let role = binding["roleRef"]["name"].as_str().unwrap_or_default();
            let role = lab.api.get(&format!("{group}{roles}/{role}"))?;
            for rule in role["rules"].as_array().context("rules")? {
                rights
                    .entry(account.clone())
                    .or_default()
                    .extend(expanded(rule));
            }
        }
    }
    Ok(rights)
}

fn expanded(rule: &Value) -> Vec<Right> {
    let texts = |name: &str| -> Vec<String> {
        let values = rule[name].as_array().into_iter().flatten();
        values
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect()
    };
    let mut rights = Vec::new();
    for group in texts("apiGroups") {
        for resource in texts("resources") {
            for verb in texts("verbs") {
                rights.push(Right {
                    group: group.clone(),
                    resource: resource.clone(),
                    verb,
                });
            }
        }
    }
    rights
}

/// The doctor asks each speaker who answers for each address, and names a machine that answers beside the owner.
fn the_doctor_asks_the_wire(lab: &Lab, vip: IpAddr) -> Result<()> {
    let doctor = || -> Result<(bool, String)> {
        let mut command = Command::new(lab.binaries.foghorn("kubectl-foghorn")?);
        command.env("KUBECONFIG", lab.control_plane.kubeconfig());
        let output = command.arg("doctor").output()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok((output.status.success(), text))
    };
    let (is_well, said) = doctor()?;
    println!("{said}");
    let sentence =
        "Asked 3 speakers about 2 addresses on the wire: all are answered by their owner alone.";
    ensure!(is_well && said.contains(sentence), "{said}");
    let _double = lab.plug_in_host("double", 0x71, &[&format!("{vip}/24")])?;
    let (is_well, said) = doctor()?;
    println!("{said}");
    let named = "and also by a machine with the hardware address 02:00:00:00:01:71, as seen from node-1, node-2, node-3";
    ensure!(!is_well && said.contains(named), "{said}");
    Ok(())
}

fn the_support_bundle_has_everything_but_secrets(lab: &Lab) -> Result<()> {
    lab.kubectl
        .run(&["annotate", "service", "web", "example.com/token=hunter2"])?;
    let foghorn = |arguments: &[&str]| {
        let mut command = Command::new(lab.binaries.foghorn("kubectl-foghorn")?);
        command.env("KUBECONFIG", lab.control_plane.kubeconfig());
        output(command.args(arguments))
    };
    let file = lab.folder.path().join("support.json").display().to_string();
    foghorn(&["support", &file])?;
    let text = fs::read_to_string(&file)?;
    let secret = format!("/api/v1/namespaces/{NAMESPACE}/secrets/foghorn-heartbeat");
    let key = lab.api.get(&secret)?["data"]["key"].clone();
    let key = key.as_str().context("a key")?.to_owned();
    for secret in [key.as_str(), "hunter2", "last-applied-configuration"] {
        ensure!(!text.contains(secret), "{secret} is in {file}");
    }
    let bundle: Value = serde_json::from_str(&text)?;
    let evidence = &bundle["foghorn"];
    for (what, count) in [("logs", 8), ("metrics", 8), ("speakers", 3)] {
        let found = evidence[what].as_object().context("an object")?;
        ensure!(
            found.len() == count,
            "{what}: {:?}, gaps: {}",
            found.keys(),
            evidence["gaps"]
        );
    }
    let kinds = bundle["items"].as_array().context("items")?;
    ensure!(
        kinds.iter().all(|item| item["kind"] != "Secret"),
        "a Secret is in {file}"
    );
    let why = foghorn(&["why", "default/web", "--dump", &file])?;
    ensure!(why.contains("of pool lan"), "{why}");
    println!("the bundle has {} objects", kinds.len());
    Ok(())
}

fn an_upgrade_to_the_same_changes_nothing(lab: &Lab, values: &[&str]) -> Result<()> {
    let state = |lab: &Lab| -> Result<Vec<String>> {
        let secret = format!("/api/v1/namespaces/{NAMESPACE}/secrets/foghorn-heartbeat");
        let mut state = vec![lab.api.get(&secret)?["data"]["key"].to_string()];
        let pods = lab
            .api
            .get(&format!("/api/v1/namespaces/{NAMESPACE}/pods"))?;
        let pods = pods["items"].as_array().context("Pods")?;
        state.extend(pods.iter().map(|pod| pod["metadata"]["uid"].to_string()));
        Ok(state)
    };
    let before = state(lab)?;
    ensure!(before[0].len() > 40, "the key of heartbeats: {}", before[0]);
    lab.upgrade_by_helm(values)?;
    let workloads = lab.kubectl.run(&[
        "-n",
        NAMESPACE,
        "get",
        "deployments,daemonsets",
        "-o",
        "jsonpath={.items[*].metadata.generation}",
    ])?;
    ensure!(
        workloads == "1 1 1",
        "generations of the workloads: {workloads}"
    );
    ensure!(state(lab)? == before, "the key or the Pods are others");
    Ok(())
}

/// The proxy with iptables: another image, which has its programs, one capability more, and the lock of the node.
fn another_data_plane_is_an_upgrade(lab: &mut Lab, values: &[&str]) -> Result<()> {
    let iptables = "proxy.dataplane=iptables,proxy.image.repository=foghorn-iptables";
    lab.upgrade_by_helm(&[values, &[iptables]].concat())?;
    wait::until("proxies that forward with iptables", PATIENCE, || {
        for node in &lab.nodes {
            let url = "http://127.0.0.1:10249/proxyMode";
            let mode = node.namespace.output("curl", &["--silent", url]);
            if !mode.is_ok_and(|mode| mode == "iptables") {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    lab.wait_for_components(&ALL_PARTS, PATIENCE)?;
    lab.wait_until_web_answers(PATIENCE)?;
    containers_are_confined_as_the_lab_confines_them(lab, &PROGRAMS_WITH_IPTABLES)?;
    for node in &lab.nodes {
        let tables = node.namespace.output("nft", &["list", "tables"])?;
        let left = tables.lines().any(|line| line.ends_with(" foghorn"));
        ensure!(!left, "{} has nftables rules still:\n{tables}", node.number);
    }
    Ok(())
}

fn uninstalling_leaves_the_definitions_alone(lab: &Lab) -> Result<()> {
    lab.helm(&["uninstall", "foghorn", "--namespace", NAMESPACE])?;
    let kinds = "pods,deployments,daemonsets,secrets,configmaps,serviceaccounts,roles,rolebindings,clusterroles,\
                 clusterrolebindings,networkpolicies,poddisruptionbudgets,ipaddresspools.foghorn.dev";
    wait::until("the end of what was installed", PATIENCE, || {
        let left = lab.kubectl.run(&[
            "get",
            kinds,
            "-A",
            "-l",
            "app.kubernetes.io/name=foghorn",
            "-o",
            "name",
        ])?;
        Ok(left.trim().is_empty().then_some(()))
    })?;
    let definitions = lab
        .kubectl
        .run(&["get", "customresourcedefinitions", "-o", "name"])?;
    let ours = definitions
        .lines()
        .filter(|name| name.ends_with("foghorn.dev"));
    ensure!(ours.count() == 3, "{definitions}");
    // Whoever comes next finds the addresses where they were.
    ensure!(lab.external_addresses("default", "web")?.len() == 2);
    Ok(())
}

const ADVERTISEMENT: &str = "apiVersion: foghorn.dev/v1alpha1
kind: L2Advertisement
metadata: {name: lan}
spec: {ipAddressPools: [lan]}
";

/// The kinds of MetalLB, as far as a watch needs them.
fn definitions_of_metallb() -> String {
    let kinds = [
        ("IPAddressPool", "ipaddresspools"),
        ("L2Advertisement", "l2advertisements"),
    ];
    let definition = |(kind, plural): (&str, &str)| {
        format!(
            "---\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n\
             metadata: {{name: {plural}.metallb.io}}\nspec:\n  group: metallb.io\n  scope: Namespaced\n  \
             names: {{kind: {kind}, plural: {plural}}}\n  versions:\n  - name: v1beta1\n    served: true\n    \
             storage: true\n    schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}\n"
        )
    };
    kinds.map(definition).concat()
}

fn deploy(path: &str) -> String {
    format!("{}/../deploy/{path}", env!("CARGO_MANIFEST_DIR"))
}
