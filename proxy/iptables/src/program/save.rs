//! A whole program as text, as `iptables-save` prints it.

use std::fmt::Write as _;
use std::sync::Arc;

use config::address::IpFamily;

use super::{Hook, PREFIX, Ruleset, Table};
use crate::text::{read_rule, target_name, write_rule};

impl Ruleset {
    /// The text that `iptables-restore` makes this of, in tables where nothing of ours is.
    pub fn render(&self, family: IpFamily) -> String {
        let mut text = String::new();
        for table in [Table::Filter, Table::Nat] {
            let _ = writeln!(text, "*{}", table.name());
            let chains = || self.chains.iter().filter(|((of, _), _)| *of == table);
            for ((_, chain), _) in chains() {
                let _ = writeln!(text, ":{chain} - [0:0]");
            }
            for ((_, hook), rules) in self.hooks.iter().filter(|((of, _), _)| *of == table) {
                for rule in rules {
                    let _ = write!(text, "-A {}", hook.name());
                    write_rule(&mut text, rule, family);
                    text.push('\n');
                }
            }
            for ((_, chain), rules) in chains() {
                for rule in rules {
                    let _ = write!(text, "-A {chain}");
                    write_rule(&mut text, rule, family);
                    text.push('\n');
                }
            }
            text.push_str("COMMIT\n");
        }
        text
    }

    /// What is ours in the text that `iptables-save` printed.
    pub fn parse(text: &str, family: IpFamily) -> Self {
        let mut rules = Self::default();
        let mut table = None;
        for line in text.lines() {
            // `[packets:octets]` stands before, if asked for.
            let line = match line.strip_prefix('[') {
                Some(counted) => counted.split_once("] ").map_or(counted, |(_, line)| line),
                None => line,
            };
            if let Some(name) = line.strip_prefix('*') {
                table = Table::named(name.trim());
                continue;
            }
            let Some(table) = table else { continue };
            if let Some(declared) = line.strip_prefix(':') {
                let name = declared.split(' ').next().unwrap_or_default();
                if name.starts_with(PREFIX) {
                    rules.append(table, &name.into(), []);
                }
            } else if let Some(appended) = line.strip_prefix("-A ") {
                rules.parse_rule(table, appended, family);
            }
        }
        for hooked in rules.hooks.values_mut() {
            hooked.sort_unstable();
        }
        rules
    }

    fn parse_rule(&mut self, table: Table, appended: &str, family: IpFamily) {
        let (chain, text) = appended.split_once(' ').unwrap_or((appended, ""));
        if chain.starts_with(PREFIX) {
            let chain: Arc<str> = chain.into();
            self.append(table, &chain, [read_rule(text, family)]);
        } else if let Some(target) = target_name(text)
            && target.starts_with(PREFIX)
        {
            match Hook::named(chain) {
                Some(hook) => {
                    let hooked = self.hooks.entry((table, hook)).or_default();
                    hooked.push(read_rule(text, family));
                }
                None => {
                    self.led_to.insert((table, target.into()));
                }
            }
        }
    }
}
