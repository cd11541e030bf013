//! A world that is played for somebody who watches: it is moved on in true time, and shown as one of its nodes
//! would show it. Equal options give the same world as when nobody watches; the past is reached by playing anew.

use super::world::World;
use super::{Options, Outcome, Told, look};
use crate::ids::NodeId;
use crate::view::ClusterView;

/// A world on its way.
pub struct Play {
    seed: u64,
    options: Options,
    world: World,
    at_us: u64,
}

impl std::fmt::Debug for Play {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Play").field("seed", &self.seed).field("at_us", &self.at_us).finish_non_exhaustive()
    }
}

impl Play {
    /// At its beginning.
    pub fn new(seed: u64, options: &Options) -> Self {
        let options = Options { story: true, shown: true, ..options.clone() };
        let world = World::new(seed, &options);
        Self { seed, options, world, at_us: 0 }
    }

    /// The true time reached, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.at_us / 1_000
    }

    /// Has the world come to its end?
    pub fn ended(&self) -> bool {
        !self.world.goes_on()
    }

    /// Plays until a moment, or the world's end. To go back it is played anew from its beginning.
    pub fn to(&mut self, ms: u64) {
        let until = ms.saturating_mul(1_000);
        if until < self.at_us {
            self.world = World::new(self.seed, &self.options);
        }
        self.at_us = until;
        while self.world.goes_on() && self.world.next_us().is_some_and(|next| next <= until) {
            if !self.world.step() {
                break;
            }
        }
        if self.ended() {
            self.at_us = self.at_us.min(self.world.ctx.now);
        }
        self.world.ctx.now = self.world.ctx.now.max(self.at_us);
    }

    /// The moment of the next thing worth telling, from which it is played on.
    pub fn to_next(&mut self) {
        let told = self.story().len();
        while self.world.goes_on() && self.story().len() == told && self.world.step() {}
        self.at_us = self.world.ctx.now;
    }

    /// What was told so far.
    pub fn story(&self) -> &[Told] {
        self.world.ctx.story.as_deref().unwrap_or_default()
    }

    /// Its nodes, in their order.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.world.hosts.iter().map(|host| host.name.clone()).collect()
    }

    /// What a node's screen shows now; nothing while its process does not run or stands still.
    pub fn view(&self, node: usize, previous: Option<&ClusterView>) -> Option<ClusterView> {
        let host = self.world.hosts.get(node).filter(|host| host.lives() && !host.node_frozen)?;
        look::of(host, &self.world.ctx, previous)
    }

    /// What it came to.
    pub fn outcome(self) -> Outcome {
        self.world.outcome()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::run;

    #[test]
    fn a_watched_world_is_the_same_and_can_be_played_again_from_any_moment() {
        let options = Options { faults_ms: 6_000, ..Options::default() };
        let alone = run(11, &options);
        let mut play = Play::new(11, &options);
        let mut views = 0;
        while !play.ended() {
            play.to(play.now_ms() + 500);
            views += (0..play.nodes().len()).filter(|node| play.view(*node, None).is_some()).count();
        }
        assert!(views > 20, "{views}");
        assert_eq!(play.now_ms(), alone.virtual_ms);
        let whole: Vec<Told> = play.story().to_vec();
        play.to(5_000);
        let early: Vec<Told> = play.story().to_vec();
        assert!(!early.is_empty() && early.len() < whole.len());
        assert_eq!(early, whole[..early.len()]);
        let before = play.now_ms();
        play.to_next();
        assert_eq!(play.story().len(), early.len() + 1);
        assert!(play.now_ms() >= before);
        play.to(u64::MAX / 2_000);
        assert_eq!(play.story(), whole);
        assert_eq!(play.outcome().transcript_hash, alone.transcript_hash, "watching changes nothing");
    }
}
