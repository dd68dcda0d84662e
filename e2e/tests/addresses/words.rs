//! What the chapters say: pools and Services as a person writes them, and what must become of them.

use std::ffi::OsString;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::lab::Lab;
use e2e::questions::{external_addresses, items, items_of};
use e2e::wait;
use serde_json::Value;

/// A chapter: its name, and what it says.
pub(crate) type Chapter = (&'static str, fn(&mut Words<'_>) -> Result<()>);

/// The lab, spoken to in the words of the handbook.
pub(crate) struct Words<'a> {
    pub(crate) lab: &'a mut Lab,
}

impl<'a> Words<'a> {
    pub(crate) fn new(lab: &'a mut Lab) -> Self {
        Self { lab }
    }

    /// Applies a pool; `spec` is what follows `spec:`, in one line or more of YAML flow style.
    pub(crate) fn pool(&self, name: &str, spec: &str) -> Result<()> {
        self.lab.kubectl.apply(&format!(
            "apiVersion: foghorn.dev/v1alpha1\nkind: IPAddressPool\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        ))
    }

    /// Applies a Service of type LoadBalancer; `metadata` and `spec` are more fields, in YAML flow style, or nothing.
    pub(crate) fn service(&self, name: &str, metadata: &str, spec: &str) -> Result<()> {
        let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
        let more = |fields: &str| {
            if fields.is_empty() {
                String::new()
            } else {
                format!(", {fields}")
            }
        };
        // Not `ports: ..., ports: ...`: the last one counts in neither YAML nor here.
        let ports = if spec.contains("ports:") {
            ""
        } else {
            ", ports: [{port: 80}]"
        };
        self.lab.kubectl.apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}{}}}\nspec: {{type: LoadBalancer{}{ports}}}\n",
            more(metadata),
            more(spec)
        ))
    }

    /// `kubectl` with these words.
    pub(crate) fn kubectl(&self, words: &str) -> Result<String> {
        let words: Vec<&str> = words.split_ascii_whitespace().collect();
        self.lab.kubectl.run(&words)
    }

    pub(crate) fn object(&self, name: &str) -> Result<Value> {
        let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
        self.lab
            .api
            .get(&format!("/api/v1/namespaces/{namespace}/services/{name}"))
    }

    /// Waits until the Service has exactly these addresses, in this order.
    #[track_caller]
    pub(crate) fn has(&self, name: &str, expected: &[&str]) -> Result<()> {
        let expected: Vec<IpAddr> = expected
            .iter()
            .map(|text| Ok(text.parse()?))
            .collect::<Result<_>>()?;
        let found = wait::until(&format!("{expected:?} of {name}"), PATIENCE, || {
            let found = external_addresses(&self.object(name)?);
            Ok((found == expected).then_some(()))
        });
        found.with_context(|| {
            let service = self.object(name).unwrap_or_default();
            format!("{name}: {}", service["status"])
        })
    }

    /// Waits until the Service says that it was refused something, in words that have all of `parts`; an Event says the
    /// same.
    #[track_caller]
    pub(crate) fn is_refused(&self, name: &str, parts: &[&str]) -> Result<String> {
        let message = self.says(name, "False", parts)?;
        let sentence = parts.first().copied().unwrap_or_default();
        wait::until(
            &format!("an Event of {name} with {sentence:?}"),
            PATIENCE,
            || {
                let found = self.events(name)?;
                Ok(found
                    .iter()
                    .any(|(kind, note)| kind == "Warning" && note.contains(sentence))
                    .then_some(()))
            },
        )?;
        println!("   {name}: {message}");
        Ok(message)
    }

    /// Waits until the Service's condition has this status and words that have all of `parts`.
    #[track_caller]
    pub(crate) fn says(&self, name: &str, status: &str, parts: &[&str]) -> Result<String> {
        let mut last = String::new();
        wait::until(&format!("{name} says {parts:?}"), PATIENCE, || {
            let service = self.object(name)?;
            let condition = condition(&service, "foghorn.dev/AddressAssigned");
            last = condition["message"].as_str().unwrap_or_default().to_owned();
            let all = parts.iter().all(|part| last.contains(part));
            Ok((condition["status"] == status && all).then(|| last.clone()))
        })
        .with_context(|| format!("{name} says last: {last}"))
    }

    /// Type and note of each Event about a Service.
    pub(crate) fn events(&self, name: &str) -> Result<Vec<(String, String)>> {
        let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
        let events = self.lab.api.get(&format!(
            "/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        ))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(items(&events)
            .filter(|event| event["regarding"]["name"] == name)
            .map(|event| (text(&event["type"]), text(&event["note"])))
            .collect())
    }

    /// Waits until a condition of a pool has this status and words that have all of `parts`.
    #[track_caller]
    pub(crate) fn pool_says(
        &self,
        pool: &str,
        kind: &str,
        status: &str,
        parts: &[&str],
    ) -> Result<()> {
        let path = format!("/apis/foghorn.dev/v1alpha1/ipaddresspools/{pool}");
        let mut last = Value::Null;
        wait::until(
            &format!("pool {pool}: {kind} is {status}"),
            PATIENCE,
            || {
                let object = self.lab.api.get(&path)?;
                last = condition(&object, kind);
                let message = last["message"].as_str().unwrap_or_default();
                let all = parts.iter().all(|part| message.contains(part));
                Ok((last["status"] == status && all).then_some(()))
            },
        )
        .with_context(|| format!("it says last: {last}"))?;
        println!("   pool {pool}, {kind} {status}: {}", last["message"]);
        Ok(())
    }

    /// Checks that a pool has no condition of a kind.
    pub(crate) fn pool_says_nothing_of(&self, pool: &str, kind: &str) -> Result<()> {
        let path = format!("/apis/foghorn.dev/v1alpha1/ipaddresspools/{pool}");
        let found = condition(&self.lab.api.get(&path)?, kind);
        ensure!(found.is_null(), "pool {pool} says {found}");
        Ok(())
    }

    /// Ends the controller in good order and starts it with these arguments and more.
    pub(crate) fn restart_controller_with(
        &mut self,
        arguments: &[OsString],
        more: &[&str],
    ) -> Result<()> {
        let controller = self.lab.controller_mut()?;
        controller.terminate(PATIENCE)?;
        let more = more.iter().map(OsString::from);
        controller.recipe_mut().arguments = arguments.iter().cloned().chain(more).collect();
        controller.start_again()
    }

    /// All addresses of all Services.
    pub(crate) fn everybody(&self) -> Result<Vec<(String, Vec<IpAddr>)>> {
        let services = self.lab.api.get("/api/v1/services")?;
        Ok(items(&services)
            .map(|service| {
                let name = service["metadata"]["name"].as_str().unwrap_or_default();
                (name.to_owned(), external_addresses(service))
            })
            .filter(|(_, addresses)| !addresses.is_empty())
            .collect())
    }

    /// The addresses of one Service, as [`Self::everybody`] lists them.
    pub(crate) fn of(&self, name: &str) -> Result<Vec<(String, Vec<IpAddr>)>> {
        let mut all = self.everybody()?;
        all.retain(|(found, _)| found == name);
        Ok(all)
    }

    /// Checks that nobody's addresses are other than before.
    pub(crate) fn nobody_moved(&self, before: &[(String, Vec<IpAddr>)]) -> Result<()> {
        let mut now = self.everybody()?;
        let mut before = before.to_vec();
        now.sort();
        before.sort();
        ensure!(now == before, "somebody moved: {before:?} became {now:?}");
        Ok(())
    }

    /// Waits until the controller has acted on everything written so far: a new Service asks for something impossible and is refused.
    pub(crate) fn controller_has_seen_everything(&self) -> Result<()> {
        self.service(
            "witness",
            "annotations: {foghorn.dev/address-pool: nowhere}",
            "",
        )?;
        self.says("witness", "False", &["there is no pool nowhere"])?;
        self.kubectl("delete service witness")?;
        Ok(())
    }

    /// The same after the API server was away: the lease has to come back first.
    pub(crate) fn controller_acts_again(&self) -> Result<()> {
        wait::until(
            "a controller that acts again",
            Duration::from_secs(90),
            || Ok(self.controller_has_seen_everything().ok()),
        )
    }

    /// Deletes all that the chapter has made.
    pub(crate) fn forget_everything(&self) -> Result<()> {
        for namespace in ["default", "shop-1", "media-1", "shop-2", "shop-3"] {
            for service in items(
                &self
                    .lab
                    .api
                    .get(&format!("/api/v1/namespaces/{namespace}/services"))?,
            ) {
                let name = service["metadata"]["name"].as_str().unwrap_or_default();
                if name != "kubernetes" {
                    self.kubectl(&format!("delete service {name} -n {namespace}"))?;
                }
            }
        }
        self.kubectl("delete ipaddresspools --all")?;
        Ok(())
    }
}

fn condition(object: &Value, kind: &str) -> Value {
    items_of(&object["status"]["conditions"])
        .find(|condition| condition["type"] == kind)
        .cloned()
        .unwrap_or_default()
}

/// The only one of a list.
pub(crate) fn only<T>(mut list: Vec<T>) -> Result<T> {
    match (list.pop(), list.pop()) {
        (Some(one), None) => Ok(one),
        _ => bail!("there is not exactly one"),
    }
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
