//! One connection through the relay: what comes in at one end goes out at the other, in order, when the way
//! lets it. A cut way holds bytes and endings alike; little is held, then whoever sends has to wait.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::links::Fault;

/// So much is held of what goes one way; the rest waits in the sender.
const MOST_HELD: usize = 256 * 1024;
const PIECE: usize = 16 * 1024;
/// What is lost is sent again after this, then after twice this, as TCP does.
const AGAIN: Duration = Duration::from_millis(200);
const MOST_AGAIN: u32 = 5;

/// Carries a connection to `target` until both of its ends have ended and both know it. Tells when the end
/// that dialled has ended, and when the target has or is not there.
pub(super) async fn carry(
    near: TcpStream,
    target: SocketAddr,
    [out, back]: [watch::Receiver<Fault>; 2],
    dialer_ended: impl Fn(),
    target_ended: impl Fn(),
) -> io::Result<()> {
    let far = match TcpStream::connect(target).await {
        Ok(far) => far,
        Err(error) => {
            target_ended();
            // As the host itself would: it is refused, not heard out.
            near.set_zero_linger()?;
            return Err(error);
        }
    };
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    let there = pump(near_read, far_write, out, dialer_ended);
    let here = pump(far_read, near_write, back, target_ended);
    tokio::join!(there, here);
    Ok(())
}

/// What is under way.
#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    last: Option<Instant>,
}

impl Queue {
    /// Takes a piece that arrives as the way is now, and never before an earlier one.
    fn push(&mut self, piece: Bytes, now: Instant, fault: Fault) {
        let at = now + lateness(fault);
        let due = self.last.map_or(at, |last| last.max(at));
        self.last = Some(due);
        self.bytes += piece.len();
        self.pieces.push_back((due, piece));
    }

    fn due(&self) -> Option<Instant> {
        self.pieces.front().map(|(due, _)| *due)
    }

    fn first(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |(_, piece)| piece)
    }

    /// So much of the first piece has gone out.
    fn gone(&mut self, count: usize) {
        let Some((_, piece)) = self.pieces.front_mut() else { return };
        let _ = piece.split_to(count);
        self.bytes -= count;
        if piece.is_empty() {
            self.pieces.pop_front();
        }
    }
}

fn lateness(fault: Fault) -> Duration {
    if fault == Fault::default() {
        return Duration::ZERO;
    }
    let mut rng = rand::rng();
    let delay = Duration::from_millis(fault.delay_ms.into());
    let jitter = rng.random_range(0.0..=2.0) * f64::from(fault.jitter_ms) / 1_000.0;
    let late = delay + Duration::from_secs_f64(jitter);
    let mut late = late.saturating_sub(Duration::from_millis(fault.jitter_ms.into()));
    let mut times = 0;
    while times < MOST_AGAIN && rng.random_range(0..100) < u32::from(fault.loss_percent) {
        late += AGAIN * 2_u32.pow(times);
        times += 1;
    }
    late
}

