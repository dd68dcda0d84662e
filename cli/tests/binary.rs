//! The program as a user and a CI job run it.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

struct Answer {
    code: i32,
    stdout: String,
    stderr: String,
}

fn run(directory: &Path, line: &str, input: &str) -> Answer {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-foghorn"))
        .args(line.split_whitespace())
        .current_dir(directory)
        .env_remove("KUBECONFIG")
        .env("HOME", directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may be gone by now.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Answer {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn data() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data"))
}

#[test]
fn a_good_file_is_all_good() {
    let answer = run(data(), "check good.yaml", "");
    assert_eq!((answer.code, answer.stderr.as_str()), (0, ""));
    assert_eq!(answer.stdout, "2 pools, 1 advertisement: all good\n");
}

#[test]
fn mistakes_are_shown_as_a_compiler_does() {
    let answer = run(data(), "check bad.yaml", "");
    assert_eq!(answer.code, 1);
    assert_eq!(
        answer.stdout,
        "2 pools, 1 advertisement: 3 mistakes, 2 warnings\n"
    );
    assert_eq!(
        answer.stderr,
        r#"error: IPAddressPool lan: spec.addresses[0]: 192.0.2.20-192.0.2.10 runs backwards
 --> bad.yaml:6:7
  |
6 |     - 192.0.2.20-192.0.2.10
  |       ^^^^^^^^^^^^^^^^^^^^^
  |
  = help: swap the two addresses

error: IPAddressPool lan: spec: there is no field "autoAsign"
 --> bad.yaml:8:3
  |
8 |   autoAsign: true
  |   ^^^^^^^^^
  |
  = help: did you mean "autoAssign"?

warning: IPAddressPool b: spec.addresses: 192.0.2.15-192.0.2.18 overlaps 192.0.2.0-192.0.2.15 of pool a (bad.yaml:10)
  --> bad.yaml:21:7
   |
21 |     - 192.0.2.15-192.0.2.18 # overlaps
   |       ^^^^^^^^^^^^^^^^^^^^^
   |
   = help: take the common addresses out of one of them

warning: L2Advertisement ad: spec.ipAddressPools: there is no pool lam in these files
  --> bad.yaml:26:28
   |
26 | spec: {ipAddressPools: [a, lam]}
   |                            ^^^
   |
   = help: correct the name, unless the pool is elsewhere

error: the document is not YAML: unclosed bracket '['
  --> bad.yaml:31:1
   |
31 | ---
   | ^^^

note: bad.yaml:28: v1 ConfigMap is not configuration of Foghorn: it is ignored
"#
    );
}

#[test]
fn names_are_unique_over_all_files() {
    let answer = run(data(), "check good.yaml -", include_str!("data/good.yaml"));
    assert_eq!(answer.code, 1);
    assert!(
        answer.stderr.contains(
            "error: IPAddressPool dmz: the same name is in <standard input>:10 too, which is in force\n"
        ),
        "{}",
        answer.stderr
    );
}

#[test]
fn warnings_are_mistakes_if_one_wants() {
    let overlapping = "apiVersion: foghorn.dev/v1alpha1\nkind: IPAddressPool\nmetadata: {name: z}\nspec: {addresses: [192.0.2.241]}\n";
    for (line, code) in [
        ("check good.yaml -", 0),
        ("check --deny-warnings good.yaml -", 1),
    ] {
        let answer = run(data(), line, overlapping);
        assert_eq!(answer.code, code, "{line}");
        assert_eq!(answer.stdout, "3 pools, 1 advertisement: 1 warning\n");
    }
}

#[test]
fn programs_get_json_and_yaml() {
    let answer = run(data(), "check bad.yaml -o json", "");
    assert_eq!((answer.code, answer.stderr.as_str()), (1, ""));
    let report: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    let first = report.pointer("/diagnostics/0").unwrap();
    assert_eq!(
        first,
        &serde_json::json!({
            "severity": "error", "path": "bad.yaml", "line": 6, "column": 7,
            "kind": "IPAddressPool", "name": "lan", "field": "spec.addresses[0]",
            "problem": "192.0.2.20-192.0.2.10 runs backwards", "remedy": "swap the two addresses",
        })
    );
    for command in ["status", "pools", "why default/web", "plan good.yaml"] {
        let [json, yaml] = ["json", "yaml"].map(|format| {
            let answer = run(
                data(),
                &format!("{command} --dump cluster.yaml -o {format}"),
                "",
            );
            assert_eq!(answer.code, 0, "{command}: {}", answer.stderr);
            answer.stdout
        });
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let yaml: serde_json::Value = serde_yaml::from_str(&yaml).unwrap();
        assert_eq!(json, yaml, "{command}");
    }
}

#[test]
fn a_plan_that_takes_addresses_away_ends_with_two() {
    let pool = "apiVersion: foghorn.dev/v1alpha1\nkind: IPAddressPool\nmetadata: {name: lan}\nspec: {addresses: [192.0.2.242], onInUse: Reassign}\n";
    let answer = run(data(), "plan - --dump cluster.yaml", pool);
    assert_eq!(answer.code, 2, "{}", answer.stderr);
    let answer = run(data(), "plan bad.yaml --dump cluster.yaml", "");
    assert_eq!(answer.code, 1);
    assert!(
        answer
            .stderr
            .ends_with("error: the files are refused in part: correct them first\n")
    );
}

#[test]
fn what_is_not_there_is_said_to_be() {
    for (line, expected) in [
        (
            "why nobody --dump cluster.yaml",
            "error: there is no Service default/nobody\n",
        ),
        (
            "why a/b/c --dump cluster.yaml",
            "error: \"a/b/c\" is not the key of a Service: write NAMESPACE/NAME\n",
        ),
        (
            "pools --dump nothing.yaml",
            "error: failed to read nothing.yaml: No such file or directory (os error 2)\n",
        ),
    ] {
        let answer = run(data(), line, "");
        assert_eq!(
            (answer.code, answer.stderr.as_str()),
            (1, expected),
            "{line}"
        );
    }
    let answer = run(data(), "check nothing.yaml", "");
    assert_eq!(answer.code, 1);
    assert_eq!(
        answer.stderr,
        "error: the file cannot be read: No such file or directory (os error 2)\n--> nothing.yaml:1\n\n"
    );
}

#[test]
fn shells_get_a_completion() {
    let answer = run(data(), "completion bash", "");
    assert_eq!(answer.code, 0);
    assert!(answer.stdout.contains("kubectl-foghorn"));
}

#[test]
fn pools_of_others_become_ours() {
    let answer = run(data(), "import others.yaml", "");
    assert_eq!(answer.stdout, include_str!("data/imported.yaml"));
    assert_eq!(
        answer.stderr,
        "note: BGPPeer router has no counterpart: Foghorn announces by ARP and NDP only\n\
         note: ConfigMap kubevip, pool of dhcp: 0.0.0.0/32 stands for DHCP, which has no counterpart: write addresses\n\
         7 pools, 4 advertisements; 6 notes beside them; 1 to correct\n"
    );
    assert_eq!(answer.code, 1, "one of them is to be corrected");
}

#[test]
fn what_is_imported_can_be_applied() {
    let corrected = include_str!("data/others.yaml").replace("/33", "");
    let imported = run(data(), "import -", &corrected);
    assert_eq!(imported.code, 0, "{}", imported.stderr);
    let checked = run(data(), "check -", &imported.stdout);
    assert_eq!((checked.code, checked.stderr.as_str()), (0, ""));
    assert_eq!(checked.stdout, "7 pools, 4 advertisements: all good\n");
    let list = run(data(), "import - -o json", &corrected);
    let checked = run(data(), "check -", &list.stdout);
    assert_eq!(checked.stdout, "7 pools, 4 advertisements: all good\n");
}

#[test]
fn every_command_has_a_manual_page() {
    let directory = std::env::temp_dir().join(format!("foghorn-man-{}", std::process::id()));
    let answer = run(data(), &format!("man {}", directory.display()), "");
    assert_eq!((answer.code, answer.stderr.as_str()), (0, ""));
    let help = run(data(), "--help", "").stdout;
    let commands = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_ascii_whitespace().next())
        .filter(|command| *command != "help");
    let mut count = 0;
    for command in commands {
        let page = directory.join(format!("kubectl-foghorn-{command}.1"));
        let text = fs::read_to_string(&page).unwrap();
        assert!(
            text.contains(".SH NAME") && text.contains(".SH OPTIONS"),
            "{command}: {text}"
        );
        count += 1;
    }
    assert!(count >= 8, "only {count} commands were seen");
    assert!(directory.join("kubectl-foghorn.1").exists());
    fs::remove_dir_all(&directory).unwrap();
}

/// Ends when the test does.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_watch_goes_on_through_errors_and_shows_what_changed() {
    let directory = std::env::temp_dir().join(format!("foghorn-watch-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let (dump, screen) = (directory.join("dump.yaml"), directory.join("screen"));
    let cluster = fs::read_to_string(data().join("cluster.yaml")).unwrap();
    let mut watching = Watching(
        Command::new(env!("CARGO_BIN_EXE_kubectl-foghorn"))
            .args(["status", "--watch", "--interval-seconds=1", "--dump"])
            .arg(&dump)
            .stdin(Stdio::null())
            .stdout(File::create(&screen).unwrap())
            .spawn()
            .unwrap(),
    );
    let mut shows = |what: &str| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !fs::read_to_string(&screen).unwrap().contains(what) {
            assert!(Instant::now() < deadline, "{what:?} does not appear");
            assert_eq!(watching.0.try_wait().unwrap(), None, "it ended");
            thread::sleep(Duration::from_millis(20));
        }
    };
    shows("error: ");
    // Complete when it appears, not while it is being written.
    let put = |content: &str| {
        let new = directory.join("new");
        fs::write(&new, content).unwrap();
        fs::rename(&new, &dump).unwrap();
    };
    put(&cluster);
    shows("default    web      192.0.2.240");
    put(&cluster.replace("name: web\n", "name: shop\n"));
    shows("default    shop     192.0.2.240");
    drop(watching);
    fs::remove_dir_all(&directory).unwrap();
}
