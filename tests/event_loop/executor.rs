//! `run_in_executor()`.

use std::cell::RefCell;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ringloop::{Error, EventLoop, Executor, Job, ThreadPool, sleep, yield_now};

use super::{Log, ended, log_soon, new_loop, turn, watched_loop};

// spec: EXEC-01, EXEC-03
#[test]
fn a_job_runs_on_a_named_thread_and_its_result_comes_back() {
    let event_loop = new_loop();
    let job = event_loop.run_in_executor(|| {
        let thread = thread::current();
        (thread.id(), thread.name().map(str::to_owned))
    });
    let (id, name) = event_loop.run_until_complete(job).unwrap().unwrap();
    assert_ne!(id, thread::current().id());
    assert!(name.unwrap().starts_with("ringloop-"));
    assert_eq!(event_loop.stats().jobs, 0);
}

// spec: EXEC-01
#[test]
fn the_loop_goes_on_while_a_job_blocks() {
    let (event_loop, log) = (new_loop(), Log::default());
    let (go_on, waits) = mpsc::channel();
    let job = event_loop.run_in_executor(move || waits.recv().unwrap());
    let told = log.clone();
    let result = event_loop.run_until_complete(async move {
        sleep(Duration::from_millis(1)).await;
        told.add("the loop goes on");
        go_on.send("released").unwrap();
        job.await
    });
    assert_eq!(result.unwrap().unwrap(), "released");
    assert_eq!(log.take(), ["the loop goes on"]);
}

// spec: EXEC-01
#[test]
fn idle_threads_are_used_again_and_there_are_no_more_than_the_limit() {
    let event_loop = EventLoop::builder().default_executor(ThreadPool::new(2)).build().unwrap();
    let ids = event_loop
        .run_until_complete(async {
            let mut jobs = Vec::new();
            for _ in 0..50 {
                jobs.push(event_loop.run_in_executor(|| thread::current().id()));
            }
            let mut ids = Vec::new();
            for job in jobs {
                ids.push(job.await.unwrap());
            }
            for _ in 0..50 {
                let job = event_loop.run_in_executor(|| thread::current().id());
                ids.push(job.await.unwrap());
            }
            ids
        })
        .unwrap();
    let mut distinct = Vec::new();
    for id in ids {
        if !distinct.contains(&id) {
            distinct.push(id);
        }
    }
    assert!(distinct.len() <= 2, "{distinct:?}");
}

/// Keeps its jobs until it is told to run them.
#[derive(Default)]
struct Manual(RefCell<Vec<Box<dyn FnOnce() + Send>>>);

impl Executor for Manual {
    fn execute(&self, job: Box<dyn FnOnce() + Send>) -> Result<(), Error> {
        self.0.borrow_mut().push(job);
        Ok(())
    }
}

impl Manual {
    fn run_all(&self) {
        for job in self.0.take() {
            thread::spawn(job).join().unwrap();
        }
    }
}

// spec: EXEC-02
#[test]
fn a_given_executor_is_used_also_after_the_default_one_was_shut_down() {
    let (event_loop, manual) = (new_loop(), Manual::default());
    event_loop.run_until_complete(event_loop.shutdown_default_executor(None)).unwrap().unwrap();
    let job = event_loop.run_in(&manual, || 42);
    turn(&event_loop);
    assert!(!job.done());
    manual.run_all();
    assert_eq!(event_loop.run_until_complete(job).unwrap().unwrap(), 42);
}

// spec: EXEC-02
#[test]
fn an_executor_may_refuse_or_drop_a_job() {
    struct Refuse;
    impl Executor for Refuse {
        fn execute(&self, _: Box<dyn FnOnce() + Send>) -> Result<(), Error> {
            Err(Error::State("full".into()))
        }
    }
    let (event_loop, manual) = (new_loop(), Manual::default());
    assert_eq!(ended(event_loop.run_in(&Refuse, || ())).unwrap_err().to_string(), "full");
    assert_eq!(event_loop.stats().jobs, 0);
    let job = event_loop.run_in(&manual, || ());
    manual.0.take();
    assert!(matches!(event_loop.run_until_complete(job).unwrap(), Err(Error::Cancelled)));
}

// spec: EXEC-03, FUT-11
#[test]
fn a_job_that_panics_gives_an_error() {
    let (event_loop, reports) = watched_loop();
    let job = event_loop.run_in_executor(|| panic!("in the job"));
    let result: Result<(), Error> = event_loop.run_until_complete(job).unwrap();
    assert!(matches!(result, Err(Error::Panic(text)) if text == "in the job"));
    assert!(reports.take().is_empty());
    // The thread lives on.
    let job = event_loop.run_in_executor(|| 42);
    assert_eq!(event_loop.run_until_complete(job).unwrap().unwrap(), 42);
}

// spec: EXEC-03, FUT-09
#[test]
fn the_panic_of_a_job_that_nobody_awaits_is_reported() {
    let (event_loop, reports) = watched_loop();
    let manual = Manual::default();
    let job: Job<()> = event_loop.run_in(&manual, || panic!("in the job"));
    drop(job);
    manual.run_all();
    turn(&event_loop);
    turn(&event_loop);
    assert_eq!(reports.take(), ["Future exception was never retrieved: in the job"]);
}

