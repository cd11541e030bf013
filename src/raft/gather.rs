//! When a batch is ready to go. Each costs a sync on every node, however little it carries, and whoever was just
//! answered often asks again: where many asked at once, the next batch waits a moment for as many. Does not know what
//! is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout_at};

/// How long a batch may wait for others to join it; timers round it up.
const WAIT: Duration = Duration::from_millis(1);

/// Batches on their way at once: deeper gains nothing and costs processor time.
pub const DEPTH: usize = 2;
/// A batch of more is not overtaken.
const FEW: usize = 4;

/// May another batch go while one of so many is on its way? What comes beside many is soon many again, and goes
/// better together.
pub fn goes_beside(count: usize) -> bool {
    count <= FEW
}

#[derive(Default)]
struct Wanted {
    /// So many are to wait before the next batch goes.
    count: AtomicUsize,
    reached: Notify,
}

/// Where callers enter.
pub struct Entrance<T> {
    queue: mpsc::Sender<T>,
    wanted: Arc<Wanted>,
}

impl<T> Clone for Entrance<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), wanted: self.wanted.clone() }
    }
}

/// The other end of an [`Entrance`].
pub struct Gathered<T> {
    queue: mpsc::Receiver<T>,
    wanted: Arc<Wanted>,
    /// How many are waited for, as many as the last batch had, and until when.
    count: usize,
    until: Option<Instant>,
}

/// Both ends of a queue for so many.
pub fn gather<T>(room: usize) -> (Entrance<T>, Gathered<T>) {
    let ((queue, items), wanted) = (mpsc::channel(room), Arc::new(Wanted::default()));
    (Entrance { queue, wanted: wanted.clone() }, Gathered { queue: items, wanted, count: 0, until: None })
}

impl<T> Entrance<T> {
    /// Waits for room and enters; gives the item back where nobody takes it.
    pub async fn send(&self, item: T) -> Result<(), T> {
        self.queue.send(item).await.map_err(|gone| gone.0)?;
        let waiting = self.queue.max_capacity() - self.queue.capacity();
        let wanted = self.wanted.count.load(Ordering::Acquire);
        // Only whoever completes the batch wakes its taker: most enter without.
        if wanted > 0 && waiting >= wanted {
            self.wanted.reached.notify_one();
        }
        Ok(())
    }
}

impl<T> Gathered<T> {
    /// The first of the next batch, once it is ready; `None` when nobody can enter any more. Dropping the future loses
    /// nobody.
    pub async fn first(&mut self) -> Option<T> {
        if self.count > 1 {
            let until = *self.until.get_or_insert_with(|| Instant::now() + WAIT);
            self.wanted.count.store(self.count, Ordering::Release);
            while self.queue.len() < self.count {
                if timeout_at(until, self.wanted.reached.notified()).await.is_err() {
                    break;
                }
            }
            self.goes(0);
        }
        self.queue.recv().await
    }

    /// Another that waits already.
    pub fn more(&mut self) -> Option<T> {
        self.queue.try_recv().ok()
    }

    /// A batch of so many goes.
    pub fn goes(&mut self, count: usize) {
        (self.count, self.until) = (count, None);
        self.wanted.count.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_batch_after_many_waits_for_as_many_and_one_after_a_single_one_for_nobody() {
        let (entrance, mut gathered) = gather(8);
        entrance.send(1).await.unwrap();
        assert_eq!(gathered.first().await, Some(1));
        gathered.goes(3);
        let late = tokio::spawn(async move {
            for item in 2..=4 {
                entrance.send(item).await.unwrap();
            }
            entrance
        });
        assert_eq!(gathered.first().await, Some(2));
        let entrance = late.await.unwrap();
        assert_eq!((gathered.more(), gathered.more(), gathered.more()), (Some(3), Some(4), None));
        gathered.goes(1);
        let began = Instant::now();
        entrance.send(5).await.unwrap();
        assert_eq!(gathered.first().await, Some(5));
        assert!(began.elapsed() < WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_do_not_come_back_are_waited_for_once_and_not_for_long() {
        let (entrance, mut gathered) = gather(8);
        gathered.goes(5);
        entrance.send(1).await.unwrap();
        let began = Instant::now();
        assert_eq!(gathered.first().await, Some(1));
        assert!(began.elapsed() >= WAIT);
        drop(entrance);
        assert_eq!(gathered.first().await, None);
    }
}
