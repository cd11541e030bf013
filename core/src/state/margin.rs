//! What a cluster of these nodes can bear to lose. In words, for whoever joins and for whoever looks.

use super::State;

impl State {
    /// Why no node may be lost without losing the cluster, if that is so.
    pub fn frailty(&self) -> Option<String> {
        let staying: Vec<_> = self.nodes.iter().filter(|(_, record)| !record.leaving).collect();
        match staying.as_slice() {
            [] => None,
            [(only, _)] => {
                Some(format!("{only} is the only node: nothing fails over until two more nodes join"))
            }
            [(one, _), (other, _)] => Some(format!(
                "{one} and {other} cannot survive a loss: only one of two votes, and without it nothing fails \
                 over; let a third node join, if only as a witness (split_brain.role: witness)"
            )),
            [..] => None,
        }
    }
}