// spec: EXEC-04, FUT-11
#[test]
fn a_job_cancelled_before_it_starts_never_runs_and_is_freed() {
    struct Tell(mpsc::Sender<&'static str>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.send("freed").unwrap();
        }
    }
    let (event_loop, manual) = (new_loop(), Manual::default());
    let (sender, receiver) = mpsc::channel();
    let held = Tell(sender);
    let job = event_loop.run_in(&manual, move || held.0.send("ran").unwrap());
    assert!(job.cancel());
    assert!(job.cancelled() && !job.cancel());
    turn(&event_loop);
    assert_eq!(receiver.try_recv().unwrap(), "freed");
    assert_eq!(event_loop.stats().jobs, 0);
    manual.run_all();
    turn(&event_loop);
    assert!(receiver.try_recv().is_err());
}

// spec: EXEC-04, TASK-05
#[test]
fn cancelling_the_task_that_awaits_a_job_cancels_the_job() {
    let (event_loop, manual) = (new_loop(), Manual::default());
    let (sender, receiver) = mpsc::channel();
    let job = event_loop.run_in(&manual, move || sender.send("ran").unwrap());
    let task = event_loop.create_task(job);
    turn(&event_loop);
    task.cancel();
    turn(&event_loop);
    turn(&event_loop);
    manual.run_all();
    assert!(task.cancelled());
    assert!(receiver.recv().is_err());
}

// spec: EXEC-04
#[test]
fn a_job_that_has_started_runs_to_its_end_though_it_is_cancelled() {
    let event_loop = new_loop();
    let (begun, begins) = mpsc::channel();
    let (go_on, waits) = mpsc::channel::<()>();
    let (ended, ends) = mpsc::channel();
    let job = event_loop.run_in_executor(move || {
        begun.send(()).unwrap();
        waits.recv().unwrap();
        ended.send("ran to its end").unwrap();
    });
    begins.recv().unwrap();
    assert!(job.cancel());
    assert!(matches!(event_loop.run_until_complete(job).unwrap(), Err(Error::Cancelled)));
    go_on.send(()).unwrap();
    assert_eq!(ends.recv().unwrap(), "ran to its end");
}

// spec: EXEC-05
#[test]
fn a_default_executor_that_was_shut_down_refuses() {
    let event_loop = new_loop();
    let job = event_loop.run_in_executor(|| 42);
    event_loop.run_until_complete(event_loop.shutdown_default_executor(None)).unwrap().unwrap();
    let error = ended(event_loop.run_in_executor(|| ())).unwrap_err();
    assert!(matches!(error, Error::State(_)));
    assert_eq!(error.to_string(), "Executor shutdown has been called");
    assert_eq!(event_loop.run_until_complete(job).unwrap().unwrap(), 42);
}

// spec: EXEC-06
#[test]
fn a_shutdown_waits_for_the_jobs_and_the_loop_goes_on_meanwhile() {
    let (event_loop, log) = (new_loop(), Log::default());
    let (go_on, waits) = mpsc::channel::<()>();
    drop(event_loop.run_in_executor(move || waits.recv().unwrap()));
    event_loop
        .run_until_complete(async {
            let weak = event_loop.downgrade();
            let shutdown = event_loop.create_task(async move {
                weak.upgrade().unwrap().shutdown_default_executor(None).await
            });
            yield_now().await;
            log_soon(&event_loop, &log, "the loop goes on");
            yield_now().await;
            assert!(!shutdown.done());
            go_on.send(()).unwrap();
            shutdown.await.unwrap().unwrap();
        })
        .unwrap();
    assert_eq!(log.take(), ["the loop goes on"]);
}

// spec: EXEC-06
#[test]
fn a_shutdown_that_takes_too_long_warns_and_gives_up() {
    let event_loop = new_loop();
    let (go_on, waits) = mpsc::channel::<()>();
    drop(event_loop.run_in_executor(move || waits.recv()));
    let limit = Some(Duration::from_millis(1));
    event_loop.run_until_complete(event_loop.shutdown_default_executor(limit)).unwrap().unwrap();
    assert_eq!((event_loop.stats().warnings, event_loop.stats().jobs), (1, 1));
    go_on.send(()).unwrap();
}

// spec: EXEC-05, LOOP-16
#[test]
fn close_does_not_wait_for_jobs_and_drops_their_results() {
    let event_loop = new_loop();
    let (begun, begins) = mpsc::channel();
    let (go_on, waits) = mpsc::channel::<()>();
    let (ended, ends) = mpsc::channel();
    let job = event_loop.run_in_executor(move || {
        begun.send(()).unwrap();
        waits.recv().unwrap();
        ended.send(()).unwrap();
        "a result that nobody gets"
    });
    begins.recv().unwrap();
    event_loop.close().unwrap();
    go_on.send(()).unwrap();
    ends.recv().unwrap();
    assert!(!job.done());
}

// spec: EXEC-08
#[test]
fn another_pool_can_be_made_the_default() {
    let event_loop = new_loop();
    let id = |event_loop: &EventLoop| {
        let job = event_loop.run_in_executor(|| thread::current().id());
        event_loop.run_until_complete(job).unwrap().unwrap()
    };
    let first = id(&event_loop);
    event_loop.set_default_executor(ThreadPool::new(0)).unwrap();
    let second = id(&event_loop);
    assert_ne!(first, second);
    assert_eq!(id(&event_loop), second);
}

// spec: EXEC-07
#[test]
fn a_closed_loop_takes_no_jobs() {
    let event_loop = new_loop();
    event_loop.close().unwrap();
    for error in [
        ended(event_loop.run_in_executor(|| ())).unwrap_err(),
        ended(event_loop.run_in(&Manual::default(), || ())).unwrap_err(),
        event_loop.set_default_executor(ThreadPool::new(1)).unwrap_err(),
    ] {
        assert_eq!(error.to_string(), "Event loop is closed");
    }
}
