//! A service as canonical text, which reads back as the same service, and the differences between two.

mod workload;

use crate::document::{Outline, list, text};
use crate::units::{CpuMillis, Millis};

use self::workload::workload_outline;
use super::words::signal_name;
use super::{
    Affinity, Constraint, HealthCheck, HealthProbe, Placement, RestartPolicy, RestartWhen, ServiceSpec,
    Spread,
};

/// One field that differs between two services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldChange {
    /// Such as `spec.memory_limit`.
    pub path: String,
    /// As it was; `None` if it was not there.
    pub old: Option<String>,
    /// As it is to be; `None` if it goes.
    pub new: Option<String>,
}

/// What changes from one to the other, in the order of the canonical text; what goes comes last.
pub fn diff(old: &ServiceSpec, new: &ServiceSpec) -> Vec<FieldChange> {
    let (old, new) = (old.outline().leaves(), new.outline().leaves());
    let find = |leaves: &[(String, String)], path: &str| {
        leaves.iter().find(|(other, _)| other == path).map(|(_, value)| value.clone())
    };
    let changed = new.iter().filter_map(|(path, value)| {
        let was = find(&old, path);
        (was.as_ref() != Some(value)).then(|| FieldChange {
            path: path.clone(),
            old: was,
            new: Some(value.clone()),
        })
    });
    let gone = old.iter().filter(|(path, _)| find(&new, path).is_none());
    let gone =
        gone.map(|(path, value)| FieldChange { path: path.clone(), old: Some(value.clone()), new: None });
    changed.chain(gone).collect()
}

impl ServiceSpec {
    /// The canonical text: every field that means something, defaults written out.
    pub fn to_yaml(&self) -> String {
        self.outline().to_yaml()
    }

    fn outline(&self) -> Outline {
        let mut out = Pairs::default();
        out.put("name", text(&self.name));
        out.put("executor", text(self.workload.executor()));
        out.put("priority", text(self.priority));
        out.put("replicas", bare(self.replicas));
        out.maybe("exclusive", self.exclusive.map(bare));
        out.put("labels", Outline::Map(self.labels.iter().map(|(k, v)| (k.clone(), text(v))).collect()));
        out.put("spec", workload_outline(&self.workload));
        out.maybe("state", self.state_dir.as_ref().map(|dir| map([("dir", text(dir))])));
        let resources = [("cpu", cores(self.resources.cpu)), ("memory_mib", bare(self.resources.memory.0))];
        out.put("resources", map(resources));
        out.put("placement", placement_outline(&self.placement));
        out.maybe("health", self.health.as_ref().map(health_outline));
        let stop = [("signal", text(signal_name(self.stop.signal))), ("grace", length(self.stop.grace))];
        out.put("stop", map(stop));
        out.put("restart", restart_outline(self.restart));
        out.put("on_isolation", text(if self.keep_on_isolation { "keep" } else { "by_priority" }));
        out.done()
    }
}

#[derive(Default)]
struct Pairs(Vec<(String, Outline)>);

impl Pairs {
    fn put(&mut self, key: &str, value: Outline) {
        self.0.push((key.to_owned(), value));
    }

    fn maybe(&mut self, key: &str, value: Option<Outline>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn done(self) -> Outline {
        Outline::Map(self.0)
    }
}

fn map<const N: usize>(pairs: [(&str, Outline); N]) -> Outline {
    Outline::Map(pairs.map(|(key, value)| (key.to_owned(), value)).into())
}

fn bare(value: impl ToString) -> Outline {
    Outline::Bare(value.to_string())
}

fn length(value: Millis) -> Outline {
    bare(value)
}

fn cores(value: CpuMillis) -> Outline {
    let digits = format!("{}.{:03}", value.0 / 1000, value.0 % 1000);
    bare(digits.trim_end_matches('0').trim_end_matches('.'))
}

fn placement_outline(placement: &Placement) -> Outline {
    let constraints = placement.constraints.iter().map(|c: &Constraint| text(c)).collect();
    let affinity = placement.affinity.iter().map(|Affinity { constraint, weight }| {
        map([("constraint", text(constraint)), ("weight", bare(weight))])
    });
    let spread = match placement.spread {
        Spread::Prefer => "prefer",
        Spread::Require => "require",
    };
    map([
        ("constraints", Outline::List(constraints)),
        ("affinity", Outline::List(affinity.collect())),
        ("spread", text(spread)),
    ])
}

fn health_outline(health: &HealthCheck) -> Outline {
    let probe = match &health.probe {
        HealthProbe::Http { port, path } => ("http", map([("port", bare(port)), ("path", text(path))])),
        HealthProbe::Tcp { port } => ("tcp", map([("port", bare(port))])),
        HealthProbe::Exec { command } => ("exec", map([("command", list(command))])),
        HealthProbe::Grpc { port, service } => {
            ("grpc", map([("port", bare(port)), ("service", text(service))]))
        }
    };
    map([
        probe,
        ("interval", length(health.interval)),
        ("timeout", length(health.timeout)),
        ("failures", bare(health.failures)),
        ("successes", bare(health.successes)),
        ("start_period", length(health.start_period)),
    ])
}

fn restart_outline(restart: RestartPolicy) -> Outline {
    let policy = match restart.when {
        RestartWhen::Always => "always",
        RestartWhen::OnFailure => "on_failure",
        RestartWhen::Never => "never",
    };
    let backoff = format!("{}..{}", restart.backoff_min, restart.backoff_max);
    map([("policy", text(policy)), ("backoff", bare(backoff))])
}
