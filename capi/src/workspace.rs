//! What is kept between calls.

use std::error::Error as StdError;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

use medcam_ops::device::{Allocator, DriverAllocator};
use medcam_ops::dlpack::ffi::DLDevice;
use medcam_ops::dlpack::{Place, Work, Workspace};

use crate::status::{Failure, guarded, medcam_status};

/// What calls on one device keep from one to the next: the caller's stream and scratch memory.
///
/// One thread at a time may use it: a call that finds another under way returns `MEDCAM_BUSY` and
/// does nothing. Which thread is free. Several workspaces of one device work at the same time.
#[derive(Debug)]
pub struct medcam_workspace {
    scratch_bytes: Arc<AtomicUsize>,
    kept: Mutex<Workspace>,
}

/// Returns the address of `bytes` bytes of memory of the workspace's device, aligned to 256 bytes,
/// for work on `stream`; NULL if there are none. The device's context is current in the calling
/// thread.
pub type medcam_allocate_function = Option<
    unsafe extern "C" fn(context: *mut c_void, bytes: usize, stream: *mut c_void) -> *mut c_void,
>;

/// Takes memory back, which work enqueued on its stream may still use. The device's context is
/// current in the calling thread.
pub type medcam_free_function =
    Option<unsafe extern "C" fn(context: *mut c_void, memory: *mut c_void, bytes: usize)>;

/// Memory of the device, counted: from the caller's functions, or from the driver.
struct Scratch {
    bytes: Arc<AtomicUsize>,
    functions: Option<Functions>,
}

struct Functions {
    context: *mut c_void,
    allocate: unsafe extern "C" fn(*mut c_void, usize, *mut c_void) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void, *mut c_void, usize),
}

// SAFETY: `medcam_workspace_set_allocator` asks for functions that any thread may call with this
// context.
unsafe impl Send for Functions {}
// SAFETY: as above.
unsafe impl Sync for Functions {}

// SAFETY: the driver's memory, or that of functions of which `medcam_workspace_set_allocator` asks
// the same. A pointer that is not aligned is refused.
unsafe impl Allocator for Scratch {
    fn allocate(
        &self,
        bytes: usize,
        stream: *mut c_void,
    ) -> Result<u64, Box<dyn StdError + Send + Sync>> {
        let address = match &self.functions {
            None => DriverAllocator.allocate(bytes, stream)?,
            Some(Functions { context, allocate, free }) => {
                // SAFETY: the caller's function, with its context.
                let memory = unsafe { allocate(*context, bytes, stream) };
                if memory.is_null() {
                    return Err(format!("the workspace's allocator has no {bytes} bytes").into());
                }
                if !memory.addr().is_multiple_of(256) {
                    // SAFETY: what `allocate` has just returned.
                    unsafe { free(*context, memory, bytes) };
                    let words =
                        "the workspace's allocator returned memory that is not aligned to 256";
                    return Err(words.into());
                }
                memory.expose_provenance() as u64
            }
        };
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(address)
    }

    unsafe fn free(&self, pointer: u64, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        match &self.functions {
            // SAFETY: by the caller's word.
            None => unsafe { DriverAllocator.free(pointer, bytes) },
            Some(Functions { context, free, .. }) => {
                #[expect(clippy::cast_possible_truncation, reason = "it was a pointer")]
                let memory = ptr::with_exposed_provenance_mut(pointer as usize);
                // SAFETY: what `allocate` returned, once, by the caller's word.
                unsafe { free(*context, memory, bytes) };
            }
        }
    }
}

impl medcam_workspace {
    /// Runs `call` with what is kept, as the only one.
    ///
    /// # Safety
    ///
    /// `workspace` is null, or of `medcam_workspace_create` and not destroyed.
    unsafe fn alone(
        workspace: *mut Self,
        call: impl FnOnce(&Self, &mut Workspace) -> Result<(), Failure>,
    ) -> medcam_status {
        guarded(|| {
            // SAFETY: by the caller's word.
            let Some(workspace) = (unsafe { workspace.as_ref() }) else {
                return Err(Failure::invalid("workspace: a null pointer"));
            };
            let mut kept = match workspace.kept.try_lock() {
                Ok(kept) => kept,
                // A call panicked. What it left is scratch memory, which each call takes anew.
                Err(TryLockError::Poisoned(kept)) => kept.into_inner(),
                Err(TryLockError::WouldBlock) => return Err(Failure::busy()),
            };
            call(workspace, &mut kept)
        })
    }

    /// Runs ops on the caller's stream.
    ///
    /// # Safety
    ///
    /// As for [`alone`](Self::alone); `stream` as for [`Workspace::on`].
    pub unsafe fn run(
        workspace: *mut Self,
        stream: *mut c_void,
        ops: impl FnOnce(&mut Work) -> Result<(), Failure>,
    ) -> medcam_status {
        // SAFETY: by the caller's word.
        unsafe { Self::alone(workspace, |_, kept| ops(&mut kept.on(stream)?)) }
    }
}

