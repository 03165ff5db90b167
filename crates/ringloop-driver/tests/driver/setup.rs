//! Making a ring: what was chosen, what is kept, and why there is none.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ringloop_driver::testing::close_kept_ring;
use ringloop_driver::{
    Account, Driver, DriverChoice, DriverConfig, DriverKind, Features, SetupError, Wait,
};

use crate::isolated::Test;
use crate::support::{
    TOKEN, TestDriver, is_linux_6_1, open_descriptors, received, ring, unix_pair, write_all,
};
use crate::sys::{
    become_nobody_else, in_forked_child, refuse_calls, set_soft_limit, set_variable, show_at,
};

pub(crate) const TESTS: &[Test] = crate::tests![
    the_info_names_what_is_in_use_and_why_the_rest_is_not,
    a_driver_works_without_any_one_feature_and_without_all,
    the_mask_of_the_environment_is_that_of_the_named_kernel,
    a_mask_that_is_no_version_masks_everything,
    sizes_are_clamped_and_never_refused,
    a_thousand_loops_in_a_row_succeed_without_privileges,
    a_creation_waits_for_memory_before_it_makes_a_smaller_ring,
    a_thread_keeps_one_drained_ring_and_two_descriptors,
    a_kept_ring_is_not_used_for_another_configuration,
    a_kept_ring_brings_nothing_of_its_last_driver,
    a_kept_ring_is_closed_with_its_thread,
    sixty_four_kib_of_memlock_give_a_smaller_ring,
    no_memlock_at_all_is_refused_with_the_limit_and_the_remedy,
    a_pool_that_is_larger_than_memory_is_refused_at_once_with_the_call_and_the_remedy,
    seccomp_that_refuses_any_of_the_three_calls_is_named,
    a_kernel_without_io_uring_is_named,
    a_kernel_that_lacks_a_needed_flag_is_too_old,
    the_sysctl_that_disables_io_uring_is_named,
    a_refusal_by_neither_sysctl_nor_seccomp_is_a_security_modules,
    a_process_without_a_free_descriptor_is_told_the_limit,
    a_refusal_becomes_an_io_error_of_the_same_kind_with_the_same_words,
    a_failed_creation_leaves_no_descriptor,
    where_io_uring_is_refused_epoll_does_the_work_and_says_why,
    a_call_that_is_refused_only_after_the_ring_is_made_leads_to_epoll,
    without_memlock_epoll_does_the_work,
    the_sysctl_that_disables_io_uring_leads_to_epoll,
    where_neither_can_be_had_the_error_is_that_of_the_ring,
    the_environment_chooses_the_driver,
    the_environment_leaves_the_choice_to_who_has_made_one,
    a_driver_that_there_is_not_is_an_error_with_its_remedy,
    an_idle_driver_makes_no_thread,
];

/// One exchange.
fn assert_works(driver: &mut TestDriver) {
    let (ours, theirs) = unix_pair();
    let key = driver.recv_multishot(&ours, &Account::new(), TOKEN);
    assert!(driver.ready_now().is_empty());
    write_all(&theirs, b"hello");
    assert_eq!(received(driver.next_of(key)), b"hello");
    driver.retire(key);
}

fn refusal() -> SetupError {
    close_kept_ring();
    match Driver::new(&ring()) {
        Ok(driver) => panic!("not refused: {}", driver.info()),
        Err(error) => error,
    }
}

#[track_caller]
fn assert_says(error: &SetupError, cause: &[&str], remedy: &[&str]) {
    for word in cause {
        assert!(error.cause().contains(word), "no {word:?} in the cause: {}", error.cause());
    }
    for word in remedy {
        assert!(error.remedy().contains(word), "no {word:?} in the remedy: {}", error.remedy());
    }
}

