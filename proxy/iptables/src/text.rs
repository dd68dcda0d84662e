//! Rules as `iptables-save` prints them and `iptables-restore` reads them.

use std::fmt::{self, Write as _};
use std::iter::Peekable;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::vec::IntoIter;

use config::address::IpFamily;
use config::service::Protocol;
use ipnet::IpNet;

use crate::rule::{InterfaceMatch, Mark, MarkMatch, Probability, Recent, Rule, States, Target};

/// Writes a rule behind `-A CHAIN`, for a family.
pub(crate) fn write_rule(text: &mut String, rule: &Rule, family: IpFamily) {
    // A text takes everything.
    let _ = try_write_rule(text, rule, family);
}

fn try_write_rule(text: &mut String, rule: &Rule, family: IpFamily) -> fmt::Result {
    if let Target::Foreign(foreign) = &rule.target {
        return write!(text, " {foreign}");
    }
    write_addresses_and_ports(text, rule)?;
    write_states_and_marks(text, rule)?;
    write_list(text, rule.recent.as_ref(), family)?;
    write_target(text, &rule.target, family)
}

fn write_addresses_and_ports(text: &mut String, rule: &Rule) -> fmt::Result {
    if let Some(network) = rule.source {
        write!(text, " -s {network}")?;
    }
    if let Some(network) = rule.destination {
        write!(text, " -d {network}")?;
    }
    if let Some(interface) = &rule.input {
        write!(text, " -i {interface}")?;
    }
    if let Some(protocol) = rule.protocol {
        write!(text, " -p {}", protocol_name(protocol))?;
    }
    if let Some(comment) = &rule.comment {
        write!(text, " -m comment --comment \"{comment}\"")?;
    }
    if let Some(protocol) = rule.protocol
        && (rule.source_port.is_some() || rule.destination_ports.is_some())
    {
        write!(text, " -m {}", protocol_name(protocol))?;
    }
    if let Some(port) = rule.source_port {
        write!(text, " --sport {port}")?;
    }
    match rule.destination_ports {
        Some((first, last)) if first == last => write!(text, " --dport {first}")?,
        Some((first, last)) => write!(text, " --dport {first}:{last}")?,
        None => {}
    }
    Ok(())
}

fn write_states_and_marks(text: &mut String, rule: &Rule) -> fmt::Result {
    if !rule.states.is_empty() {
        write!(text, " -m conntrack --ctstate {}", rule.states)?;
    }
    if rule.translated {
        write!(text, " -m conntrack --ctstate DNAT")?;
    }
    if let Some(MarkMatch { mark, present }) = rule.mark {
        let not = if present { "" } else { " !" };
        write!(text, " -m mark{not} --mark {mark}/{mark}")?;
    }
    if let Some(probability) = rule.random {
        write!(
            text,
            " -m statistic --mode random --probability {probability}"
        )?;
    }
    Ok(())
}

fn write_list(text: &mut String, recent: Option<&Recent>, family: IpFamily) -> fmt::Result {
    let mask = match family {
        IpFamily::V4 => "255.255.255.255",
        IpFamily::V6 => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    };
    match recent {
        None => Ok(()),
        Some(Recent::Set { list }) => write!(
            text,
            " -m recent --set --name {list} --mask {mask} --rsource"
        ),
        Some(Recent::Update { list, seconds }) => write!(
            text,
            " -m recent --update --seconds {seconds} --reap --name {list} --mask {mask} --rsource"
        ),
    }
}

fn write_target(text: &mut String, target: &Target, family: IpFamily) -> fmt::Result {
    match target {
        Target::Return => write!(text, " -j RETURN"),
        Target::Accept => write!(text, " -j ACCEPT"),
        Target::Drop => write!(text, " -j DROP"),
        Target::Reject => write!(text, " -j REJECT --reject-with {}", unreachable(family)),
        Target::Jump(chain) => write!(text, " -j {chain}"),
        Target::DestinationNat(endpoint) => write!(text, " -j DNAT --to-destination {endpoint}"),
        Target::SetMark(mark) => write!(text, " -j MARK --set-xmark {mark}/{mark}"),
        Target::FlipMark(mark) => write!(text, " -j MARK --set-xmark {mark}/0x0"),
        Target::Masquerade { random_fully } => {
            let random_fully = if *random_fully { " --random-fully" } else { "" };
            write!(text, " -j MASQUERADE{random_fully}")
        }
        Target::Foreign(foreign) => write!(text, " {foreign}"),
    }
}

/// Reads what stands behind `-A CHAIN`. What we would never write is [`Target::Foreign`].
pub(crate) fn read_rule(text: &str, family: IpFamily) -> Rule {
    let known = words(text).and_then(|words| Reader::read(words, family));
    known.unwrap_or_else(|| Rule::to(Target::Foreign(text.trim().into())))
}

