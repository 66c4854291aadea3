//! Codes and messages of errors.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use medcam_ops::Error;

/// What became of a call. For every code but `MEDCAM_OK`, `medcam_last_error()` says why.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum medcam_status {
    /// It is done; on a GPU enqueued.
    MEDCAM_OK = 0,
    /// An argument does not fit: a null pointer, a shape, strides, a type, a device or a value that
    /// is not finite; or the host's memory does not hold what the call takes.
    MEDCAM_INVALID = 1,
    /// CUDA is asked for, and the driver, NVRTC or the device is not there.
    MEDCAM_UNAVAILABLE = 2,
    /// The device failed: it has no memory left, or a kernel did not compile or run.
    MEDCAM_DEVICE = 3,
    /// Another thread is using the workspace.
    MEDCAM_BUSY = 4,
    /// A bug of this library. Destroy the workspace; what was to be written is undefined.
    MEDCAM_INTERNAL = 5,
}

/// Why a call failed.
#[derive(Debug)]
pub struct Failure {
    status: medcam_status,
    message: String,
}

impl Failure {
    /// Another thread has the workspace.
    pub fn busy() -> Self {
        let message = "workspace: another thread is using it; make one for each thread".to_owned();
        Self { status: medcam_status::MEDCAM_BUSY, message }
    }

    /// An argument that does not fit.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { status: medcam_status::MEDCAM_INVALID, message: message.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = if error.is_unavailable() {
            medcam_status::MEDCAM_UNAVAILABLE
        } else if error.is_device() {
            medcam_status::MEDCAM_DEVICE
        } else {
            medcam_status::MEDCAM_INVALID
        };
        Self { status, message: error.to_string() }
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Runs a call. Neither an error nor a panic leaves it but as a status.
pub fn guarded(call: impl FnOnce() -> Result<(), Failure>) -> medcam_status {
    // What a panic leaves half done: outputs, of which C programs are told, and the scratch memory
    // of a workspace, which each call takes anew.
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let words = match panic.downcast::<String>() {
            Ok(words) => *words,
            Err(panic) => panic.downcast::<&str>().map_or_else(|_| String::new(), |s| (*s).into()),
        };
        let message = format!("a bug of medcam, please report it: {words}");
        Err(Failure { status: medcam_status::MEDCAM_INTERNAL, message })
    });
    match result {
        Ok(()) => medcam_status::MEDCAM_OK,
        Err(Failure { status, message }) => {
            let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
            // In a thread that is ending the message may be gone already. The status is not.
            let _ = LAST.try_with(|last| *last.borrow_mut() = message);
            status
        }
    }
}

/// Why the last call of this thread that failed did so, for people; empty if none did.
///
/// The text stays until another call of this thread fails, or the thread ends. A call that succeeds
/// leaves it as it is: look at the status first.
#[unsafe(no_mangle)]
pub extern "C" fn medcam_last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::{Failure, guarded, medcam_last_error, medcam_status};

    fn last_error() -> &'static str {
        // SAFETY: a text of this thread, and each is looked at before the next call fails.
        unsafe { CStr::from_ptr(medcam_last_error()) }.to_str().unwrap()
    }

    #[test]
    fn a_panic_is_a_status() {
        assert_eq!(guarded(|| panic!("number {}", 3)), medcam_status::MEDCAM_INTERNAL);
        assert_eq!(last_error(), "a bug of medcam, please report it: number 3");
        assert_eq!(guarded(|| panic!("as it is")), medcam_status::MEDCAM_INTERNAL);
        assert_eq!(last_error(), "a bug of medcam, please report it: as it is");
        assert_eq!(guarded(|| std::panic::panic_any(3)), medcam_status::MEDCAM_INTERNAL);
        assert_eq!(last_error(), "a bug of medcam, please report it: ");
    }

    #[test]
    fn messages_are_whole_and_of_their_thread() {
        let fails = |message: &str| guarded(|| Err(Failure::invalid(message)));
        assert_eq!(fails("zero\0within"), medcam_status::MEDCAM_INVALID);
        assert_eq!(last_error(), "zero within");
        std::thread::spawn(|| assert_eq!(last_error(), "")).join().unwrap();
        assert_eq!(guarded(|| Ok(())), medcam_status::MEDCAM_OK);
        assert_eq!(last_error(), "zero within");
    }
}