fn the_info_names_what_is_in_use_and_why_the_rest_is_not() {
    let mask = Features::NO_SQARRAY;
    let driver = TestDriver::with(&DriverConfig { mask, ..ring() });
    let info = driver.info().clone();
    assert!(!info.features.contains(Features::NO_SQARRAY));
    let why = |name| info.missing.iter().find(|(missing, _)| *missing == name).unwrap().1.as_str();
    assert_eq!(why("NO_SQARRAY"), "masked by the configuration");
    assert_eq!(why("RESIZE_RINGS"), "it needs NO_SQARRAY");
    let shown = info.to_string();
    assert!(shown.contains("256 submission and 4096 completion entries"), "{shown}");
    assert!(shown.contains("not NO_SQARRAY: masked by the configuration"), "{shown}");
    for name in ["NO_SQARRAY", "ABS_TIMER", "RESIZE_RINGS", "NO_IOWAIT", "MSHOT_LIMIT"] {
        assert!(shown.contains(name), "{shown}");
    }
    driver.finish();
}

fn a_driver_works_without_any_one_feature_and_without_all() {
    let each = [
        Features::NO_SQARRAY,
        Features::ABS_TIMER,
        Features::RESIZE_RINGS,
        Features::NO_IOWAIT,
        Features::MSHOT_LIMIT,
        Features::ALL,
        Features::NONE,
    ];
    for mask in each {
        let mut driver = TestDriver::with(&DriverConfig { mask, ..ring() });
        assert_eq!(driver.info().features & mask, Features::NONE);
        assert_works(&mut driver);
        driver.wait(Wait::Until(std::time::Instant::now())).unwrap();
        driver.finish();
    }
}

fn the_mask_of_the_environment_is_that_of_the_named_kernel() {
    set_variable("RINGLOOP_MASK", "6.13");
    let mask = DriverConfig::default().mask;
    assert_eq!(mask, Features::newer_than(6, 13));
    assert_eq!(mask, Features::NO_IOWAIT | Features::MSHOT_LIMIT);
    assert_eq!(Features::newer_than(6, 1), Features::ALL);
    assert_eq!(Features::newer_than(7, 0), Features::NONE);
}

fn a_mask_that_is_no_version_masks_everything() {
    set_variable("RINGLOOP_MASK", "the oldest");
    assert_eq!(DriverConfig::default().mask, Features::ALL);
}

fn sizes_are_clamped_and_never_refused() {
    for (submission_entries, completion_entries, buffers, buffer_size) in
        [(0, 0, 0, 0), (1, 1, 1, 1), (3, 5, 3, 7), (1 << 20, 1 << 20, 1, 64)]
    {
        let config =
            DriverConfig { submission_entries, completion_entries, buffers, buffer_size, ..ring() };
        let driver = TestDriver::with(&config);
        let info = driver.info();
        assert!(info.submission_entries.is_power_of_two() && info.submission_entries <= 32768);
        assert!(info.completion_entries.is_power_of_two() && info.completion_entries <= 65536);
        driver.finish();
    }
}

fn a_thousand_loops_in_a_row_succeed_without_privileges() {
    become_nobody_else();
    for _ in 0..1000 {
        let driver = Driver::new(&ring()).unwrap();
        assert_eq!(driver.info().completion_entries, 4096);
    }
}

// A ring's memory comes back when the kernel has the time: here the limit is what changes, while the creation sleeps.
fn a_creation_waits_for_memory_before_it_makes_a_smaller_ring() {
    become_nobody_else();
    set_soft_limit(libc::RLIMIT_MEMLOCK, 128 * 1024);
    let first = Driver::new(&ring()).unwrap();
    let creator = sleeping_place_of_this_thread();
    let made = Arc::new(AtomicBool::new(false));
    let is_made = Arc::clone(&made);
    let helper = thread::spawn(move || {
        let is_asleep = || fs::read_to_string(&creator).unwrap().contains("nanosleep");
        while !is_asleep() && !is_made.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        set_soft_limit(libc::RLIMIT_MEMLOCK, 8 << 20);
    });
    let second = Driver::new(&ring()).unwrap();
    made.store(true, Ordering::SeqCst);
    helper.join().unwrap();
    assert_eq!(second.info().completion_entries, 4096);
    drop((first, second));
}

