//! Random numbers for the allocator, from the kernel.
//!
//! Must not decide what they are for.

use model::ipam::Draw;

/// Random numbers of the kernel.
#[derive(Debug, Clone, Copy)]
pub struct KernelDraw;

impl Draw for KernelDraw {
    fn draw(&mut self) -> u128 {
        let mut bytes = [0u8; 16];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            // Once seeded at boot, the kernel's generator only ever fails by a signal.
            filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
        }
        u128::from_ne_bytes(bytes)
    }
}
