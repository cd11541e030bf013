//! Services: what is wanted, in versions. Which of their slots run where is decided by grants.

use std::sync::Arc;

use super::{Entry, Outcome, limits, not_found, refused};
use crate::event::Event;
use crate::ids::{Revision, ServiceName, SlotId, Version};
use crate::spec::ServiceSpec;
use crate::state::{
    OperationKind, OperationResult, Rejection, Reply, RolloutRecord, ServiceRecord, SlotRecord, State,
    VersionRecord, codec,
};

impl Entry<'_> {
    pub(super) fn service(&self, name: &ServiceName) -> Result<&ServiceRecord, Rejection> {
        self.state.services.get(name).ok_or_else(|| not_found("service", name))
    }

    /// A service that commands may still change.
    fn living(&self, name: &ServiceName) -> Result<ServiceRecord, Rejection> {
        let record = self.service(name)?;
        if record.deleting {
            return Err(refused(format!("{name} is being deleted"), "deploy it again once it is gone"));
        }
        Ok(record.clone())
    }

    pub(super) fn deploy(&mut self, spec: &Arc<ServiceSpec>) -> Outcome {
        let old = match self.state.services.get(&spec.name) {
            None => None,
            Some(_) => Some(self.living(&spec.name)?),
        };
        let stored = old.as_ref().map(|record| record.exclusive);
        let exclusive = spec.exclusive.or(stored).unwrap_or(spec.replicas <= 1);
        self.check_spec(spec, exclusive)?;
        match old {
            None => self.deploy_new(spec, exclusive),
            Some(old) => self.deploy_change(spec, exclusive, old),
        }
    }

    fn deploy_new(&mut self, spec: &Arc<ServiceSpec>, exclusive: bool) -> Outcome {
        if self.state.services.len() >= limits::SERVICES {
            return Err(limit("services", limits::SERVICES as u64, "delete services that are not needed"));
        }
        let record = ServiceRecord {
            spec: spec.clone(),
            version: Version(1),
            exclusive,
            exclusive_since: if exclusive { self.state.revision } else { Revision(0) },
            stopped: false,
            deleting: false,
            versions: vec![self.version_record(Version(1), spec, "deploy")],
            changed: self.state.revision,
        };
        self.state.services.insert(spec.name.clone(), record);
        self.shape_slots(&spec.name);
        self.emit_deployed(&spec.name, Version(1), "deploy");
        Ok(Reply::Accepted)
    }

    fn deploy_change(&mut self, spec: &Arc<ServiceSpec>, exclusive: bool, old: ServiceRecord) -> Outcome {
        if old.spec == *spec && old.exclusive == exclusive && !old.stopped {
            return Ok(Reply::Unchanged);
        }
        let mut record = old.clone();
        record.stopped = false;
        if exclusive != old.exclusive {
            record.exclusive = exclusive;
            record.exclusive_since = if exclusive { self.state.revision } else { Revision(0) };
        }
        record.spec = spec.clone();
        if !old.spec.runs_alike(spec) {
            record.version = Version(old.version.0 + 1);
        }
        self.renew(record, "deploy")
    }

    pub(super) fn scale(&mut self, name: &ServiceName, replicas: u32) -> Outcome {
        let mut record = self.living(name)?;
        if record.spec.replicas == replicas {
            return Ok(Reply::Unchanged);
        }
        let spec = Arc::new(ServiceSpec { replicas, ..ServiceSpec::clone(&record.spec) });
        self.check_spec(&spec, record.exclusive)?;
        record.spec = spec;
        self.renew(record, "scale")
    }

    /// Restarting a stopped service starts it.
    pub(super) fn restart(&mut self, name: &ServiceName) -> Outcome {
        let mut record = self.living(name)?;
        record.stopped = false;
        record.version = Version(record.version.0 + 1);
        self.renew(record, "restart")
    }

    /// Puts a changed record in place: notes the deployment, shapes the slots, and begins a rollout if
    /// older copies are to be replaced.
    fn renew(&mut self, mut record: ServiceRecord, cause: &str) -> Outcome {
        let (name, version) = (record.spec.name.clone(), record.version);
        let raised = self.state.services.get(&name).is_some_and(|old| old.version != version);
        record.versions.insert(0, self.version_record(version, &record.spec, cause));
        record.changed = self.state.revision;
        trim_versions(self.state, &name, &mut record);
        self.state.services.insert(name.clone(), record.clone());
        self.shape_slots(&name);
        self.emit_deployed(&name, version, cause);
        if !raised {
            return Ok(Reply::Accepted);
        }
        if cause != "restart" {
            self.keep_copies_that_run_alike(&name, &record);
        }
        self.begin_rollout(&name, version)
    }

    /// A copy whose own version runs the same as the new one is of the new one: going back to an earlier
    /// spec replaces only what had changed.
    fn keep_copies_that_run_alike(&mut self, name: &ServiceName, service: &ServiceRecord) {
        let revision = self.state.revision;
        for slot in slots_of(self.state, name) {
            self.state.slots.update(&slot, |record| {
                for claim in record.claims.iter_mut().filter(|claim| claim.version != service.version) {
                    let known = service.versions.iter().any(|version| version.version == claim.version);
                    let restarted = service
                        .versions
                        .iter()
                        .any(|version| version.version > claim.version && version.cause == "restart");
                    if known && !restarted && service.spec_of(claim.version).runs_alike(&service.spec) {
                        claim.version = service.version;
                        record.changed = revision;
                    }
                }
            });
        }
    }

    pub(super) fn begin_rollout(&mut self, name: &ServiceName, version: Version) -> Outcome {
        self.end_rollouts(name, &OperationResult::Released(format!("version {version} came after it")));
        let older = |slot: &SlotRecord| slot.claims.iter().filter(|claim| claim.version != version).count();
        let total: usize =
            slots_of(self.state, name).iter().filter_map(|slot| self.state.slots.get(slot)).map(older).sum();
        if total == 0 {
            return Ok(Reply::Accepted);
        }
        let rollout = RolloutRecord { service: name.clone(), version, total: total as u32 };
        self.begin(OperationKind::Rollout(rollout), String::new()).map(Reply::Began)
    }

    pub(super) fn end_rollouts(&mut self, name: &ServiceName, result: &OperationResult) {
        let of_service = |kind: &OperationKind| match kind {
            OperationKind::Rollout(rollout) => &rollout.service == name,
            OperationKind::Drain(_) | OperationKind::Migration(_) | OperationKind::Fence(_) => false,
        };
        for operation in self.active(of_service) {
            self.end(operation, result.clone());
        }
    }

    pub(super) fn stop_service(&mut self, name: &ServiceName) -> Outcome {
        let record = self.living(name)?;
        if record.stopped {
            return Ok(Reply::Unchanged);
        }
        self.change_service(name, |record| record.stopped = true);
        self.end_rollouts(name, &OperationResult::Released(format!("{name} was stopped")));
        self.emit(Event::ServiceStopped(name.clone()));
        Ok(Reply::Accepted)
    }

    pub(super) fn delete_service(&mut self, name: &ServiceName) -> Outcome {
        if self.service(name)?.deleting {
            return Ok(Reply::Unchanged);
        }
        self.change_service(name, |record| record.deleting = true);
        self.end_rollouts(name, &OperationResult::Released(format!("{name} is being deleted")));
        self.emit(Event::ServiceDeleting(name.clone()));
        self.forget_if_done(name);
        Ok(Reply::Accepted)
    }

    fn change_service(&mut self, name: &ServiceName, change: impl FnOnce(&mut ServiceRecord)) {
        let revision = self.state.revision;
        self.state.services.update(name, |record| {
            change(record);
            record.changed = revision;
        });
    }

    /// Forgets a service that is being deleted once nothing of it is claimed any more.
    pub(super) fn forget_if_done(&mut self, name: &ServiceName) {
        if !self.state.services.get(name).is_some_and(|record| record.deleting) {
            return;
        }
        let slots = slots_of(self.state, name);
        let claimed = |slot: &SlotId| self.state.slots.get(slot).is_some_and(|slot| !slot.claims.is_empty());
        if slots.iter().any(claimed) {
            return;
        }
        let of_service = |kind: &OperationKind| match kind {
            OperationKind::Migration(migration) => &migration.slot.service == name,
            OperationKind::Rollout(rollout) => &rollout.service == name,
            OperationKind::Drain(_) | OperationKind::Fence(_) => false,
        };
        for operation in self.active(of_service) {
            self.end(operation, OperationResult::Released(format!("{name} was deleted")));
        }
        slots.iter().for_each(|slot| {
            self.state.slots.remove(slot);
        });
        self.state.services.remove(name);
        self.emit(Event::ServiceDeleted(name.clone()));
    }

    /// Makes the slots that are wanted, and forgets those that are not and never held anything.
    fn shape_slots(&mut self, name: &ServiceName) {
        let Some(service) = self.state.services.get(name) else { return };
        let replicas = service.spec.replicas;
        let changed = self.state.revision;
        for ordinal in 0..replicas {
            let slot = SlotId { service: name.clone(), ordinal };
            if !self.state.slots.contains_key(&slot) {
                self.state.slots.insert(slot, SlotRecord { changed, ..SlotRecord::default() });
            }
        }
        for slot in slots_of(self.state, name).into_iter().filter(|slot| slot.ordinal >= replicas) {
            let idle = |slot: &SlotRecord| slot.claims.is_empty() && slot.last_ended.is_none();
            if self.state.slots.get(&slot).is_some_and(idle) {
                self.state.slots.remove(&slot);
            }
        }
    }

    fn check_spec(&self, spec: &ServiceSpec, exclusive: bool) -> Result<(), Rejection> {
        let name = &spec.name;
        let max_grace = self.state.cluster.settings.max_grace;
        if spec.stop.grace > max_grace {
            return Err(refused(
                format!("stop.grace {} of {name} is above stop.max_grace {max_grace}", spec.stop.grace),
                "shorten it, or raise stop.max_grace",
            ));
        }
        if exclusive && spec.keep_on_isolation {
            return Err(refused(
                format!("{name} is exclusive and cannot keep running without a lease"),
                "set `on_isolation: by_priority`, or `exclusive: false`",
            ));
        }
        if let Some((what, remedy)) = spec.workload.lacks() {
            return Err(refused(format!("{name} has {what}"), remedy));
        }
        if spec.replicas > limits::REPLICAS {
            let remedy = "use fewer copies, or several services";
            return Err(limit(&format!("replicas of {name}"), u64::from(limits::REPLICAS), remedy));
        }
        let others = self.state.slots.len() - slots_of(self.state, name).len();
        if others + spec.replicas as usize > limits::SLOTS {
            return Err(limit("slots of all services", limits::SLOTS as u64, "scale other services down"));
        }
        if codec::encode(spec).len() > limits::SPEC_BYTES {
            return Err(limit(&format!("bytes of {name}"), limits::SPEC_BYTES as u64, "shorten its spec"));
        }
        Ok(())
    }

    fn version_record(&self, version: Version, spec: &Arc<ServiceSpec>, cause: &str) -> VersionRecord {
        VersionRecord { version, spec: spec.clone(), at: self.at, by: self.asker(), cause: cause.to_owned() }
    }

    fn emit_deployed(&mut self, service: &ServiceName, version: Version, cause: &str) {
        self.emit(Event::ServiceDeployed { service: service.clone(), version, cause: cause.to_owned() });
    }
}