/// A file that names the kernel function in which this thread sleeps.
fn sleeping_place_of_this_thread() -> PathBuf {
    fs::read_link("/proc/thread-self")
        .map(|link| Path::new("/proc").join(link).join("wchan"))
        .unwrap()
}

fn a_thread_keeps_one_drained_ring_and_two_descriptors() {
    let before = open_descriptors();
    drop(Driver::new(&ring()).unwrap());
    assert_eq!(open_descriptors(), before + 2);
    let both = [(); 2].map(|()| Driver::new(&ring()).unwrap());
    assert_eq!(open_descriptors(), before + 4);
    drop(both);
    assert_eq!(open_descriptors(), before + 2);
    close_kept_ring();
    assert_eq!(open_descriptors(), before);
}

fn a_kept_ring_is_not_used_for_another_configuration() {
    for completion_entries in [512, 1024, 512] {
        let config = DriverConfig { completion_entries, ..ring() };
        let driver = Driver::new(&config).unwrap();
        assert_eq!(driver.info().completion_entries, completion_entries);
    }
    for (buffers, buffer_size) in [(8, 64), (16, 64), (16, 128)] {
        let config = DriverConfig { buffers, buffer_size, ..ring() };
        let mut driver = TestDriver::with(&config);
        assert_eq!((driver.info().buffers, driver.info().buffer_size), (buffers, buffer_size));
        assert_works(&mut driver);
        driver.finish();
    }
}

fn a_kept_ring_brings_nothing_of_its_last_driver() {
    let (ours, theirs) = unix_pair();
    let mut first = Driver::new(&ring()).unwrap();
    let old = first.recv_multishot(&ours, &Account::new(), TOKEN);
    let file = first.watch(&theirs).unwrap();
    let waker = first.waker();
    first.submit().unwrap();
    write_all(&theirs, b"too late");
    drop(first);
    drop(file);
    waker.wake();
    let mut driver = TestDriver::of_ring();
    assert_eq!(driver.counters().in_flight, 0);
    assert!(!driver.is_in_flight(old));
    driver.cancel(old);
    assert!(driver.ready_now().is_empty());
    let key = driver.recv(&ours, &Account::new(), TOKEN);
    assert_eq!(received(driver.next_of(key)), b"too late", "it was left in the socket");
    assert_works(&mut driver);
    driver.finish();
}

fn a_kept_ring_is_closed_with_its_thread() {
    let before = open_descriptors();
    thread::spawn(|| drop(Driver::new(&ring()).unwrap())).join().unwrap();
    assert_eq!(open_descriptors(), before);
}

fn sixty_four_kib_of_memlock_give_a_smaller_ring() {
    become_nobody_else();
    if !are_rings_counted() {
        return;
    }
    set_soft_limit(libc::RLIMIT_MEMLOCK, 64 * 1024);
    let mut driver = TestDriver::of_ring();
    let info = driver.info().clone();
    assert!(info.completion_entries < 4096, "{info}");
    assert!(info.to_string().contains("512 completion entries"), "{info}");
    assert_works(&mut driver);
    driver.finish();
}

/// Whether this kernel counts the memory of a ring against the limit of locked memory. It does not everywhere.
fn are_rings_counted() -> bool {
    set_soft_limit(libc::RLIMIT_MEMLOCK, 0);
    close_kept_ring();
    let is_refused = Driver::new(&ring()).is_err();
    if !is_refused {
        println!("skipped: this kernel does not count the memory of a ring");
    }
    is_refused
}

fn no_memlock_at_all_is_refused_with_the_limit_and_the_remedy() {
    become_nobody_else();
    if !are_rings_counted() {
        return;
    }
    set_soft_limit(libc::RLIMIT_MEMLOCK, 0);
    let error = refusal();
    assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
    assert_says(
        &error,
        &["memlock", "ENOMEM", "0 KiB"],
        &["ulimit -l", "LimitMEMLOCK", "CAP_IPC_LOCK"],
    );
}