/// The target of a rule as it is written, also where the rest cannot be read.
pub(crate) fn target_name(text: &str) -> Option<String> {
    let mut words = words(text)?.into_iter();
    words.find(|word| word == "-j" || word == "-g")?;
    words.next()
}

struct Reader {
    words: Peekable<IntoIter<String>>,
    family: IpFamily,
    rule: Rule,
}

impl Reader {
    fn read(words: Vec<String>, family: IpFamily) -> Option<Rule> {
        let mut reader = Self {
            words: words.into_iter().peekable(),
            family,
            rule: Rule::default(),
        };
        let mut inverted = false;
        let mut has_target = false;
        while let Some(word) = reader.words.next() {
            match word.as_str() {
                "!" if !inverted => {
                    inverted = true;
                    continue;
                }
                "--mark" => reader.mark(!inverted)?,
                _ if inverted => return None,
                "-j" => {
                    reader.target()?;
                    has_target = true;
                }
                option => reader.option(option)?,
            }
            inverted = false;
        }
        (has_target && !inverted).then_some(reader.rule)
    }

    fn option(&mut self, option: &str) -> Option<()> {
        match option {
            "-s" => self.rule.source = Some(self.network()?),
            "-d" => self.rule.destination = Some(self.network()?),
            "-i" => {
                let name = self.words.next()?;
                self.rule.input = Some(InterfaceMatch::name(&name)?);
            }
            "-p" => self.rule.protocol = Some(protocol_named(&self.words.next()?)?),
            "-m" => match self.words.next()?.as_str() {
                "tcp" | "udp" | "sctp" | "comment" | "conntrack" | "mark" | "recent" => {}
                "statistic" => self.statistic()?,
                _ => return None,
            },
            "--comment" => self.rule.comment = Some(self.words.next()?.into()),
            "--sport" => self.rule.source_port = Some(self.words.next()?.parse().ok()?),
            "--dport" => self.rule.destination_ports = Some(ports(&self.words.next()?)?),
            "--ctstate" => self.states()?,
            "--set" => {
                let list = self.list()?.into();
                self.rule.recent = Some(Recent::Set { list });
            }
            "--update" => {
                self.expect("--seconds")?;
                let seconds = self.words.next()?.parse().ok()?;
                self.expect("--reap")?;
                let list = self.list()?.into();
                self.rule.recent = Some(Recent::Update { list, seconds });
            }
            _ => return None,
        }
        Some(())
    }

    fn expect(&mut self, word: &str) -> Option<()> {
        (self.words.next()? == word).then_some(())
    }

    fn network(&mut self) -> Option<IpNet> {
        let text = self.words.next()?;
        let network: IpNet = match text.parse() {
            Ok(network) => network,
            Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
        };
        (IpFamily::of(network.addr()) == self.family).then_some(network)
    }

    fn states(&mut self) -> Option<()> {
        let text = self.words.next()?;
        if text == "DNAT" {
            self.rule.translated = true;
            return Some(());
        }
        for name in text.split(',') {
            self.rule.states = self.rule.states.or(States::named(name)?);
        }
        Some(())
    }

    fn statistic(&mut self) -> Option<()> {
        self.expect("--mode")?;
        self.expect("random")?;
        self.expect("--probability")?;
        self.rule.random = Some(Probability::parse(&self.words.next()?)?);
        Some(())
    }

    /// The name of a list whose clients are told by their whole source address.
    fn list(&mut self) -> Option<String> {
        self.expect("--name")?;
        let name = self.words.next()?;
        self.expect("--mask")?;
        let mask: IpAddr = self.words.next()?.parse().ok()?;
        let whole = match mask {
            IpAddr::V4(mask) => mask.to_bits() == u32::MAX,
            IpAddr::V6(mask) => mask.to_bits() == u128::MAX,
        };
        self.expect("--rsource")?;
        whole.then_some(name)
    }

    fn mark(&mut self, present: bool) -> Option<()> {
        let (value, mask) = marks(&self.words.next()?)?;
        let mark = Mark(value.try_into().ok()?);
        (value == mask).then_some(())?;
        self.rule.mark = Some(MarkMatch { mark, present });
        Some(())
    }