/// Carries one direction to its end.
async fn pump(
    read: OwnedReadHalf,
    mut write: OwnedWriteHalf,
    mut way: watch::Receiver<Fault>,
    ended: impl Fn(),
) {
    let mut queue = Queue::default();
    let (mut over, mut broken) = (false, false);
    loop {
        let fault = *way.borrow_and_update();
        let now = Instant::now();
        if over && queue.pieces.is_empty() && !fault.cut {
            // Whoever is gone needs no ending.
            let _ = write.shutdown().await;
            return;
        }
        let due = queue.due().filter(|_| !fault.cut);
        let later = due.filter(|due| *due > now);
        tokio::select! {
            biased;
            changed = way.changed() => if changed.is_err() { return },
            () = at(later) => {}
            written = write.write(queue.first()), if due.is_some() && later.is_none() => match written {
                Ok(count) if count > 0 => queue.gone(count),
                // Nobody takes it any more: it is taken off the sender all the same, as a network would.
                Ok(_) | Err(_) => (broken, queue) = (true, Queue::default()),
            },
            ready = read.readable(), if !over && queue.bytes < MOST_HELD => match ready.and_then(|()| take(&read)) {
                Ok(Some(piece)) if !piece.is_empty() => if !broken { queue.push(piece, now, fault) },
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => {
                    over = true;
                    ended();
                }
            },
        }
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// What lies ready to be read; nothing if it was a false alarm, an empty piece at the end.
fn take(read: &OwnedReadHalf) -> io::Result<Option<Bytes>> {
    let mut piece = [0_u8; PIECE];
    match read.try_read(&mut piece) {
        Ok(count) => Ok(Some(Bytes::copy_from_slice(piece.get(..count).unwrap_or_default()))),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(20);
    const CUT: Fault = Fault { cut: true, delay_ms: 0, jitter_ms: 0, loss_percent: 0 };

    struct Line {
        near: TcpStream,
        far: TcpStream,
        out: watch::Sender<Fault>,
        back: watch::Sender<Fault>,
    }

    async fn line() -> Line {
        let (front, end) = (listener().await, listener().await);
        let near = TcpStream::connect(front.local_addr().unwrap());
        let (near, came) = tokio::join!(near, front.accept());
        let (out, back) = (watch::Sender::default(), watch::Sender::default());
        let (far_at, ways) = (end.local_addr().unwrap(), [out.subscribe(), back.subscribe()]);
        tokio::spawn(async move { carry(came.unwrap().0, far_at, ways, || {}, || {}).await });
        let far = end.accept().await.unwrap().0;
        Line { near: near.unwrap(), far, out, back }
    }

    async fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }

    async fn hears(stream: &mut TcpStream, text: &str) {
        let mut heard = vec![0; text.len()];
        timeout(LONG, stream.read_exact(&mut heard)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8(heard).unwrap(), text);
    }

    async fn hears_nothing(stream: &mut TcpStream) {
        assert!(timeout(SHORT, stream.read(&mut [0; 8])).await.is_err());
    }

    #[tokio::test]
    async fn a_cut_one_way_holds_what_goes_that_way_and_lets_the_other_through() {
        let mut line = line().await;
        line.near.write_all(b"one").await.unwrap();
        hears(&mut line.far, "one").await;
        line.out.send_replace(CUT);
        line.near.write_all(b"two").await.unwrap();
        line.far.write_all(b"back").await.unwrap();
        hears(&mut line.near, "back").await;
        hears_nothing(&mut line.far).await;
        line.out.send_replace(Fault::default());
        hears(&mut line.far, "two").await;
    }

    #[tokio::test]
    async fn an_ending_does_not_cross_a_cut_either() {
        let mut line = line().await;
        line.back.send_replace(CUT);
        line.far.write_all(b"last words").await.unwrap();
        drop(line.far);
        hears_nothing(&mut line.near).await;
        line.back.send_replace(Fault::default());
        hears(&mut line.near, "last words").await;
        assert_eq!(timeout(LONG, line.near.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
    }

    #[tokio::test]
    async fn whoever_sends_into_a_cut_has_to_wait_in_the_end() {
        let mut line = line().await;
        line.out.send_replace(CUT);
        let lot = vec![7_u8; 64 * 1024 * 1024];
        assert!(timeout(SHORT, line.near.write_all(&lot)).await.is_err());
        line.out.send_replace(Fault::default());
        let mut heard = vec![0; 1024 * 1024];
        timeout(LONG, line.far.read_exact(&mut heard)).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_delayed_way_is_late_in_order_and_whole() {
        let mut line = line().await;
        line.out.send_replace(Fault { delay_ms: 150, jitter_ms: 100, loss_percent: 20, cut: false });
        let began = Instant::now();
        for number in 0..100_u8 {
            line.near.write_all(&[number; 100]).await.unwrap();
        }
        let mut heard = vec![0; 100 * 100];
        timeout(LONG, line.far.read_exact(&mut heard)).await.unwrap().unwrap();
        assert!(began.elapsed() >= Duration::from_millis(50));
        assert!(heard.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at / 100));
    }

    #[test]
    fn lateness_is_within_its_bounds_and_loss_makes_it_longer() {
        let late = |delay_ms, jitter_ms, loss_percent| {
            let fault = Fault { cut: false, delay_ms, jitter_ms, loss_percent };
            (0..200).map(|_| lateness(fault).as_millis()).collect::<Vec<_>>()
        };
        assert!(late(0, 0, 0).iter().all(|ms| *ms == 0));
        assert!(late(50, 20, 0).iter().all(|ms| (30..=70).contains(ms)));
        let lossy = late(10, 0, 50);
        assert!(lossy.contains(&10) && lossy.contains(&210) && lossy.contains(&610), "{lossy:?}");
    }
}
