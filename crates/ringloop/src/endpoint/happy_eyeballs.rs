//! Several addresses, one connection: in which order they are tried, and how they race (CONN-09 to CONN-12).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::sleep;
use crate::socket::AddrInfo;

/// Has families alternate, in the order of their first appearance, after `first_family_count` of the first one.
pub(super) fn interleave(infos: Vec<AddrInfo>, first_family_count: usize) -> Vec<AddrInfo> {
    let mut families: Vec<VecDeque<AddrInfo>> = Vec::new();
    for info in infos {
        match families
            .iter_mut()
            .find(|group| group.front().is_some_and(|first| first.family == info.family))
        {
            Some(group) => group.push_back(info),
            None => families.push(VecDeque::from([info])),
        }
    }
    let mut order = Vec::new();
    if let Some(first) = families.first_mut() {
        let extra = first_family_count.saturating_sub(1).min(first.len());
        order.extend(first.drain(..extra));
    }
    while families.iter().any(|group| !group.is_empty()) {
        order.extend(families.iter_mut().filter_map(VecDeque::pop_front));
    }
    order
}

/// The result of a staggered race.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Raced<T, E> {
    /// The winner and its place, if one has won.
    pub(super) winner: Option<(T, usize)>,
    /// The errors of those that were started, in the order of their starts; none for the winner and for those that it
    /// overtook.
    pub(super) errors: Vec<Option<E>>,
}

/// Runs the attempts; each is started when the one before it has failed, or when `delay` has passed. The first that succeeds
/// wins, and all others are dropped. When the race itself is dropped, all attempts are.
pub(super) async fn staggered_race<T, E, F: Future<Output = Result<T, E>>>(
    attempts: impl IntoIterator<Item = F>,
    delay: Duration,
) -> Raced<T, E> {
    let mut attempts = attempts.into_iter();
    let mut running: Vec<Option<Pin<Box<F>>>> = Vec::new();
    let mut errors: Vec<Option<E>> = Vec::new();
    let mut is_last = false;
    while !is_last {
        match attempts.next() {
            Some(attempt) => {
                running.push(Some(Box::pin(attempt)));
                errors.push(None);
            }
            None => is_last = true,
        }
        let mut failed = errors.iter().flatten().count();
        let mut timer = pin!((!is_last).then(|| sleep(delay)));
        let winner = poll_fn(|cx| {
            if let Some(winner) = poll_all(&mut running, &mut errors, cx) {
                return Poll::Ready(Some(winner));
            }
            let now = errors.iter().flatten().count();
            let all_failed = running.iter().all(Option::is_none);
            // An attempt has failed: the next one need not wait for the timer.
            if all_failed || !is_last && std::mem::replace(&mut failed, now) < now {
                return Poll::Ready(None);
            }
            match timer.as_mut().as_pin_mut() {
                Some(timer) => timer.poll(cx).map(|_| None),
                None => Poll::Pending,
            }
        })
        .await;
        if winner.is_some() {
            return Raced { winner, errors };
        }
    }
    Raced { winner: None, errors }
}

fn poll_all<T, E, F: Future<Output = Result<T, E>>>(
    running: &mut [Option<Pin<Box<F>>>],
    errors: &mut [Option<E>],
    cx: &mut Context<'_>,
) -> Option<(T, usize)> {
    for (index, attempt) in running.iter_mut().enumerate() {
        let Some(future) = attempt else { continue };
        match future.as_mut().poll(cx) {
            Poll::Ready(Ok(value)) => return Some((value, index)),
            Poll::Ready(Err(error)) => {
                *attempt = None;
                errors[index] = Some(error);
            }
            Poll::Pending => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;
    use std::net::Ipv6Addr;
    use std::rc::Rc;

    use super::*;
    use crate::run;

    fn names(infos: &[AddrInfo]) -> String {
        let name = |info: &AddrInfo| {
            let address = info.address.as_socket().unwrap();
            format!("{}{}", if address.is_ipv4() { "v4-" } else { "v6-" }, address.port())
        };
        infos.iter().map(name).collect::<Vec<_>>().join(" ")
    }

    // spec: CONN-10
    #[test]
    fn families_alternate_after_the_extra_addresses_of_the_first_one() {
        let v4 = |port| AddrInfo::stream(([127, 0, 0, 1], port));
        let v6 = |port| AddrInfo::stream((Ipv6Addr::LOCALHOST, port));
        let list = || vec![v6(1), v6(2), v6(3), v4(1), v4(2)];
        assert_eq!(names(&interleave(list(), 1)), "v6-1 v4-1 v6-2 v4-2 v6-3");
        assert_eq!(names(&interleave(list(), 2)), "v6-1 v6-2 v4-1 v6-3 v4-2");
        assert_eq!(names(&interleave(list(), 9)), "v6-1 v6-2 v6-3 v4-1 v4-2");
        assert!(interleave(Vec::new(), 1).is_empty());
    }

    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(3600);

    /// An attempt of the race: what it will do.
    #[derive(Clone, Copy)]
    enum Attempt {
        Wins(u32),
        Fails(&'static str),
        Hangs,
    }

    fn race(attempts: Vec<Attempt>, delay: Duration) -> Raced<u32, &'static str> {
        let attempts = attempts.into_iter().map(|attempt| async move {
            match attempt {
                Attempt::Wins(value) => Ok(value),
                Attempt::Fails(error) => Err(error),
                Attempt::Hangs => pending().await,
            }
        });
        run(staggered_race(attempts, delay)).unwrap()
    }

    // spec: CONN-11, CONN-12
    #[test]
    fn the_first_success_wins_and_errors_stand_in_the_order_of_the_starts() {
        let raced = race(vec![Attempt::Fails("no"), Attempt::Wins(7), Attempt::Wins(8)], LONG);
        assert_eq!(raced, Raced { winner: Some((7, 1)), errors: vec![Some("no"), None] });
        let raced = race(vec![Attempt::Hangs, Attempt::Wins(7)], SHORT);
        assert_eq!(raced, Raced { winner: Some((7, 1)), errors: vec![None, None] });
    }

    // spec: CONN-12
    #[test]
    fn a_race_that_nobody_wins_gives_all_errors() {
        let raced = race(vec![Attempt::Fails("a"), Attempt::Fails("b")], LONG);
        assert_eq!(raced, Raced { winner: None, errors: vec![Some("a"), Some("b")] });
        assert_eq!(race(Vec::new(), LONG), Raced { winner: None, errors: Vec::new() });
    }

    // spec: CONN-11
    #[test]
    fn the_winner_drops_the_attempts_that_it_overtook() {
        struct Dropped(Rc<Cell<u32>>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let dropped = Rc::new(Cell::new(0));
        let attempts = [None, Some(7)].map(|value| {
            let guard = Dropped(Rc::clone(&dropped));
            async move {
                let _guard = guard;
                match value {
                    Some(value) => Ok::<u32, ()>(value),
                    None => pending().await,
                }
            }
        });
        let raced = run(staggered_race(attempts, SHORT)).unwrap();
        assert_eq!((raced.winner, dropped.get()), (Some((7, 1)), 2));
    }
}