    fn target(&mut self) -> Option<()> {
        self.rule.target = match self.words.next()?.as_str() {
            "RETURN" => Target::Return,
            "ACCEPT" => Target::Accept,
            "DROP" => Target::Drop,
            "REJECT" => {
                self.expect("--reject-with")?;
                self.expect(unreachable(self.family))?;
                Target::Reject
            }
            "DNAT" => {
                self.expect("--to-destination")?;
                let endpoint: SocketAddr = self.words.next()?.parse().ok()?;
                Target::DestinationNat(endpoint)
            }
            "MARK" => {
                self.expect("--set-xmark")?;
                let (value, mask) = marks(&self.words.next()?)?;
                let mark = Mark(value.try_into().ok()?);
                match mask {
                    0 => Target::FlipMark(mark),
                    mask if mask == value => Target::SetMark(mark),
                    _ => return None,
                }
            }
            "MASQUERADE" => {
                let random_fully = self.words.next_if(|word| word == "--random-fully");
                Target::Masquerade {
                    random_fully: random_fully.is_some(),
                }
            }
            chain => Target::Jump(chain.into()),
        };
        // What follows a target belongs to it.
        self.words.peek().is_none().then_some(())
    }
}

/// Splits a line as iptables does: at spaces, but not between quotes.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().push(characters.next()?),
            ' ' | '\t' if !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    (!quoted).then_some(words)
}

fn marks(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let (value, mask) = text.split_once('/')?;
    Some((number(value)?, number(mask)?))
}

fn ports(text: &str) -> Option<(NonZeroU16, NonZeroU16)> {
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// The name of a protocol, as iptables has it.
fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

fn protocol_named(name: &str) -> Option<Protocol> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    all.into_iter()
        .find(|protocol| protocol_name(*protocol) == name || protocol.number().to_string() == name)
}

fn unreachable(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "icmp-port-unreachable",
        IpFamily::V6 => "icmp6-port-unreachable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `iptables-save` of the version 1.8.9 printed, both back ends alike.
    const PRINTED: [&str; 12] = [
        r#" -d 10.96.0.1/32 -p tcp -m comment --comment "shop/web:http cluster IP" -m tcp --dport 80 -j FOGHORN-SVC-AAAAAAAAAAAAAAAA"#,
        r#" -m comment --comment "shop/web:http -> 10.244.1.2:80" -m recent --update --seconds 10800 --reap --name FOGHORN-AFF-A --mask 255.255.255.255 --rsource -j FOGHORN-SEP-AAAAAAAAAAAAAAAA"#,
        r#" -m statistic --mode random --probability 0.33333333349 -m recent --set --name FOGHORN-AFF-A --mask 255.255.255.255 --rsource -j FOGHORN-SEP-AAAAAAAAAAAAAAAA"#,
        " -s 10.0.0.0/8 -j FOGHORN-MARK-MASQ",
        " -i veth+ -j RETURN",
        " -p tcp -j DNAT --to-destination 10.244.1.2:80",
        " -j MARK --set-xmark 0x4000/0x4000",
        " -m mark ! --mark 0x4000/0x4000 -j RETURN",
        " -j MARK --set-xmark 0x4000/0x0",
        " -j MASQUERADE --random-fully",
        " -d 10.96.0.1/32 -p udp -m udp --dport 30016:30079 -j REJECT --reject-with icmp-port-unreachable",
        " -m conntrack --ctstate RELATED,ESTABLISHED -m conntrack --ctstate DNAT -j ACCEPT",
    ];

    #[test]
    fn what_iptables_prints_is_read_and_written_again() {
        for line in PRINTED {
            let rule = read_rule(line, IpFamily::V4);
            assert!(
                !matches!(rule.target, Target::Foreign(_)),
                "{line} is foreign"
            );
            let mut written = String::new();
            write_rule(&mut written, &rule, IpFamily::V4);
            assert_eq!(written, line);
        }
        let unquoted = read_rule("-m comment --comment foghorn -j RETURN", IpFamily::V4);
        assert_eq!(unquoted, Rule::default().comment("foghorn"));
    }

    #[test]
    fn what_we_would_not_write_is_foreign() {
        for line in [
            "",
            " -m comment --comment \"open",
            " -s 10.0.0.0/8",
            " ! -s 10.0.0.0/8 -j RETURN",
            " -s 2001:db8::/32 -j RETURN",
            " -j LOG --log-prefix x",
            " -g FOGHORN-SERVICES",
            " -j MARK --set-xmark 0x1/0x3",
            " -m mark --mark 0x1/0x3 -j RETURN",
            " -m limit --limit 1/sec -j RETURN",
            " -m recent --rcheck --name x -j RETURN",
            " -p tcp -m tcp --sport 1:5 -j DROP",
            " -j DNAT --to-destination 10.0.0.1:80 --persistent",
            " -j MASQUERADE --to-ports 1-2",
        ] {
            let rule = read_rule(line, IpFamily::V4);
            assert_eq!(
                rule,
                Rule::to(Target::Foreign(line.trim().into())),
                "{line}"
            );
        }
        assert_eq!(target_name(" -g FOGHORN-X"), Some("FOGHORN-X".to_owned()));
    }
}