// spec: RISK-36
fn a_pool_that_is_larger_than_memory_is_refused_at_once_with_the_call_and_the_remedy() {
    set_soft_limit(libc::RLIMIT_AS, 8 << 30);
    // Whoever sleeps now panics: std takes a sleep for one that cannot fail.
    refuse_calls(&[libc::SYS_nanosleep, libc::SYS_clock_nanosleep], libc::EPERM);
    for (buffers, buffer_size) in [(32_768, 1 << 20), (u16::MAX, 1 << 30)] {
        let config = DriverConfig { buffers, buffer_size, ..DriverConfig::default() };
        let error = Driver::new(&config).err().unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
        let asked = format!("32768 buffers of {buffer_size} bytes");
        let cause = [asked.as_str(), "mmap", "ENOMEM", "RLIMIT_AS", "8388608 KiB"];
        assert_says(&error, &cause, &["fewer or smaller buffers", "ulimit -v"]);
        assert!(!error.to_string().contains("memlock"), "{error}");
    }
    let mut driver = TestDriver::new();
    assert_works(&mut driver);
    driver.finish();
}

fn seccomp_that_refuses_any_of_the_three_calls_is_named() {
    let calls = [
        (libc::SYS_io_uring_enter, "io_uring_enter"),
        (libc::SYS_io_uring_register, "io_uring_register"),
        (libc::SYS_io_uring_setup, "io_uring_setup"),
    ];
    // One filter on top of the other: the call that comes first is the one that is named.
    for (call, name) in calls {
        refuse_calls(&[call], libc::EPERM);
        let error = refusal();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        assert_says(&error, &["seccomp", "EPERM", name, "Seccomp: 2"], &["seccomp profile"]);
    }
}

fn a_kernel_without_io_uring_is_named() {
    refuse_calls(&[libc::SYS_io_uring_setup], libc::ENOSYS);
    let error = refusal();
    assert_says(&error, &["kernel", "no io_uring", "ENOSYS"], &["Linux 6.1"]);
}

fn a_kernel_that_lacks_a_needed_flag_is_too_old() {
    refuse_calls(&[libc::SYS_io_uring_setup], libc::EINVAL);
    let error = refusal();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_says(&error, &["kernel", release.trim(), "too old"], &["Linux 6.1"]);
}

fn the_sysctl_that_disables_io_uring_is_named() {
    if is_linux_6_1("there is no such sysctl") {
        return;
    }
    show_at("/proc/sys/kernel/io_uring_disabled", "2\n");
    refuse_calls(&[libc::SYS_io_uring_setup], libc::EPERM);
    let error = refusal();
    assert_says(
        &error,
        &["kernel.io_uring_disabled is 2", "EPERM"],
        &["kernel.io_uring_disabled=0", "io_uring_group"],
    );
}

fn a_refusal_by_neither_sysctl_nor_seccomp_is_a_security_modules() {
    show_at("/proc/self/status", "Name:\ttest\nSeccomp:\t0\n");
    refuse_calls(&[libc::SYS_io_uring_setup], libc::EACCES);
    let error = refusal();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    assert_says(&error, &["security module"], &["SELinux"]);
}

fn a_process_without_a_free_descriptor_is_told_the_limit() {
    let spare = File::open("/dev/null").unwrap();
    let free = std::os::fd::AsRawFd::as_raw_fd(&spare) as u64;
    drop(spare);
    // With one free descriptor the wake-up gets it, and the ring does not.
    for (limit, call) in [(free, "eventfd"), (free + 1, "io_uring_setup")] {
        set_soft_limit(libc::RLIMIT_NOFILE, limit);
        let error = refusal();
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        assert_says(
            &error,
            &["open files", "EMFILE", call, &format!("limit is {limit}")],
            &["ulimit -n"],
        );
    }
}

fn a_refusal_becomes_an_io_error_of_the_same_kind_with_the_same_words() {
    refuse_calls(&[libc::SYS_io_uring_setup], libc::EPERM);
    let error = refusal();
    let words = error.to_string();
    let error = io::Error::from(error);
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(error.to_string(), words);
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<SetupError>()).unwrap();
    assert_eq!(inner.raw_os_error(), Some(libc::EPERM));
}

