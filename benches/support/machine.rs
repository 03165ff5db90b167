//! The machine under a measurement: what its ratios depend on besides the code.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::thread;

use serde_json::{Value, json};

use crate::raw;

/// What is known of it.
#[derive(Clone, Debug)]
pub struct Machine {
    kernel: String,
    processor: String,
    congestion_control: String,
    /// Of the processor's weaknesses that concern it: what the kernel does about each.
    mitigations: BTreeMap<String, String>,
    system_call_ns: f64,
}

impl Machine {
    /// Looks, and measures on `core` what one bare system call costs.
    pub fn look(core: usize) -> io::Result<Self> {
        let measured = thread::spawn(move || raw::pin(core).map(|()| raw::system_call()));
        let system_call = measured.join().expect("it does not panic")?;
        let processors = read("/proc/cpuinfo");
        let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
        let processor = model.map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
        Ok(Self {
            kernel: read("/proc/sys/kernel/osrelease"),
            processor: processor.to_owned(),
            congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control"),
            mitigations: mitigations(),
            system_call_ns: system_call.as_secs_f64() * 1e9,
        })
    }

    /// All of it.
    pub fn to_json(&self) -> Value {
        json!({
            "kernel": self.kernel,
            "processor": self.processor,
            "congestion_control": self.congestion_control,
            "mitigations": self.mitigations,
            "system_call_ns": self.system_call_ns,
        })
    }
}

/// In two lines of a table's head.
impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, processor, congestion_control, mitigations, system_call_ns } = self;
        write!(
            f,
            "# machine: {processor}, Linux {kernel}, congestion control {congestion_control}, \
             one bare system call {system_call_ns:.0} ns\n# mitigations:"
        )?;
        if mitigations.is_empty() {
            return write!(f, " none needed");
        }
        for (index, (weakness, status)) in mitigations.iter().enumerate() {
            let status = status.split([';', ',']).next().unwrap_or_default();
            write!(f, "{} {weakness}: {status}", if index == 0 { "" } else { ";" })?;
        }
        Ok(())
    }
}

fn mitigations() -> BTreeMap<String, String> {
    let folder = "/sys/devices/system/cpu/vulnerabilities";
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let status = read(&format!("{folder}/{name}"));
            (name, status)
        })
        .filter(|(_, status)| status != "Not affected")
        .collect()
}

/// A line of the system's; empty where it does not say.
fn read(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_says_what_its_ratios_depend_on() {
        let machine = Machine {
            kernel: "6.18.0".to_owned(),
            processor: "A Processor".to_owned(),
            congestion_control: "cubic".to_owned(),
            mitigations: BTreeMap::from([
                ("mds".to_owned(), "Mitigation: Clear buffers; SMT vulnerable".to_owned()),
                ("l1tf".to_owned(), "Vulnerable".to_owned()),
            ]),
            system_call_ns: 91.4,
        };
        assert_eq!(
            machine.to_string(),
            "# machine: A Processor, Linux 6.18.0, congestion control cubic, one bare system call 91 ns\n\
             # mitigations: l1tf: Vulnerable; mds: Mitigation: Clear buffers"
        );
        assert_eq!(machine.to_json()["mitigations"]["l1tf"], "Vulnerable");
    }

    #[test]
    fn a_system_call_costs_something() {
        let machine = Machine::look(0).unwrap();
        assert!(machine.system_call_ns > 1.0, "{machine}");
    }
}