/// Where a result goes that is not a tensor.
pub fn room<T>(name: &str, pointer: *mut T) -> Result<*mut T, Failure> {
    match pointer {
        pointer if pointer.is_null() => Err(Failure::invalid(format!("{name}: a null pointer"))),
        pointer if pointer.is_aligned() => Ok(pointer),
        _ => Err(Failure::invalid(format!("{name}: not aligned to {} bytes", align_of::<T>()))),
    }
}

/// Makes a workspace for a device, `kDLCPU` or `kDLCUDA`, and writes its address to `workspace`;
/// NULL where that fails.
///
/// On a GPU, `MEDCAM_UNAVAILABLE` says that CUDA or the device is not there. The device's primary
/// context is used, the one that PyTorch and the CUDA runtime use.
///
/// # Safety
///
/// `workspace` is NULL or points at room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn medcam_workspace_create(
    device: DLDevice,
    workspace: *mut *mut medcam_workspace,
) -> medcam_status {
    guarded(|| {
        let room = room("workspace", workspace)?;
        // SAFETY: neither null nor misaligned, and room by the caller's word.
        unsafe { room.write(ptr::null_mut()) };
        let mut kept = Workspace::new(Place::of(device)?)?;
        let scratch_bytes = Arc::<AtomicUsize>::default();
        kept.set_allocator(Arc::new(Scratch {
            bytes: Arc::clone(&scratch_bytes),
            functions: None,
        }));
        let made = Box::new(medcam_workspace { scratch_bytes, kept: Mutex::new(kept) });
        // SAFETY: as above.
        unsafe { room.write(Box::into_raw(made)) };
        Ok(())
    })
}

/// Ends a workspace, and gives its memory back. NULL is ignored.
///
/// What it enqueued goes on: the driver's memory is freed when the device is done, and an allocator
/// of the caller gets its memory back at once.
///
/// # Safety
///
/// `workspace` is NULL, or of `medcam_workspace_create` and not destroyed yet. No other thread is
/// using it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn medcam_workspace_destroy(workspace: *mut medcam_workspace) {
    guarded(|| {
        if !workspace.is_null() {
            // SAFETY: of Box::into_raw, and freed once by the caller's word.
            drop(unsafe { Box::from_raw(workspace) });
        }
        Ok(())
    });
}

/// From now on scratch memory of the GPU comes from `allocate` and goes to `free`, instead of the
/// driver. Both NULL: from the driver again. What the workspace has goes back first.
///
/// With it, calls neither allocate nor free memory of the device in any other way. (The driver
/// takes memory for the context and for each kernel, when it is first used.) Blocks are kept from
/// call to call, until the workspace ends or another stream is used: calls that repeat, in any
/// order, end up allocating nothing.
///
/// On the CPU neither is called: what a call needs there comes from malloc and is freed when it
/// returns.
///
/// # Safety
///
/// `workspace` is as for all calls. As long as it lives or until the next allocator, any thread
/// that uses it may call both functions with `context`. What `allocate` returned belongs to the
/// workspace until `free`. Until earlier work of its stream is done, freed memory goes to nothing
/// but later work of that stream. The functions neither throw, nor jump out, nor call this
/// workspace.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn medcam_workspace_set_allocator(
    workspace: *mut medcam_workspace,
    context: *mut c_void,
    allocate: medcam_allocate_function,
    free: medcam_free_function,
) -> medcam_status {
    let set = |workspace: &medcam_workspace, kept: &mut Workspace| {
        let functions = match (allocate, free) {
            (Some(allocate), Some(free)) => Some(Functions { context, allocate, free }),
            (None, None) => None,
            _ => return Err(Failure::invalid("allocator: one of its functions is a null pointer")),
        };
        let bytes = Arc::clone(&workspace.scratch_bytes);
        kept.set_allocator(Arc::new(Scratch { bytes, functions }));
        Ok(())
    };
    // SAFETY: by the caller's word.
    unsafe { medcam_workspace::alone(workspace, set) }
}

/// Writes to `bytes` how much memory of the GPU the workspace holds at the moment; on the CPU it is
/// 0.
///
/// Blocks are kept and cut up, so it depends on the calls before. To learn what a program needs,
/// run its calls once and ask. Its allocator may then hand out fixed memory.
///
/// # Safety
///
/// `workspace` is as for all calls; `bytes` is NULL or points at room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn medcam_workspace_bytes(
    workspace: *mut medcam_workspace,
    bytes: *mut usize,
) -> medcam_status {
    let ask = |workspace: &medcam_workspace, _: &mut Workspace| {
        let room = room("bytes", bytes)?;
        // SAFETY: neither null nor misaligned, and room by the caller's word.
        unsafe { room.write(workspace.scratch_bytes.load(Ordering::Relaxed)) };
        Ok(())
    };
    // SAFETY: by the caller's word.
    unsafe { medcam_workspace::alone(workspace, ask) }
}
