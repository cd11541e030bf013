//! Stands in for an engine whose driver this build was made without, and says so. Starts nothing.

use futures::future::{BoxFuture, ready};
use futures::stream::BoxStream;
use quorate_core::effect::StartInstance;
use quorate_core::observation::Unavailable;
use quorate_core::spec::ExecutorKind;
use tokio::sync::watch;

use crate::ports::{EngineFact, Executor, Found, OutputPiece, Place, RunId, Tell};

/// An engine that this build cannot drive.
pub struct Unbuilt {
    kind: ExecutorKind,
    changes: watch::Sender<u64>,
}

impl Unbuilt {
    /// Of that kind, whose feature of the build has the same name.
    pub fn new(kind: ExecutorKind) -> Self {
        Self { kind, changes: watch::Sender::new(0) }
    }

    fn why(&self) -> Unavailable {
        Unavailable {
            why: format!("this build has no {}", self.kind),
            remedy: format!("build with --features {}", self.kind),
        }
    }

    fn refuse<T: Send + 'static>(&self) -> BoxFuture<'static, Result<T, String>> {
        let Unavailable { why, remedy } = self.why();
        Box::pin(ready(Err(format!("{why}; {remedy}"))))
    }
}

impl Executor for Unbuilt {
    fn kind(&self) -> ExecutorKind {
        self.kind
    }

    fn survey(&self) -> BoxFuture<'_, Result<EngineFact, Unavailable>> {
        Box::pin(ready(Err(self.why())))
    }

    fn prepare<'a>(&'a self, _: &'a StartInstance, _: Tell<'a>) -> BoxFuture<'a, Result<(), String>> {
        self.refuse()
    }

    fn launch<'a>(
        &'a self,
        _: &'a StartInstance,
        _: &'a Place,
    ) -> BoxFuture<'a, Result<Option<u32>, String>> {
        self.refuse()
    }

    fn found<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Found>, String>> {
        self.refuse()
    }

    fn ask_to_stop<'a>(&'a self, _: &'a str, _: &'a RunId) -> BoxFuture<'a, Result<(), String>> {
        self.refuse()
    }

    fn remove<'a>(&'a self, _: &'a str, _: &'a RunId) -> BoxFuture<'a, Result<(), String>> {
        self.refuse()
    }

    fn exec<'a>(
        &'a self,
        _: &'a str,
        _: &'a RunId,
        _: &'a [String],
    ) -> BoxFuture<'a, Result<String, String>> {
        self.refuse()
    }

    fn output(
        &self,
        _: &str,
        _: &RunId,
        _: Option<String>,
    ) -> Option<BoxStream<'static, Result<OutputPiece, String>>> {
        None
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_says_what_to_build() {
        let why = Unbuilt::new(ExecutorKind::Libvirt).survey().await.unwrap_err();
        assert_eq!(
            format!("{}; {}", why.why, why.remedy),
            "this build has no libvirt; build with --features libvirt"
        );
    }
}
