//! The loop without a network, beside tokio's: spawning, yielding, wake-ups and calls from other
//! threads, timers.
//!
//! `cargo bench -p ringloop-benches --bench event_loop` gives criterion's figures; with `--ratios`
//! behind another `--`, both sides take turns in shuffled rounds, and a table shows the medians of
//! the per-round ratios, which is what to trust on a machine with other work.
//!
//! # Why it is fair
//!
//! - A workload is written once and runs on either [`Side`], which only names what its users call.
//! - tokio's side is its `current_thread` runtime with everything enabled, as `#[tokio::main]` makes
//!   it: one thread, like a loop of ringloop, which always has its ring, timers and executor. Tasks are
//!   started with `tokio::spawn`, and are `Send` on both sides.
//! - The main future is exempt from tokio's cooperative budget, which would leave all but the first
//!   128 timers of a poll unregistered.
//! - A callback from another thread is `call_soon_threadsafe` here. tokio has no such thing: its users
//!   spawn a future through a `Handle`, or send closures to a task through a channel. Both are measured.
//! - Both sides get the same shared state, which is `Send` as tokio asks for, and the same threads.
//!
//! What differs: tokio rounds deadlines up to the next millisecond and fires those of one millisecond
//! in no particular order; ringloop fires each at its own time, in order.

use std::future::poll_fn;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, OnceLock};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use pico_args::Arguments;
use ringloop::EventLoop;
use ringloop_benches::args;
use ringloop_benches::failure::Failure;
use ringloop_benches::random::Random;
use ringloop_benches::raw::thread_cpu;
use ringloop_benches::table::Spread;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;
use tokio::task;

