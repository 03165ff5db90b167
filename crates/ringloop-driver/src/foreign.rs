//! Dropping what belongs to the user: the owner of written [`Bytes`](bytes::Bytes), a panic payload, a closure.
//!
//! Such a drop runs the user's code, which may panic. Where it does so in the middle of the library's work, the unwinding
//! would leave that half done. So every such value goes through [`drop_foreign`]: the panic ends there, and its payload is
//! kept for this thread until the layer above takes it ([`take_drop_panics`]) and reports it.
//!
//! The user's code may also call back. That is why the driver drops what it holds of the user last, when its own work is
//! done.

use std::any::Any;
use std::cell::RefCell;
use std::mem::{self, ManuallyDrop};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Drops `value`, which runs the user's code. A panic of that ends here; [`take_drop_panics`] gives its payload.
///
/// ```
/// use ringloop_driver::{drop_foreign, take_drop_panics};
///
/// struct Owner;
/// impl Drop for Owner {
///     fn drop(&mut self) {
///         panic!("in the user's code");
///     }
/// }
///
/// drop_foreign(Owner);
/// let panics = take_drop_panics();
/// assert_eq!(panics[0].downcast_ref::<&str>(), Some(&"in the user's code"));
/// ```
pub fn drop_foreign<T>(value: T) {
    // What is half done afterwards is the user's value, which is gone.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        keep_panic(payload);
    }
}

/// Whether [`take_drop_panics`] has something to give.
#[inline]
pub fn has_drop_panics() -> bool {
    PANICS.try_with(|kept| !kept.borrow().0.is_empty()).unwrap_or(false)
}

/// The payloads of what panicked inside [`drop_foreign`] on this thread since the last call, in order: the first 16.
///
/// Let go of each with [`discard_panic`]: a payload is a value of the user's, too.
pub fn take_drop_panics() -> Vec<Box<dyn Any + Send>> {
    PANICS.try_with(|kept| mem::take(&mut kept.borrow_mut().0)).unwrap_or_default()
}

/// Drops the payload of a panic that was caught. If its own drop panics, the second payload is leaked: there is no end to
/// payloads that panic.
pub fn discard_panic(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        let _leaked = ManuallyDrop::new(second);
    }
}

#[cold]
fn keep_panic(payload: Box<dyn Any + Send>) {
    let mut payload = Some(payload);
    // While the thread ends there is nobody left to tell.
    let _ = PANICS.try_with(|kept| {
        let payloads = &mut kept.borrow_mut().0;
        if payloads.len() < MOST_KEPT {
            payloads.extend(payload.take());
        }
    });
    if let Some(payload) = payload {
        discard_panic(payload);
    }
}

/// What nobody has taken yet.
struct Kept(Vec<Box<dyn Any + Send>>);

impl Drop for Kept {
    fn drop(&mut self) {
        // A panic out of the end of a thread-local ends the process.
        self.0.drain(..).for_each(discard_panic);
    }
}

thread_local! {
    static PANICS: RefCell<Kept> = const { RefCell::new(Kept(Vec::new())) };
}

/// Payloads that are kept until somebody takes them. A loop takes them in each iteration.
const MOST_KEPT: usize = 16;

#[cfg(test)]
mod tests {
    use std::panic::panic_any;
    use std::thread;

    use super::*;

    /// Panics when it is dropped, with itself one step nearer to the end as payload.
    struct Bomb(u32);

    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 > 0 {
                panic_any(Self(self.0 - 1));
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "second payloads are leaked, as is meant")]
    fn the_first_panics_are_kept_in_order_until_they_are_taken() {
        for number in 1..=20 {
            drop_foreign(Bomb(number));
        }
        assert!(has_drop_panics());
        let taken = take_drop_panics();
        let numbers = taken.iter().map(|payload| payload.downcast_ref::<Bomb>().unwrap().0);
        assert_eq!(numbers.collect::<Vec<_>>(), (0..16).collect::<Vec<_>>());
        taken.into_iter().for_each(discard_panic);
        assert!(take_drop_panics().is_empty() && !has_drop_panics());
    }

    #[test]
    #[cfg_attr(miri, ignore = "second payloads are leaked, as is meant")]
    fn a_payload_whose_drop_panics_is_survived() {
        discard_panic(Box::new(Bomb(5)));
        assert!(take_drop_panics().is_empty());
    }

    #[test]
    #[cfg_attr(miri, ignore = "second payloads are leaked, as is meant")]
    fn a_thread_ends_well_though_nobody_took_its_panics() {
        thread::spawn(|| drop_foreign(Bomb(3))).join().unwrap();
    }

    #[test]
    fn a_drop_that_panics_while_another_panic_unwinds_is_survived() {
        struct Guard;
        impl Drop for Guard {
            fn drop(&mut self) {
                drop_foreign(Bomb(1));
            }
        }
        let unwound = catch_unwind(|| {
            let _guard = Guard;
            panic_any(7_u8);
        });
        assert_eq!(unwound.unwrap_err().downcast_ref(), Some(&7_u8));
        assert_eq!(take_drop_panics().len(), 1);
    }
}
