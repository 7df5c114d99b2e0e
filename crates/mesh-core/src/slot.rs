//! A place where another crate keeps what it compiled from a piece of the model.
//!
//! mesh-core knows no router and no picker, yet both must live exactly as long as the model data
//! they were compiled from and be reused with it. A [`Slot`] holds one such value. It takes no
//! part in equality, and a clone starts empty.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

/// Holds one value of any type, made on first use.
#[derive(Default)]
pub struct Slot(OnceLock<Arc<dyn Any + Send + Sync>>);

// === impl Slot ===

impl Slot {
    /// The value in the slot, made by `make` if the slot is empty.
    ///
    /// # Panics
    /// If the slot already holds a value of another type: each slot belongs to one crate.
    #[inline]
    pub fn get_or_init<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> &T {
        self.0
            .get_or_init(|| Arc::new(make()))
            .downcast_ref()
            .expect("a slot is used with one type only")
    }

    /// Takes over what `other` holds, if this slot is empty: both then share one value.
    pub fn adopt(&self, other: &Self) {
        if let Some(value) = other.0.get() {
            // A value made in the meantime is just as good.
            let _ = self.0.set(value.clone());
        }
    }

    /// The value in the slot, if it was made and has this type.
    #[inline]
    pub fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.get()?.downcast_ref()
    }
}

impl Clone for Slot {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Slot {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Slot {}

impl Hash for Slot {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() {
            "Slot(made)"
        } else {
            "Slot(empty)"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_its_value_once_and_starts_empty_when_cloned() {
        let slot = Slot::default();
        assert_eq!(*slot.get_or_init(|| 1_u8), 1);
        assert_eq!(*slot.get_or_init(|| 2_u8), 1);
        let copy = slot.clone();
        assert_eq!(copy.get::<u8>(), None);
        assert_eq!(slot.get::<u16>(), None);
    }
}