fn main() -> ExitCode {
    args::run(USAGE, |mut arguments| {
        if arguments.contains("--ratios") {
            ratios(arguments)?;
        } else {
            bench();
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn bench() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for workload in workloads() {
        let mut group = criterion.benchmark_group(workload.group);
        group.throughput(Throughput::Elements(workload.elements as u64));
        group.sampling_mode(SamplingMode::Flat);
        for (name, run) in workload.sides {
            group.bench_function(BenchmarkId::new(name, workload.case), |bencher| {
                bencher.iter_custom(|times| (0..times).map(|_| workload.clock.time(&*run)).sum());
            });
        }
        group.finish();
    }
    criterion.final_summary();
}

/// Prints ringloop's time against each rival's in the same round.
fn ratios(mut arguments: Arguments) -> Result<(), Failure> {
    let rounds = args::value(&mut arguments, "--rounds")?.unwrap_or(9);
    let only: Option<String> = args::value(&mut arguments, "--only")?;
    arguments.contains("--bench"); // Cargo adds it.
    args::finish(arguments)?;
    let mut random = Random::new(SEED);
    println!(
        "{:<46} {:>9} {:>9} {:>20} {:>20}",
        "workload / rival", "ringloop", "rival", "time", "cpu"
    );
    for mut workload in workloads() {
        let name = format!("{}/{}", workload.group, workload.case);
        if only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        // Once more under another name: what differs less from it does not differ.
        let (_, ringloop) = &workload.sides[0];
        workload.sides.push(("null", Rc::clone(ringloop)));
        let turns = workload.take_turns(rounds, &mut random);
        for ((rival, _), theirs) in workload.sides.iter().zip(&turns).skip(1) {
            println!(
                "{:<46} {:>6.0} ns {:>6.0} ns {:>20} {:>20}",
                format!("{name} / {rival}"),
                workload.typical(&turns[0]),
                workload.typical(theirs),
                ratio(Clock::Wall, &turns[0], theirs),
                ratio(Clock::Cpu, &turns[0], theirs),
            );
        }
    }
    Ok(())
}

/// The median, and between what half of the rounds are: the extremes are what others did to the machine.
fn ratio(clock: Clock, ours: &[Turn], theirs: &[Turn]) -> String {
    let ratio = |(ours, theirs): (&Turn, &Turn)| clock.of(ours).div_duration_f64(clock.of(theirs));
    let mut ratios: Vec<f64> = ours.iter().zip(theirs).map(ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let [low, median, high] = [1, 2, 3].map(|quarter| ratios[ratios.len() * quarter / 4]);
    format!("{median:.2} [{low:.2}..{high:.2}]")
}

/// What is measured.
struct Workload {
    group: &'static str,
    case: &'static str,
    elements: usize,
    clock: Clock,
    /// ringloop first.
    sides: Vec<(&'static str, Run)>,
}

/// Runs a workload once; gives the CPU time of the threads that it started.
type Run = Rc<dyn Fn() -> Duration>;

impl Workload {
    /// The same workload on both sides.
    fn new<C: OtherCpu>(
        (group, case): (&'static str, &'static str),
        elements: usize,
        ringloop: impl Fn(&Ringloop) -> C + 'static,
        tokio: impl Fn(&Tokio) -> C + 'static,
    ) -> Self {
        let (on_ringloop, on_tokio) = (Ringloop::new(), Tokio::new());
        let sides: Vec<(_, Run)> = vec![
            ("ringloop", Rc::new(move || ringloop(&on_ringloop).time())),
            ("tokio", Rc::new(move || tokio(&on_tokio).time())),
        ];
        Self { group, case, elements, clock: Clock::Wall, sides }
    }

    /// Runs all sides in shuffled rounds, at least so many. Where a run is short there are more, so that there are quiet
    /// ones among them.
    fn take_turns(&self, rounds: usize, random: &mut Random) -> Vec<Vec<Turn>> {
        let (_, ringloop) = &self.sides[0];
        turn(&**ringloop, 1);
        let run = turn(&**ringloop, 1).wall.as_secs_f64();
        let repeats = (TURN.as_secs_f64() / run).ceil();
        let affordable = ALL_TURNS.as_secs_f64() / (run * repeats);
        let mut turns = vec![Vec::new(); self.sides.len()];
        let mut order: Vec<usize> = (0..turns.len()).collect();
        for _ in 0..rounds.max(affordable as usize) {
            random.shuffle(&mut order);
            for &side in &order {
                turns[side].push(turn(&*self.sides[side].1, repeats as u32));
            }
        }
        turns
    }

    /// The median time for one element, in ns.
    fn typical(&self, turns: &[Turn]) -> f64 {
        let times = turns.iter().map(|turn| self.clock.of(turn).as_secs_f64());
        let median = Spread::of(times).map_or(0.0, |spread| spread.median);
        median * 1e9 / self.elements as f64
    }
}

/// What a workload gives: the CPU time of its other threads, if it has any.
trait OtherCpu {
    fn time(self) -> Duration;
}

impl OtherCpu for () {
    fn time(self) -> Duration {
        Duration::ZERO
    }
}

impl OtherCpu for Duration {
    fn time(self) -> Duration {
        self
    }
}

/// Which time counts.
#[derive(Clone, Copy)]
enum Clock {
    Wall,
    /// Of all threads: where the loop has to wait for deadlines.
    Cpu,
}

impl Clock {
    fn time(self, run: &dyn Fn() -> Duration) -> Duration {
        self.of(&turn(run, 1))
    }

    fn of(self, turn: &Turn) -> Duration {
        match self {
            Self::Wall => turn.wall,
            Self::Cpu => turn.cpu,
        }
    }
}

#[derive(Clone, Copy)]
struct Turn {
    wall: Duration,
    cpu: Duration,
}

/// Times a workload, per run.
fn turn(run: &dyn Fn() -> Duration, repeats: u32) -> Turn {
    let (start, cpu) = (Instant::now(), thread_cpu());
    let others: Duration = (0..repeats).map(|_| run()).sum();
    Turn { wall: start.elapsed() / repeats, cpu: (thread_cpu() - cpu + others) / repeats }
}

fn workloads() -> Vec<Workload> {
    let offsets: Rc<[Duration]> = {
        let mut random = Random::new(SEED);
        let mut offset = || Duration::from_nanos(random.next_u64() % SPREAD.as_nanos() as u64);
        (0..TIMERS).map(|_| offset()).collect()
    };
    let [cancel, live, fire] = [(); 3].map(|()| Rc::clone(&offsets));
    let [cancel_too, live_too, fire_too] = [(); 3].map(|()| Rc::clone(&offsets));
    let mut all = vec![
        Workload::new(("spawn", "alone"), 1_000, spawn_alone, spawn_alone),
        Workload::new(("spawn", "many"), 10 * SPAWNED, spawn_many, spawn_many),
        Workload::new(("join", "join_set"), JOINED, join_ours, join_tokio),
        Workload::new(("join", "group"), JOINED, group_ours, join_tokio),
        Workload::new(("queue", "bounded"), ITEMS, queue_ours, queue_tokio),
        Workload::new(("lock", "hand_off"), TASKS * HAND_OFFS, lock_ours, lock_tokio),
        Workload::new(("yield", "alone"), 10_000, yield_alone, yield_alone),
        Workload::new(("yield", "many"), TASKS * YIELDS, yield_many, yield_many),
        Workload::new(("wake_across_threads", "ping_pong"), ROUND_TRIPS, ping_pong, ping_pong),
        Workload::new(("wake_across_threads", "each_once"), WOKEN, wake_each, wake_each),
        Workload::new(("wake_across_threads", "flood"), FLOOD, flood, flood),
        Workload::new(("threadsafe_calls", "8_threads"), CALLS, calls, calls),
        Workload::new(
            ("timers_set_and_cancelled", "each_at_once"),
            TIMERS,
            move |side| set_and_cancel(side, &cancel),
            move |side| set_and_cancel(side, &cancel_too),
        ),
        Workload::new(
            ("timers_set_and_cancelled", "all_live"),
            TIMERS,
            move |side| set_all_then_cancel(side, &live),
            move |side| set_all_then_cancel(side, &live_too),
        ),
        Workload::new(
            ("timers_live", "fired"),
            TIMERS,
            move |side| set_all_then_fire(side, &fire),
            move |side| set_all_then_fire(side, &fire_too),
        ),
    ];
    let channel = TokioChannel(Tokio::new());
    for workload in &mut all {
        match workload.group {
            "threadsafe_calls" => {
                let channel = channel.clone();
                workload.sides.push(("tokio_channel", Rc::new(move || calls(&channel))));
            }
            "timers_live" => workload.clock = Clock::Cpu,
            _ => {}
        }
    }
    all
}

/// What a workload needs of a runtime.
trait Side {
    /// Runs `main` on this thread.
    fn run<F: Future>(&self, main: F) -> F::Output;

    /// Inside of `run`: starts a task; gives a future of its result.
    fn spawn<T: Send + 'static>(
        task: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T>;

    fn yield_now() -> impl Future<Output = ()> + Send;

    fn sleep(delay: Duration) -> impl Future<Output = ()>;

    fn sleep_until(when: Instant) -> impl Future<Output = ()>;

    /// What other threads post callbacks with, while `run` runs.
    fn poster<C: FnOnce() + Send + 'static>(&self) -> impl Fn(C) + Clone + Send + 'static;
}

struct Ringloop(EventLoop);

impl Ringloop {
    fn new() -> Self {
        Self(EventLoop::new().expect("the kernel has io_uring"))
    }
}

impl Side for Ringloop {
    fn run<F: Future>(&self, main: F) -> F::Output {
        self.0.run_until_complete(main).expect("nobody stops the loop")
    }

    fn spawn<T: Send + 'static>(
        task: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> {
        let task = ringloop::spawn(task);
        async { task.await.expect("nobody cancels the task") }
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        ringloop::yield_now()
    }

    fn sleep(delay: Duration) -> impl Future<Output = ()> {
        ringloop::sleep(delay)
    }

    fn sleep_until(when: Instant) -> impl Future<Output = ()> {
        ringloop::sleep_until(when)
    }

    fn poster<C: FnOnce() + Send + 'static>(&self) -> impl Fn(C) + Clone + Send + 'static {
        let proxy = self.0.proxy();
        move |callback| {
            proxy.call_soon_threadsafe(move |_| callback()).expect("the loop is open");
        }
    }
}

#[derive(Clone)]
struct Tokio(Rc<Runtime>);

impl Tokio {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build();
        Self(Rc::new(runtime.expect("the kernel has epoll")))
    }
}

impl Side for Tokio {
    fn run<F: Future>(&self, main: F) -> F::Output {
        self.0.block_on(task::unconstrained(main))
    }

    fn spawn<T: Send + 'static>(
        task: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> {
        let task = tokio::spawn(task);
        async { task.await.expect("nobody cancels the task") }
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        task::yield_now()
    }

    fn sleep(delay: Duration) -> impl Future<Output = ()> {
        tokio::time::sleep(delay)
    }

    fn sleep_until(when: Instant) -> impl Future<Output = ()> {
        tokio::time::sleep_until(when.into())
    }

    fn poster<C: FnOnce() + Send + 'static>(&self) -> impl Fn(C) + Clone + Send + 'static {
        let handle: Handle = self.0.handle().clone();
        move |callback| drop(handle.spawn(async move { callback() }))
    }
}

/// tokio, with a task that runs the closures that come through a channel.
#[derive(Clone)]
struct TokioChannel(Tokio);

impl Side for TokioChannel {
    fn run<F: Future>(&self, main: F) -> F::Output {
        self.0.run(main)
    }

    fn spawn<T: Send + 'static>(
        task: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> {
        Tokio::spawn(task)
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        Tokio::yield_now()
    }

    fn sleep(delay: Duration) -> impl Future<Output = ()> {
        Tokio::sleep(delay)
    }

    fn sleep_until(when: Instant) -> impl Future<Output = ()> {
        Tokio::sleep_until(when)
    }

    fn poster<C: FnOnce() + Send + 'static>(&self) -> impl Fn(C) + Clone + Send + 'static {
        let (sender, mut receiver) = mpsc::unbounded_channel::<Box<dyn FnOnce() + Send>>();
        drop(self.0.0.spawn(async move {
            while let Some(callback) = receiver.recv().await {
                callback();
            }
        }));
        move |callback: C| assert!(sender.send(Box::new(callback)).is_ok(), "the task runs")
    }
}

/// Each task is waited for before the next one starts.
fn spawn_alone<S: Side>(side: &S) {
    side.run(async {
        for number in 0..1_000 {
            assert_eq!(S::spawn(async move { black_box(number) }).await, number);
        }
    });
}

/// Starts a thousand tasks, then waits for each.
fn spawn_many<S: Side>(side: &S) {
    side.run(async {
        let mut tasks = Vec::with_capacity(SPAWNED);
        for _ in 0..10 {
            tasks.extend((0..SPAWNED).map(|number| S::spawn(async move { black_box(number) })));
            for (number, task) in tasks.drain(..).enumerate() {
                assert_eq!(task.await, number);
            }
        }
    });
}

/// Starts a thousand tasks in a set, and takes their results as they end.
fn join_ours(side: &Ringloop) {
    side.run(async {
        let mut set = ringloop::JoinSet::new();
        for number in 0..JOINED {
            set.spawn(async move { black_box(number) });
        }
        while let Some(result) = set.join_next().await {
            black_box(result.expect("nobody cancels the task"));
        }
    });
}

fn join_tokio(side: &Tokio) {
    side.run(async {
        let mut set = task::JoinSet::new();
        for number in 0..JOINED {
            set.spawn(async move { black_box(number) });
        }
        while let Some(result) = set.join_next().await {
            black_box(result.expect("nobody cancels the task"));
        }
    });
}

/// The same as a group, which looks at each end for an error; tokio has none.
fn group_ours(side: &Ringloop) {
    let group = ringloop::TaskGroup::run(async |group| {
        for number in 0..JOINED {
            drop(group.create_task(async move {
                black_box(number);
            }));
        }
    });
    side.run(group).expect("no child fails");
}

/// One task puts items into a bounded queue, another one takes them.
fn queue_ours(side: &Ringloop) {
    side.run(async {
        let queue = Rc::new(ringloop::Queue::bounded(ROOM));
        let puts = Rc::clone(&queue);
        let producer = ringloop::spawn(async move {
            for item in 0..ITEMS {
                puts.put(item).await.expect("it is not shut down");
            }
        });
        for item in 0..ITEMS {
            assert_eq!(queue.get().await, Ok(item));
        }
        producer.await.expect("nobody cancels the task");
    });
}

fn queue_tokio(side: &Tokio) {
    side.run(async {
        let (sender, mut receiver) = mpsc::channel(ROOM);
        let producer = tokio::spawn(async move {
            for item in 0..ITEMS {
                sender.send(item).await.expect("somebody receives");
            }
        });
        for item in 0..ITEMS {
            assert_eq!(receiver.recv().await, Some(item));
        }
        producer.await.expect("nobody cancels the task");
    });
}

/// Two hundred tasks have a lock in turns, each over a wait.
fn lock_ours(side: &Ringloop) {
    side.run(async {
        let lock = Rc::new(ringloop::Lock::new(0));
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let lock = Rc::clone(&lock);
                ringloop::spawn(async move {
                    for _ in 0..HAND_OFFS {
                        let mut guard = lock.acquire().await;
                        ringloop::yield_now().await;
                        *guard += 1;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("nobody cancels the task");
        }
        assert_eq!(*lock.acquire().await, TASKS * HAND_OFFS);
    });
}

fn lock_tokio(side: &Tokio) {
    side.run(async {
        let lock = Arc::new(tokio::sync::Mutex::new(0));
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let lock = Arc::clone(&lock);
                tokio::spawn(async move {
                    for _ in 0..HAND_OFFS {
                        let mut guard = lock.lock().await;
                        task::yield_now().await;
                        *guard += 1;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("nobody cancels the task");
        }
        assert_eq!(*lock.lock().await, TASKS * HAND_OFFS);
    });
}

/// One task that gives up control again and again: the loop looks for events each time.
fn yield_alone<S: Side>(side: &S) {
    side.run(async {
        for _ in 0..10_000 {
            S::yield_now().await;
        }
    });
}

/// Two hundred tasks do so.
fn yield_many<S: Side>(side: &S) {
    side.run(async {
        let yielder = || async {
            for _ in 0..YIELDS {
                S::yield_now().await;
            }
        };
        let tasks: Vec<_> = (0..TASKS).map(|_| S::spawn(yielder())).collect();
        for task in tasks {
            task.await;
        }
    });
}

/// This thread and another one wake each other; both sleep meanwhile.
fn ping_pong<S: Side>(side: &S) -> Duration {
    let pong = Arc::new(Signal::default());
    let thread = thread::spawn({
        let pong = Arc::clone(&pong);
        move || {
            for _ in 0..ROUND_TRIPS {
                thread::park();
                pong.post();
            }
            thread_cpu()
        }
    });
    side.run(async {
        for _ in 0..ROUND_TRIPS {
            thread.thread().unpark();
            pong.wait(1).await;
        }
    });
    thread.join().expect("the thread does not panic")
}

/// Another thread wakes many tasks, each once: as many steps on both sides.
fn wake_each<S: Side>(side: &S) -> Duration {
    let signals: Arc<[Signal]> = (0..WOKEN).map(|_| Signal::default()).collect();
    let thread = thread::spawn({
        let signals = Arc::clone(&signals);
        move || {
            thread::park();
            for signal in &*signals {
                signal.post();
            }
            thread_cpu()
        }
    });
    side.run(async {
        let wait = |index: usize| {
            let signals = Arc::clone(&signals);
            async move { signals[index].wait(1).await }
        };
        let tasks: Vec<_> = (0..WOKEN).map(|index| S::spawn(wait(index))).collect();
        // First steps are taken in order: with the last one, all wait.
        while signals[WOKEN - 1].waker.get().is_none() {
            S::yield_now().await;
        }
        thread.thread().unpark();
        for task in tasks {
            task.await;
        }
    });
    thread.join().expect("the thread does not panic")
}

/// Another thread wakes 64 tasks in turn, as fast as it can. Posts that come before the task's step are one wake-up: the
/// side that takes longer to answer has less to do.
fn flood<S: Side>(side: &S) -> Duration {
    let signals: Arc<[Signal]> = (0..FLOODED).map(|_| Signal::default()).collect();
    let thread = thread::spawn({
        let signals = Arc::clone(&signals);
        move || {
            for _ in 0..FLOOD / FLOODED {
                for signal in &*signals {
                    signal.post();
                }
            }
            thread_cpu()
        }
    });
    side.run(async {
        let tasks: Vec<_> = (0..FLOODED)
            .map(|index| {
                let signals = Arc::clone(&signals);
                S::spawn(async move { signals[index].wait(FLOOD / FLOODED).await })
            })
            .collect();
        for task in tasks {
            task.await;
        }
    });
    thread.join().expect("the thread does not panic")
}

/// Eight threads post callbacks, all at once.
fn calls<S: Side>(side: &S) -> Duration {
    let progress = Arc::new((AtomicUsize::new(CALLS), Signal::default()));
    let start = Arc::new(Barrier::new(THREADS + 1));
    let post = side.poster();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (post, start) = (post.clone(), Arc::clone(&start));
            let progress = Arc::clone(&progress);
            thread::spawn(move || {
                start.wait();
                for _ in 0..CALLS / THREADS {
                    let progress = Arc::clone(&progress);
                    post(move || {
                        let (left, done) = &*progress;
                        if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                            done.post();
                        }
                    });
                }
                thread_cpu()
            })
        })
        .collect();
    drop(post);
    side.run(async {
        start.wait();
        progress.1.wait(1).await;
    });
    threads.into_iter().map(|thread| thread.join().expect("the thread does not panic")).sum()
}

/// A timer that is set, and cancelled before the next one is: a timeout that is not needed.
fn set_and_cancel<S: Side>(side: &S, offsets: &[Duration]) {
    side.run(poll_fn(|cx| {
        for offset in offsets {
            assert!(pin!(S::sleep(FAR + *offset)).poll(cx).is_pending());
        }
        Poll::Ready(())
    }));
}

/// All timers are set before the first one is cancelled.
fn set_all_then_cancel<S: Side>(side: &S, offsets: &[Duration]) {
    side.run(poll_fn(|cx| {
        drop(set_all::<S>(Instant::now() + FAR, offsets, cx));
        Poll::Ready(())
    }));
}

/// All timers are set before the first one goes off; then all do.
fn set_all_then_fire<S: Side>(side: &S, offsets: &[Duration]) {
    side.run(async {
        let first = Instant::now() + AHEAD;
        for timer in poll_fn(|cx| Poll::Ready(set_all::<S>(first, offsets, cx))).await {
            timer.await;
        }
    });
}

/// In memory of their own, as tokio's timers may not be moved; those of ringloop would not need it.
fn set_all<S: Side>(
    first: Instant,
    offsets: &[Duration],
    cx: &mut Context<'_>,
) -> Vec<Pin<Box<impl Future<Output = ()> + use<S>>>> {
    let set = |offset: &Duration| {
        let mut timer = Box::pin(S::sleep_until(first + *offset));
        assert!(timer.as_mut().poll(cx).is_pending());
        timer
    };
    offsets.iter().map(set).collect()
}

/// Posts from another thread, for one task that counts them.
#[derive(Default)]
struct Signal {
    posted: AtomicUsize,
    /// Set once, as a task's waker stays the same: a lock here would be what is measured.
    waker: OnceLock<Waker>,
}

impl Signal {
    fn post(&self) {
        self.posted.fetch_add(1, Ordering::SeqCst);
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// Takes so many posts.
    async fn wait(&self, mut count: usize) {
        poll_fn(|cx| {
            let waker = self.waker.get_or_init(|| cx.waker().clone());
            assert!(waker.will_wake(cx.waker()), "one task waits");
            count -= self.posted.swap(0, Ordering::SeqCst).min(count);
            if count == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

const USAGE: &str = "\
usage: cargo bench -p ringloop-benches --bench event_loop [-- FILTER | -- --ratios [--rounds N] [--only TEXT]]

  --ratios  for each workload, what an element takes on both sides, and ringloop's time against a
            rival's in the same round: the median, and the quarters around it. cpu: of all threads.
            null: ringloop once more; a lesser difference than that is none
  --rounds  at least so many: 9 unless told
  --only    the workloads with this text in their name";

const JOINED: usize = 1_000;
const ITEMS: usize = 10_000;
const ROOM: usize = 64;
const HAND_OFFS: usize = 20;
const SPAWNED: usize = 1_000;
const TASKS: usize = 200;
const YIELDS: usize = 100;
const ROUND_TRIPS: usize = 1_000;
const WOKEN: usize = 10_000;
const FLOODED: usize = 64;
const FLOOD: usize = 64_000;
const THREADS: usize = 8;
const CALLS: usize = 100_000;
const TIMERS: usize = 1_000_000;

/// When those timers are due that are not to be.
const FAR: Duration = Duration::from_secs(3600);
/// When those are due that are, so that all are set by then, and over how long a time.
const AHEAD: Duration = Duration::from_millis(700);
const SPREAD: Duration = Duration::from_millis(50);

/// What a turn lasts at least, and what all turns of a side take about.
const TURN: Duration = Duration::from_millis(10);
const ALL_TURNS: Duration = Duration::from_secs(2);
const SEED: u64 = 1;
