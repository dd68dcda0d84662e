//! `kubectl-foghorn`: reads the arguments, asks, prints.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use cli::arguments::{self, Arguments, Command, Common};
use cli::check::{Report, check};
use cli::diagnostic;
use cli::fetch::Extent;
use cli::output::{Format, print, render, tell};
use cli::pools::Pools;
use cli::{
    doctor, dump, examine, fetch, files, import, plan, planned, pools, status, support, watch, why,
};
use config::name::ServiceKey;
use jiff::Timestamp;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    run(arguments).unwrap_or_else(|error| {
        tell(&format!("error: {error:#}\n"));
        ExitCode::FAILURE
    })
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let common = arguments.common;
    match arguments.command {
        Command::Check(asked) => run_check(&asked, common.output),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "kubectl-foghorn", &mut script);
            print(&String::from_utf8(script)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Plan(asked) => asynchronously(run_plan(&asked, &common)),
        Command::Why(asked) => asynchronously(run_why(&asked, &common)),
        Command::Pools(asked) => asynchronously(run_pools(&asked, &common)),
        Command::Status(asked) => asynchronously(run_status(&asked, &common)),
        Command::Support(asked) => asynchronously(run_support(&asked, &common)),
        Command::Doctor(asked) => asynchronously(run_doctor(&asked, &common)),
        Command::Move(asked) => asynchronously(run_move(&asked, &common)),
        Command::Drain(asked) => asynchronously(run_drain(&asked, &common)),
        Command::Undrain { node } => asynchronously(run_undrain(&node, &common)),
        Command::Import(asked) => asynchronously(run_import(&asked, &common)),
        Command::Man { directory } => {
            std::fs::create_dir_all(&directory)
                .and_then(|()| clap_mangen::generate_to(manual(), &directory))
                .with_context(|| format!("failed to write into {}", directory.display()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn asynchronously(
    asked: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(asked)
}

/// Shows what is wrong in files on standard error; whether nothing is.
fn show_mistakes(report: &Report) {
    let is_coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tell(&diagnostic::render(
        &report.diagnostics,
        &report.sources,
        is_coloured,
    ));
    for ignored in &report.ignored {
        tell(&format!("note: {ignored}\n"));
    }
}

fn run_check(asked: &arguments::Check, format: Format) -> anyhow::Result<ExitCode> {
    let report = check(&files::read_all(&asked.files));
    if format == Format::Table {
        show_mistakes(&report);
    }
    print(&render(format, &report, Report::summary)?)?;
    let is_good = report.errors() == 0 && (report.warnings() == 0 || !asked.deny_warnings);
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn run_plan(asked: &arguments::Plan, common: &Common) -> anyhow::Result<ExitCode> {
    let files = files::read_all(&asked.files);
    let report = check(&files);
    show_mistakes(&report);
    if report.errors() > 0 {
        anyhow::bail!("the files are refused in part: correct them first");
    }
    let (cluster, _) = fetch::cluster(common, &asked.cluster, Extent::Decisions).await?;
    let plan = plan::plan(&cluster, &files, asked.prune, &asked.cluster.classes());
    print(&render(common.output, &plan, plan::Plan::text)?)?;
    Ok(if plan.hurts() {
        ExitCode::from(HURTS)
    } else {
        ExitCode::SUCCESS
    })
}

/// The exit code of a plan by which somebody would lose an address.
const HURTS: u8 = 2;

async fn run_why(asked: &arguments::Why, common: &Common) -> anyhow::Result<ExitCode> {
    let (cluster, namespace) = fetch::cluster(common, &asked.cluster, Extent::Everything).await?;
    let key = service_key(&asked.service, &namespace)?;
    let now = Timestamp::now();
    match why::why(&cluster, &asked.cluster.classes(), &key, now) {
        Some(why) => print(&render(common.output, &why, |why| why.text(now))?)?,
        None => anyhow::bail!("there is no Service {key}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// The Service that is meant by NAMESPACE/NAME, or by NAME in the current namespace.
fn service_key(text: &str, namespace: &str) -> anyhow::Result<ServiceKey> {
    match text.parse() {
        Ok(key) => Ok(key),
        Err(_) if !text.contains('/') => Ok(ServiceKey::new(namespace, text)),
        Err(error) => Err(error.into()),
    }
}

async fn run_move(asked: &arguments::Move, common: &Common) -> anyhow::Result<ExitCode> {
    let (client, namespace) = fetch::connect(common).await?;
    let service = service_key(&asked.service, &namespace)?;
    let patience = Duration::from_secs(asked.timeout_seconds.into());
    planned::move_to(&client, &service, &asked.node, asked.keep, patience).await?;
    Ok(ExitCode::SUCCESS)
}

async fn run_drain(asked: &arguments::Drain, common: &Common) -> anyhow::Result<ExitCode> {
    let (client, _) = fetch::connect(common).await?;
    let patience = Duration::from_secs(asked.timeout_seconds.into());
    planned::drain(&client, &asked.node, patience).await?;
    Ok(ExitCode::SUCCESS)
}

async fn run_undrain(node: &str, common: &Common) -> anyhow::Result<ExitCode> {
    let (client, _) = fetch::connect(common).await?;
    planned::undrain(&client, node).await?;
    Ok(ExitCode::SUCCESS)
}

async fn run_pools(asked: &arguments::Cluster, common: &Common) -> anyhow::Result<ExitCode> {
    let (cluster, _) = fetch::cluster(common, asked, Extent::Decisions).await?;
    let allocator = cluster.decide(&asked.classes());
    let pools = pools::pools(&cluster, &allocator);
    print(&render(common.output, &pools, Pools::text)?)?;
    Ok(ExitCode::SUCCESS)
}

async fn run_status(asked: &arguments::Status, common: &Common) -> anyhow::Result<ExitCode> {
    let interval = Duration::from_secs(asked.interval_seconds.into());
    let is_terminal = std::io::stdout().is_terminal();
    loop {
        let text = status_text(&asked.cluster, common).await;
        if !asked.watch {
            print(&text?)?;
            return Ok(ExitCode::SUCCESS);
        }
        print(&watch::screen(text, is_terminal))?;
        tokio::time::sleep(interval).await;
    }
}

async fn status_text(asked: &arguments::Cluster, common: &Common) -> anyhow::Result<String> {
    let (cluster, _) = fetch::cluster(common, asked, Extent::Everything).await?;
    let now = Timestamp::now();
    let namespace = common.namespace.as_deref();
    let status = status::status(&cluster, &asked.classes(), namespace, now);
    render(common.output, &status, |status| status.text(now))
}

async fn run_support(asked: &arguments::Support, common: &Common) -> anyhow::Result<ExitCode> {
    let bundle = support::bundle(common, &asked.cluster).await?;
    let text = serde_json::to_string_pretty(&bundle)? + "\n";
    for gap in &bundle.foghorn.gaps {
        tell(&format!("note: {gap}\n"));
    }
    let file = asked.file.clone().unwrap_or_else(|| {
        let time = Timestamp::now().strftime("%Y%m%d-%H%M%S");
        format!("foghorn-support-{time}.json").into()
    });
    if file.as_os_str() == "-" {
        print(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    std::fs::write(&file, text).with_context(|| format!("failed to write {}", file.display()))?;
    tell(&format!(
        "{} has {} objects and {} logs, without secrets. Look through it before you hand it over.\n",
        file.display(),
        bundle.items.len(),
        bundle.foghorn.logs.len()
    ));
    Ok(ExitCode::SUCCESS)
}

async fn run_doctor(asked: &arguments::Doctor, common: &Common) -> anyhow::Result<ExitCode> {
    let examined = examine::examine(common, asked).await?;
    let diagnosis = doctor::diagnose(&examined);
    print(&render(common.output, &diagnosis, doctor::Diagnosis::text)?)?;
    Ok(if diagnosis.has_problems() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The command as its manual describes it: under the name of its program.
fn manual() -> clap::Command {
    Arguments::command()
        .name("kubectl-foghorn")
        .display_name("kubectl-foghorn")
}

async fn run_import(asked: &arguments::Import, common: &Common) -> anyhow::Result<ExitCode> {
    let mut objects = Vec::new();
    if asked.files.is_empty() {
        objects = fetch::others(common).await?;
        anyhow::ensure!(
            !objects.is_empty(),
            "the cluster has no pools of MetalLB, kube-vip, Cilium or OpenELB: give their files"
        );
    }
    for file in files::read_all(&asked.files) {
        let path = &file.path;
        let content = file
            .content
            .map_err(|error| anyhow::anyhow!("{path}: {error}"))?;
        let found = dump::objects(&content).map_err(|error| anyhow::anyhow!("{path}: {error}"))?;
        objects.extend(found);
    }
    let imported = import::import(&objects);
    let text = match common.output {
        Format::Json => imported.json()?,
        Format::Table | Format::Yaml => imported.yaml()?,
    };
    print(&text)?;
    for note in &imported.notes {
        tell(&format!("note: {note}\n"));
    }
    tell(&imported.summary());
    let is_good = imported.mistakes() == 0;
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