/// All slots of a service that are known, by ordinal.
pub(super) fn slots_of(state: &State, name: &ServiceName) -> Vec<SlotId> {
    let first = SlotId { service: name.clone(), ordinal: 0 };
    let last = SlotId { service: name.clone(), ordinal: u32::MAX };
    state.slots.range(first..=last).map(|(slot, _)| slot.clone()).collect()
}

/// Keeps the newest deployments and the newest of each version that still has a claim.
fn trim_versions(state: &State, name: &ServiceName, record: &mut ServiceRecord) {
    let slots = slots_of(state, name);
    let claims = slots.iter().filter_map(|slot| state.slots.get(slot)).flat_map(|slot| &slot.claims);
    let mut used: std::collections::BTreeSet<Version> = claims.map(|claim| claim.version).collect();
    let mut kept = 0;
    record.versions.retain(|version| {
        kept += 1;
        used.remove(&version.version) || kept <= limits::VERSIONS
    });
}

fn limit(what: &str, limit: u64, remedy: &str) -> Rejection {
    Rejection::Limit { what: what.to_owned(), limit, remedy: remedy.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{Cluster, service};
    use crate::command::Command;
    use crate::spec::{ServiceSpec, SpecDefaults, UnitSource, UnitWorkload, Workload, parse_one};
    use crate::state::OperationKind;
    use crate::units::MemoryMib;
    use std::sync::Arc;

    fn spec(executor: &str, spec: &str) -> ServiceSpec {
        let text = format!("name: web\nexecutor: {executor}\nspec: {{{spec}}}\n");
        parse_one(&text, &SpecDefaults::default()).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn deploy(spec: ServiceSpec) -> Command {
        Command::Deploy { spec: Arc::new(spec) }
    }

    #[test]
    fn what_cannot_run_is_refused_whoever_sends_it() {
        let unit = |source| Workload::Unit(UnitWorkload { source, limits: Default::default() });
        let transient = |command: &[&str]| {
            let command = command.iter().map(|&word| word.to_owned()).collect();
            UnitSource::Transient {
                command,
                environment: Default::default(),
                working_dir: None,
                user: None,
                port: None,
            }
        };
        let machine = |change: fn(&mut crate::spec::MachineWorkload)| {
            let Workload::Machine(mut vm) = spec("libvirt", "vm_image: /a, vm_memory: 16").workload else {
                panic!("no machine")
            };
            change(&mut vm);
            Workload::Machine(vm)
        };
        let Workload::Process(mut process) = spec("process", "command: [run]").workload else {
            panic!("no process")
        };
        process.command.clear();
        let Workload::Container(mut container) = spec("docker", "image: a").workload else {
            panic!("no container")
        };
        container.image.clear();
        let cases = [
            (Workload::Process(process), "web has no command"),
            (Workload::Container(container), "web has no image"),
            (unit(UnitSource::Existing(String::new())), "web has no unit"),
            (unit(transient(&[])), "web has no command with a full path"),
            (unit(transient(&["job"])), "web has no command with a full path"),
            (machine(|vm| vm.image.clear()), "web has no image with a full path"),
            (machine(|vm| vm.memory = MemoryMib(0)), "web has no memory or no processor"),
            (machine(|vm| vm.cpus = 0), "web has no memory or no processor"),
        ];
        let mut c = Cluster::of(&["n1"]);
        for (workload, words) in cases {
            let lacking = ServiceSpec { workload, ..spec("process", "command: [run]") };
            let refusal = c.refused(deploy(lacking));
            assert!(refusal.contains(words) && refusal.contains("spec."), "{refusal}");
        }
        assert!(c.state.services.is_empty());
    }

    #[test]
    fn another_executor_is_a_new_version_that_is_rolled_out() {
        let mut c = Cluster::of(&["n1"]);
        c.deploy("web", "");
        c.grant("web/0", "n1");
        c.ok(deploy(spec("podman", "image: web")));
        let record = c.state.services.get(&service("web")).unwrap();
        assert_eq!(record.version.0, 2);
        let rolls =
            |kind: &OperationKind| matches!(kind, OperationKind::Rollout(rollout) if rollout.total == 1);
        assert!(c.state.operations.values().any(|operation| rolls(&operation.kind)));
        c.ok(deploy(spec("docker", "image: web")));
        assert_eq!(c.state.services.get(&service("web")).unwrap().version.0, 3, "Docker is not Podman");
    }
}
