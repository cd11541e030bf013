//! Carries out effects and keeps what came of them: starts and stops by the executors, state copies,
//! fencing deeds. An effect that is under way is not begun again; what it did is seen in the inventory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_core::effect::Effect;
use quorate_core::ids::{OperationId, SlotId};
use quorate_core::lease::{LeaseTerms, Renewal};
use quorate_core::observation::{
    ExecutorFact, FencingReport, GuardReport, NodeUsage, SlotReport, TransferReport,
};
use tokio::sync::watch;

use super::inner::{Inner, hold};
use super::{fencing, identity, transfer};
use crate::executors::Instances;
use crate::guard::GuardClient;
use crate::layout::Layout;
use crate::ports::ActError;

/// Between two attempts at an effect that was not done.
const AGAIN: Duration = Duration::from_millis(100);

/// What this node sees of itself.
pub(super) struct Seen {
    pub(super) guard: GuardReport,
    pub(super) usage: NodeUsage,
    pub(super) executors: Vec<ExecutorFact>,
    pub(super) slots: BTreeMap<SlotId, SlotReport>,
    pub(super) transfers: Vec<TransferReport>,
    pub(super) fencing: FencingReport,
}

/// What a node works with, and what is under way.
pub(super) struct Works {
    pub(super) layout: Layout,
    /// None on a node that runs nothing.
    pub(super) instances: Option<Instances>,
    pub(super) guard: Arc<GuardClient>,
    renewals: watch::Sender<Option<(Renewal, LeaseTerms)>>,
    pub(super) usage: Mutex<NodeUsage>,
    pub(super) transfers: Mutex<BTreeMap<OperationId, TransferReport>>,
    pub(super) fencing: Mutex<FencingReport>,
    under_way: Mutex<BTreeSet<String>>,
    /// Where work that may take long is done.
    runtime: tokio::runtime::Handle,
}

impl Works {
    pub(super) fn new(
        layout: Layout,
        instances: Option<Instances>,
        guard: Arc<GuardClient>,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        Self {
            layout,
            instances,
            guard,
            renewals: watch::channel(None).0,
            usage: Mutex::default(),
            transfers: Mutex::default(),
            fencing: Mutex::default(),
            under_way: Mutex::default(),
            runtime,
        }
    }

    /// What is seen of this node now.
    pub(super) fn seen(&self) -> Seen {
        Seen {
            guard: self.guard.report(),
            usage: *hold(&self.usage),
            executors: self.instances.as_ref().map(Instances::facts).unwrap_or_default(),
            slots: self.instances.as_ref().map(Instances::inventory).unwrap_or_default(),
            transfers: hold(&self.transfers).values().cloned().collect(),
            fencing: hold(&self.fencing).clone(),
        }
    }

    /// The guard is to hold deadlines by this lease, under these terms.
    pub(super) fn renew(&self, renewal: Renewal, terms: LeaseTerms) {
        self.renewals.send_replace(Some((renewal, terms)));
    }
}

/// Passes every renewal on to the guard, latest wins. The epoch is on disk before the guard has the lease,
/// and nothing starts before that.
pub(super) async fn renewals(inner: Arc<Inner>) {
    let mut renewals = inner.works.renewals.subscribe();
    let mut stored = None;
    while renewals.changed().await.is_ok() {
        let Some((renewal, terms)) = *renewals.borrow_and_update() else { continue };
        if stored != Some(renewal.epoch) {
            let root = inner.options.data_dir.clone();
            let kept =
                tokio::task::spawn_blocking(move || identity::keep_lease_epoch(&root, renewal.epoch)).await;
            if let Ok(Err(error)) = kept {
                tracing::error!(%error, "the lease epoch cannot be kept; nothing starts until it can");
                continue;
            }
            stored = Some(renewal.epoch);
            tracing::info!(epoch = renewal.epoch.0, "lease given");
        }
        match inner.works.guard.renew(renewal.valid_until, terms.kill_margin).await {
            Err(error) => tracing::warn!(%error, "the guard did not take the lease"),
            Ok(()) if inner.terms.swap(terms.number, Ordering::Relaxed) != terms.number => {
                inner.wake.notify_one();
            }
            Ok(()) => {}
        }
    }
}

/// Begins what is not under way yet.
pub(super) fn carry_out(inner: &Arc<Inner>, effects: Vec<Effect>) {
    for effect in effects {
        let name = name(&effect);
        if !hold(&inner.works.under_way).insert(name.clone()) {
            continue;
        }
        let inner = inner.clone();
        let runtime = inner.works.runtime.clone();
        runtime.spawn(async move {
            if let Err(error) = act(&inner, effect).await {
                tracing::warn!(effect = name, %error, "not done yet");
                // What is refused at once would be asked for again at once.
                tokio::time::sleep(AGAIN).await;
            }
            hold(&inner.works.under_way).remove(&name);
            inner.wake.notify_one();
        });
    }
}

/// What tells two effects apart, for as long as one of them is under way.
fn name(effect: &Effect) -> String {
    match effect {
        Effect::Start(start) => format!("start {} {}", start.id, start.restart),
        Effect::Stop(stop) => format!("stop {} {}", stop.slot, stop.token),
        Effect::Renew { number, .. } => format!("renew {number}"),
        Effect::Forget { slot } => format!("forget {slot}"),
        Effect::Fetch(fetch) => format!("fetch {} {}", fetch.operation, fetch.pass),
        Effect::DropStaging { operation } => format!("drop {operation}"),
        Effect::Fence(fence) => format!("fence {} {}", fence.operation, fence.attempt),
    }
}

async fn act(inner: &Arc<Inner>, effect: Effect) -> Result<(), ActError> {
    let works = &inner.works;
    let instances =
        || works.instances.as_ref().ok_or_else(|| ActError::Failed("nothing runs on this node".to_owned()));
    match effect {
        Effect::Start(start) => instances()?.start(start).await,
        Effect::Stop(stop) => instances()?.stop(stop).await,
        Effect::Renew { valid_until, .. } => {
            let margin = inner.state().cluster.settings.terms.kill_margin;
            works.guard.renew(valid_until, margin).await
        }
        Effect::Forget { slot } => instances()?.forget(slot).await,
        Effect::Fetch(fetch) => {
            transfer::fetch(inner, fetch).await;
            Ok(())
        }
        Effect::DropStaging { operation } => {
            transfer::drop_staging(inner, operation).await;
            Ok(())
        }
        Effect::Fence(deed) => {
            fencing::carry_out(inner, deed).await;
            Ok(())
        }
    }
}