fn a_failed_creation_leaves_no_descriptor() {
    refuse_calls(&[libc::SYS_io_uring_register], libc::EPERM);
    let before = open_descriptors();
    refusal();
    assert_eq!(open_descriptors(), before);
}

fn automatic() -> DriverConfig {
    DriverConfig { driver: DriverChoice::Auto, ..DriverConfig::default() }
}

/// An automatic choice comes to epoll, which works, and is explained by these words.
fn assert_is_epoll(words: &[&str]) {
    close_kept_ring();
    let mut driver = TestDriver::with(&automatic());
    let info = driver.info().clone();
    assert_eq!((info.driver, info.features), (DriverKind::Epoll, Features::NONE));
    let refused = info.refused.clone().unwrap();
    assert_says(&refused, words, &[]);
    let shown = info.to_string();
    assert!(shown.contains("epoll") && shown.contains(&refused.to_string()), "{shown}");
    assert_works(&mut driver);
    driver.finish();
}

fn where_io_uring_is_refused_epoll_does_the_work_and_says_why() {
    for (errno, word) in [(libc::EPERM, "EPERM"), (libc::ENOSYS, "ENOSYS")] {
        let status = in_forked_child(|| {
            let calls =
                [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
            refuse_calls(&calls, errno);
            assert_is_epoll(&[word, "io_uring_setup"]);
        });
        assert_eq!(status, 0);
    }
}

fn a_call_that_is_refused_only_after_the_ring_is_made_leads_to_epoll() {
    for (call, name) in [
        (libc::SYS_io_uring_enter, "io_uring_enter"),
        (libc::SYS_io_uring_register, "io_uring_register"),
    ] {
        let status = in_forked_child(|| {
            refuse_calls(&[call], libc::EPERM);
            assert_is_epoll(&["seccomp", name]);
        });
        assert_eq!(status, 0);
    }
}

fn without_memlock_epoll_does_the_work() {
    become_nobody_else();
    if !are_rings_counted() {
        return;
    }
    set_soft_limit(libc::RLIMIT_MEMLOCK, 0);
    assert_is_epoll(&["memlock", "0 KiB"]);
}

fn the_sysctl_that_disables_io_uring_leads_to_epoll() {
    if is_linux_6_1("there is no such sysctl") {
        return;
    }
    show_at("/proc/sys/kernel/io_uring_disabled", "2\n");
    refuse_calls(&[libc::SYS_io_uring_setup], libc::EPERM);
    assert_is_epoll(&["kernel.io_uring_disabled is 2"]);
}

fn where_neither_can_be_had_the_error_is_that_of_the_ring() {
    refuse_calls(&[libc::SYS_io_uring_setup, libc::SYS_epoll_create1], libc::EPERM);
    let error = Driver::new(&automatic()).err().unwrap();
    assert_says(&error, &["io_uring_setup"], &["seccomp profile"]);
}

fn the_environment_chooses_the_driver() {
    set_variable("RINGLOOP_DRIVER", "epoll");
    let driver = TestDriver::new();
    assert_eq!(driver.info().driver, DriverKind::Epoll);
    assert!(driver.info().refused.is_none(), "nothing was refused");
    driver.finish();
}

fn the_environment_leaves_the_choice_to_who_has_made_one() {
    set_variable("RINGLOOP_DRIVER", "epoll");
    let driver = TestDriver::of_ring();
    assert_eq!(driver.info().driver, DriverKind::Uring);
    driver.finish();
}

fn a_driver_that_there_is_not_is_an_error_with_its_remedy() {
    set_variable("RINGLOOP_DRIVER", "kqueue");
    let error = Driver::new(&DriverConfig::default()).err().unwrap();
    assert_says(&error, &["RINGLOOP_DRIVER", "kqueue"], &["auto", "uring", "epoll", "unset"]);
}

fn an_idle_driver_makes_no_thread() {
    let mut driver = TestDriver::of_ring();
    assert_works(&mut driver);
    let threads = fs::read_dir("/proc/self/task").unwrap().count();
    assert_eq!(threads, 1);
    driver.finish();
}
